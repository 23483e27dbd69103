"""What is said where Spark is chosen and cannot be used, or its master is none. Needs no Spark."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.spark.cluster import chosen_cluster
from pipelines.snapshot.spark.session import _require_java, master_url, require_master
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
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    with pytest.raises(ConfigurationError, match="there is no Java .*Java 17 or newer"):
        _require_java()


def test_nothing_of_spark_is_imported_where_it_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.delenv("HOMEFEED_SPARK_OPTIONS", raising=False)
    with chosen_cluster((tmp_path / "snapshots").as_uri(), tmp_path) as cluster:
        assert cluster is None


@pytest.fixture
def listening() -> Iterator[str]:
    """An address at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("master.example.com:7077", "spark://master.example.com:7077"),
        ("one:7077,two:7077", "spark://one:7077,two:7077"),
        ("spark://one:7077", "spark://one:7077"),
        ("yarn", "yarn"),
        ("local[2]", "local[2]"),
        ("k8s://https://10.0.0.1:6443", "k8s://https://10.0.0.1:6443"),
    ],
)
def test_a_master_is_named_by_its_url_or_by_host_and_port(named: str, url: str) -> None:
    assert master_url(named) == url


@pytest.mark.parametrize("named", ["None", "10.0.0.7", "http://10.0.0.7:7077"])
def test_what_is_no_master_is_refused_by_name(named: str) -> None:
    """None is what Airflow makes of a connection without a host."""
    with pytest.raises(ConfigurationError, match=f"{named}.*expected spark://.*spark.master in"):
        master_url(named)


@pytest.mark.parametrize("address", ["10.0.0.7", "10.0.0.7:", ":7077", "a:7077,b"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{address}, where an address has no"):
        require_master(f"spark://{address}")


def test_a_master_out_of_reach_is_named_with_what_to_change() -> None:
    with pytest.raises(TransientStorageError) as caught:
        require_master("spark://127.0.0.1:9,127.0.0.1:99999")
    assert "127.0.0.1:9 (Connection refused) nor 127.0.0.1:99999 (" in str(caught.value)
    assert "correct spark.master in HOMEFEED_SPARK_OPTIONS" in str(caught.value)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that are tried, which are tried all the same."""
    tried, connect = list[tuple[str, int]](), socket.create_connection

    def noting(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(address)
        return connect(address, timeout)

    monkeypatch.setattr(socket, "create_connection", noting)
    return tried


def test_one_of_several_masters_is_enough(listening: str, asked: list[tuple[str, int]]) -> None:
    host, _, port = listening.partition(":")
    require_master(f"spark://127.0.0.1:9,{listening},127.0.0.1:99999")
    assert asked == [("127.0.0.1", 9), (host, int(port))]


@pytest.mark.parametrize("master", ["yarn", "local[*]", "k8s://https://127.0.0.1:9"])
def test_other_masters_are_sparks_own_business(master: str, asked: list[tuple[str, int]]) -> None:
    require_master(master)
    assert asked == []
