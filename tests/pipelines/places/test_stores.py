"""What the environment says of a store reaches both libraries; a real server answers elsewhere."""

import itertools
import time
from datetime import timedelta

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.places import stores
from support.faulty_proxy import faulty_proxy


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what leads to a store; a test that asks for one sets it afterwards."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def test_both_libraries_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.local:9000")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    arrow, path = stores.open_arrow("s3://bucket/a%20folder/x")
    assert (arrow.region, path) == ("eu-north-1", "bucket/a folder/x")
    store, key = stores.open_conditional("s3://bucket/a%20folder/x", 0)
    told = (key, store.config["endpoint"], store.config["region"])
    assert told == ("a folder/x", "http://store.local:9000", "eu-north-1")
    monkeypatch.delenv("AWS_REGION")
    assert stores.region() == stores.open_arrow("s3://bucket/x")[0].region == "us-east-1"
    assert stores.store_of("s3://bucket/x") == "s3://bucket at http://store.local:9000"


def test_a_process_that_met_many_lost_answers_still_asks_again(
    s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon's standard strategy repeats fifty requests of a client, and then none."""
    with faulty_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        counted = itertools.count(1)
        proxy.choose = lambda *_: "answer lost" if next(counted) % 2 else ""
        for _ in range(60):
            storage.exists(f"{s3_uri}/x")
        assert len(proxy.met) > 100


def test_a_store_that_falls_silent_is_not_waited_for_for_ever(
    s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_SILENCE_S", 1.0)
    monkeypatch.setattr(stores, "_RETRIES", 1)
    monkeypatch.setattr(stores, "_TIMEOUT", timedelta(seconds=1))
    storage.write_bytes(f"{s3_uri}/x", b"x")
    with faulty_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.stall_s = 10
        proxy.choose = lambda *_: "stalled"
        for ask in (storage.exists, storage.read_bytes, storage.list_names, storage.look):
            started = time.monotonic()
            with pytest.raises(TransientStorageError):
                ask(f"{s3_uri}/x")
            assert time.monotonic() - started < 9, ask


def test_a_small_file_is_written_by_one_request(
    s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage.exists(s3_uri)  # The first request of a client is followed by one about a region.
        seen: list[str] = []
        proxy.choose = lambda method, path: seen.append(method) or ""
        storage.write_bytes(f"{s3_uri}/x", b"x" * 1000)
        assert seen == ["PUT"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("abfs://account/x", "cannot open abfs://account: .*expected s3://"),
        ("hdfs://name:9000/runs/x", "hdfs://.*two runs could not be kept apart"),
        ("s3://bucket/~é/x.json", "has another character in its path"),
    ],
)
def test_a_place_that_has_no_conditional_writes_is_refused_before_it_is_asked(
    uri: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        stores.open_conditional(uri, 0)


def test_a_cluster_that_is_away_may_come_back() -> None:
    with pytest.raises(TransientStorageError, match="(?s)opening hdfs://away:1/x: .*then retry"):
        stores.open_arrow("hdfs://away:1/x")
