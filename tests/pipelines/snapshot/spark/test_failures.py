"""What Spark's own errors mean. The words are those that Spark 4.3 said when it was tried."""

import traceback

import pytest

from pipelines.contracts.errors import (
    ConfigurationError,
    ProcessKilledError,
    TransientStorageError,
)
from pipelines.snapshot.spark.failures import explain, translated_spark_errors

KILLED = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.runJob.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 3 in stage 1.0 failed 4
Lost task 3.3 in stage 1.0 (TID 9) (executor 5): ExecutorLostFailure (executor 5 exited caused by
"""
TOO_MUCH = """Total size of serialized results of 3 tasks (1100.0 MiB) is bigger than \
spark.driver.maxResultSize (1024.0 MiB)"""
NO_PYTHON = """: org.apache.spark.SparkException: Job aborted due to stage failure: Task 2 failed
Lost task 2.3 in stage 0.0: java.io.IOException: Cannot run program "/no/python3": error=2
"""


@pytest.mark.parametrize(
    ("said", "ours", "told"),
    [
        (KILLED, ProcessKilledError, r"ExecutorLostFailure.*spark\.executor\.memoryOverhead"),
        ("All masters are unresponsive! Giving up.", TransientStorageError, "spark.master"),
        ("Job 1 cancelled because SparkContext was shut down", TransientStorageError, "connection"),
        ("x\nModuleNotFoundError: No module named 'pyarrow'", ConfigurationError, "PYSPARK_PYTHON"),
        ("java.lang.OutOfMemoryError: Java heap space", ProcessKilledError, "executor.memory "),
        (TOO_MUCH, ConfigurationError, "driver.maxResultSize and spark.driver.memory in HOMEFEED"),
        (NO_PYTHON, ConfigurationError, "no/python3.*on every machine"),
        (
            "Could not parse Master URL: 'sparkk://x'",
            ConfigurationError,
            "sparkk://x.*spark.master",
        ),
        ("[JAVA_GATEWAY_EXITED] Java gateway process exited", ConfigurationError, "Java 17"),
    ],
)
def test_what_sparks_errors_mean(said: str, ours: type[Exception], told: str) -> None:
    with pytest.raises(ours, match=told), translated_spark_errors("building"):
        raise RuntimeError(said)


def test_a_driver_whose_java_was_killed_may_be_tried_again() -> None:
    ours = explain(ConnectionRefusedError(111, "Connection refused"), "building")
    assert isinstance(ours, TransientStorageError) and ours.is_retryable
    assert isinstance(explain(ConnectionResetError(), "building"), TransientStorageError)


def test_an_error_whose_words_java_took_with_it_may_be_tried_again() -> None:
    """The driver's memory ran out: PySpark asks Java for the words, and nobody answers."""

    class OfJava(Exception):
        def __str__(self) -> str:
            raise ConnectionRefusedError(111, "Connection refused")

    ours = explain(OfJava(), "reading")
    assert isinstance(ours, TransientStorageError)
    assert str(ours).startswith("reading: OfJava: ") and "this machine's memory" in str(ours)


def test_an_error_that_nobody_foresaw_stays_as_it_is() -> None:
    assert explain(RuntimeError("Task not serializable"), "building") is None
    with pytest.raises(RuntimeError, match="^odd$"), translated_spark_errors("building"):
        raise RuntimeError("odd")


def test_the_words_of_an_error_that_nobody_foresaw_outlive_java() -> None:
    class OfJava(Exception):
        java_exception = None
        words = "Task not serializable"

        def __str__(self) -> str:
            return self.words

    error = OfJava()
    with pytest.raises(OfJava), translated_spark_errors("building"):
        raise error
    OfJava.words = "Connection refused"
    assert "Task not serializable" in "".join(traceback.format_exception(error))
