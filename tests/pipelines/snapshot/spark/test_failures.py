"""What Spark's own errors mean. The words are those that Spark 4.3 said when it was tried."""

import pytest

from pipelines.contracts.errors import (
    ConfigurationError,
    ProcessKilledError,
    TransientStorageError,
)
from pipelines.snapshot.spark.failures import translated_spark_errors

KILLED = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.runJob.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 3 in stage 1.0 failed 4
Lost task 3.3 in stage 1.0 (TID 9) (executor 5): ExecutorLostFailure (executor 5 exited caused by
"""
TOO_MUCH = """Total size of serialized results of 3 tasks (1100.0 MiB) is bigger than \
spark.driver.maxResultSize (1024.0 MiB)"""
NO_PYTHON = """: org.apache.spark.SparkException: Job aborted due to stage failure: Task 2 failed
Lost task 2.3 in stage 0.0: java.io.IOException: Cannot run program "/no/python3": error=2
"""
NO_MODULE = "x\nModuleNotFoundError: No module named 'pyarrow'"
REFUSED, GONE = (kind(111, "Connection") for kind in (ConnectionRefusedError, ConnectionResetError))


class OfJava(Exception):
    """Its words are asked of Java, which has ended."""

    def __str__(self) -> str:
        raise REFUSED


@pytest.mark.parametrize(
    ("said", "ours", "told"),
    [
        (KILLED, ProcessKilledError, r"ExecutorLostFailure.*spark\.executor\.memoryOverhead"),
        ("All masters are unresponsive! Giving up.", TransientStorageError, "spark.master"),
        ("Job 1 cancelled because SparkContext was shut down", TransientStorageError, "connection"),
        (NO_MODULE, ConfigurationError, "PYSPARK_PYTHON"),
        ("java.lang.OutOfMemoryError: Java heap space", ProcessKilledError, "executor.memory "),
        (TOO_MUCH, ConfigurationError, "driver.maxResultSize and spark.driver.memory in HOMEFEED"),
        (NO_PYTHON, ConfigurationError, "no/python3.*on every machine"),
        ("Could not parse Master URL: 'sparkk://x'", ConfigurationError, "sparkk://x.*7077"),
        ("Invalid master URL: spark://x", ConfigurationError, "spark://x.*correct .*SPARK_OPTIONS"),
        ("[JAVA_GATEWAY_EXITED] Java gateway process exited", ConfigurationError, "Java 17"),
        (GONE, TransientStorageError, "building: .*spark.master"),
        (OfJava(), TransientStorageError, "^building: OfJava: .*this machine's memory"),
        ("Task not serializable", RuntimeError, "^Task not serializable$"),
    ],
)
def test_what_sparks_errors_mean(said: str | Exception, ours: type[Exception], told: str) -> None:
    error = RuntimeError(said) if isinstance(said, str) else said
    with pytest.raises(ours, match=told) as caught, translated_spark_errors("building"):
        raise error
    may_pass = ours in (TransientStorageError, ProcessKilledError)
    assert getattr(caught.value, "is_retryable", False) == may_pass
