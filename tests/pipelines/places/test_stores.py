"""What the environment says of a store reaches both libraries; a real server answers elsewhere."""

import pytest
from pyarrow import fs

from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.places import stores


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def test_both_libraries_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.local:9000")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    arrow, path = stores.open_arrow("s3://bucket/a%20folder/x")
    assert (arrow.region, path) == ("eu-north-1", "bucket/a folder/x")
    store, key = stores.open_conditional("s3://bucket/a%20folder/x", 0)
    assert key == "a folder/x"
    assert (store.config["endpoint"], store.config["region"]) == (
        "http://store.local:9000",
        "eu-north-1",
    )
    assert stores.store_of("s3://bucket/x") == "s3://bucket at http://store.local:9000"


def test_amazon_is_asked_once_where_a_bucket_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(bucket: str) -> str:
        asked.append(bucket)
        if bucket == "unanswered":
            raise OSError("curlCode: 6, Could not resolve host")
        return "eu-west-3"

    monkeypatch.setattr(fs, "resolve_s3_region", resolve)
    stores._region_of.cache_clear()
    for retries in (0, 3):
        store, _ = stores.open_conditional("s3://far/x", retries)
        assert store.config["region"] == "eu-west-3"
    assert asked == ["far"]
    with pytest.raises(TransientStorageError, match="region of s3://unanswered: .*resolve host"):
        stores.open_conditional("s3://unanswered/x", 0)


@pytest.mark.parametrize(
    "uri",
    ["gs://bucket/x", "gcs://bucket/x", "abfss://container@account.dfs.core.windows.net/x"],
)
def test_other_clouds_are_known(uri: str) -> None:
    assert stores.open_conditional(uri, 0)[1] == "x"


def test_a_store_that_is_named_badly_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot open abfs://account: .*expected s3://"):
        stores.open_conditional("abfs://account/x", 0)
