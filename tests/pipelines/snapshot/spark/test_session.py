"""What is said where Spark cannot be used, and what its own errors mean. Needs no Spark.

The words are those that Spark 4.3 said when it was tried.
"""

import sys
import traceback
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError, ProcessKilledError, TransientStorageError
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.spark.cluster import chosen_cluster
from pipelines.snapshot.spark.session import open_spark, translated_spark_errors
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config


def test_without_pyspark_it_says_what_to_install(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setenv("HOMEFEED_SPARK_OPTIONS", '{"spark.app.name": "x"}')
    with pytest.raises(
        ConfigurationError, match=r"`pip install --constraint constraints.txt '\.\[spark\]'`"
    ):
        write_snapshot(make_run(tmp_path, tiny_config(), TINY_AS_OF))
    assert list((tmp_path / "workspace" / "snapshots").iterdir()) == []


@pytest.mark.parametrize("home", ["", "/nowhere"])
def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    with (
        pytest.raises(ConfigurationError, match="there is no Java .*Java 17 or newer"),
        open_spark(Settings()),
    ):
        pass


def test_nothing_of_spark_is_imported_where_it_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.delenv("HOMEFEED_SPARK_OPTIONS", raising=False)
    with chosen_cluster((tmp_path / "snapshots").as_uri(), tmp_path) as cluster:
        assert cluster is None


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
    """Its words are asked of Java; where there are none, it has ended."""

    java_exception, words = "of Java", ""

    def __str__(self) -> str:
        if not self.words:
            raise REFUSED
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


def test_the_words_of_an_error_that_nobody_foresaw_outlive_java() -> None:
    error = OfJava()
    error.words = "Task not serializable"
    with pytest.raises(OfJava), translated_spark_errors("building"):
        raise error
    error.words = ""
    assert "Task not serializable" in "".join(traceback.format_exception(error))
