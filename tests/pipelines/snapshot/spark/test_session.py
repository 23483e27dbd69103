"""What is said where Spark is chosen and cannot be used. No Spark is needed for that."""

import sys
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.spark.choice import chosen_cluster
from pipelines.snapshot.spark.session import _require_java
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log


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
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    with pytest.raises(ConfigurationError, match="there is no Java .*Java 17 or newer"):
        _require_java()


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
