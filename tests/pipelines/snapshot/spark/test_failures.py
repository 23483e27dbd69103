"""What Spark's own errors mean. The words are those that Spark 4.3 said when it was tried."""

import traceback

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


class OfJava(Exception):
    """Its words are asked of Java."""

    java_exception, words = None, ""

    def __str__(self) -> str:
        if not self.words:  # Java's memory ran out, or it has ended
            raise ConnectionRefusedError(111, "Connection refused")
        return self.words


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
        ("Invalid master URL: spark://x", ConfigurationError, "spark://x.*correct spark.master"),
        ("[JAVA_GATEWAY_EXITED] Java gateway process exited", ConfigurationError, "Java 17"),
        (ConnectionRefusedError(111, "Connection refused"), TransientStorageError, "spark.master"),
        (ConnectionResetError(), TransientStorageError, "building: ConnectionResetError: "),
        (OfJava(), TransientStorageError, "^building: OfJava: .*this machine's memory"),
        ("Task not serializable", RuntimeError, "^Task not serializable$"),
    ],
)
def test_what_sparks_errors_mean(said: str | Exception, ours: type[Exception], told: str) -> None:
    error = RuntimeError(said) if isinstance(said, str) else said
    with pytest.raises(ours, match=told) as caught, translated_spark_errors("building"):
        raise error
    assert getattr(caught.value, "is_retryable", False) == (ours in (
        TransientStorageError, ProcessKilledError))  # fmt: skip


def test_the_words_of_an_error_that_nobody_foresaw_outlive_java(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OfJava, "words", "Task not serializable")
    error = OfJava()
    with pytest.raises(OfJava), translated_spark_errors("building"):
        raise error
    monkeypatch.setattr(OfJava, "words", "")
    assert "Task not serializable" in "".join(traceback.format_exception(error))
