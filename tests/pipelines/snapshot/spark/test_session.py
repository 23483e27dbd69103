"""What is said where Spark is chosen and cannot be used. Needs no Spark."""

import sys
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.spark.cluster import chosen_cluster
from pipelines.snapshot.spark.session import open_spark
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log


def test_without_pyspark_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setenv("HOMEFEED_SPARK_OPTIONS", '{"spark.app.name": "x"}')
    write_tiny_log(tmp_path / "event_log")
    with pytest.raises(ConfigurationError, match=r"pip install 'homefeed-retrain\[spark\]'"):
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
