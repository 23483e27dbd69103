"""What is said where Spark is chosen and cannot be used. No Spark is needed for that."""

import sys
from pathlib import Path

import pytest

from pipelines.contracts.errors import (
    ConfigurationError,
    ProcessKilledError,
    SparkUnavailableError,
)
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.spark.choice import chosen_cluster
from pipelines.snapshot.spark.session import explain, translated_spark_errors
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log

KILLED = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.runJob.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 3 in stage 1.0 failed 4
Lost task 3.3 in stage 1.0 (TID 9) (executor 5): ExecutorLostFailure (executor 5 exited caused by
"""


def test_without_pyspark_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_ENGINE", "spark")
    write_tiny_log(tmp_path / "event_log")
    with pytest.raises(ConfigurationError, match=r"pip install 'homefeed-retrain\[spark\]'"):
        write_snapshot(make_run(tmp_path, tiny_config(), TINY_AS_OF))
    assert list((tmp_path / "workspace" / "snapshots").iterdir()) == []


@pytest.mark.parametrize("home", ["", "/nowhere"])
def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    from pipelines.snapshot.spark import session

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    with pytest.raises(ConfigurationError, match="there is no Java .*Java 17 or newer"):
        session._require_java()


def test_nothing_of_spark_is_imported_where_it_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.delenv("HOMEFEED_SNAPSHOT_ENGINE", raising=False)
    with chosen_cluster((tmp_path / "snapshots").as_uri(), tmp_path) as cluster:
        assert cluster is None


def test_an_engine_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="HOMEFEED_SNAPSHOT_ENGINE is 'flink'.*'spark'"):
        Settings(snapshot_engine="flink")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "ours", "told"),
    [
        (KILLED, ProcessKilledError, r"ExecutorLostFailure.*spark\.executor\.memoryOverhead"),
        ("All masters are unresponsive! Giving up.", SparkUnavailableError, "SPARK_MASTER"),
        ("Job 1 cancelled because SparkContext was shut down", SparkUnavailableError, "connection"),
        ("x\nModuleNotFoundError: No module named 'pyarrow'", ConfigurationError, "PYSPARK_PYTHON"),
        (
            'Cannot run program "/no/python3": error=2',
            ConfigurationError,
            "no/python3.*every machi",
        ),
        ("[JAVA_GATEWAY_EXITED] Java gateway process exited", ConfigurationError, "Java 17"),
    ],
)
def test_what_sparks_errors_mean(said: str, ours: type[Exception], told: str) -> None:
    with pytest.raises(ours, match=told), translated_spark_errors("building"):
        raise RuntimeError(said)


def test_an_error_that_nobody_foresaw_stays_as_it_is() -> None:
    assert explain(RuntimeError("Task not serializable"), "building") is None
    with pytest.raises(RuntimeError, match="^odd$"), translated_spark_errors("building"):
        raise RuntimeError("odd")
