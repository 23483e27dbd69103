"""Keys of an S3 store from a file: both clients find them, and an unusable file is named."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.places.plain_uri import require_plain
from pipelines.places.stores import file_of_keys, read_keys
from pipelines.settings import Settings
from support.s3_server import BUCKET

GOOD = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n"


@pytest.fixture
def key_file(s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without keys, which names a file."""
    path = tmp_path / "credentials"
    path.write_text(GOOD)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    return path


def test_both_clients_take_the_keys_from_the_file(
    s3_uri: str, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{s3_uri}/plain", b"1")  # pyarrow
    storage.write_new(f"{s3_uri}/conditional", b"2")  # obstore
    assert storage.read_bytes(f"{s3_uri}/conditional") == b"2"
    assert file_of_keys() == str(key_file)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    assert file_of_keys() == "", "keys in the environment come first"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "(FileNotFoundError)"),
        ("aws_secret_access_key = s3cret\n", "(MissingSectionHeaderError)"),
        ("[other]\n", "profile 'default' (KeyError)"),
        (
            GOOD.replace("aws_secret_access_key", "secret"),
            "with aws_access_key_id and aws_secret_access_key",
        ),
    ],
)
def test_an_unusable_file_is_named_and_no_key_is_told(
    key_file: Path, text: str | None, found: str
) -> None:
    key_file.unlink() if text is None else key_file.write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(found)) as caught:
        storage.write_new(f"s3://{BUCKET}/never", b"1")
    assert str(key_file) in str(caught.value) and "s3cret" not in str(caught.value)


def test_a_session_token_and_a_profile_are_taken(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file.write_text(GOOD + GOOD.replace("default", "mine") + "aws_session_token = t\n")
    for profile, token in (("default", None), ("mine", "t")):
        monkeypatch.setenv("AWS_PROFILE", profile)
        assert read_keys(str(key_file)).get("token") == token


WITH_KEYS = (
    "s3://AKIAKEY:sEcReT@bucket/ws",
    "s3://AKIAKEY:sEc/ReT@bucket/ws",
    "S3://AKIAKEY:sEcReT@bucket/ws?region=eu-west-3",
    "s3://AKIAKEY:sEcReT/ws",
    "gs://AKIAKEY:sEcReT@bucket/ws",
    "gcs://sEcReT@bucket",
    "abfss://box:sEcReT@account.dfs.core.windows.net/ws",
    "abfs://:sEc/ReT@account.dfs.core.windows.net/ws",
    "hdfs://AKIAKEY:sEcReT@node:9000/ws",
)


QUERY = "s3://bucket/folder?endpoint_override=127.0.0.1:9&scheme=http/manifest.json"


@pytest.mark.parametrize("uri", [*WITH_KEYS, QUERY])
@pytest.mark.parametrize(
    "use", [storage.exists, storage.look, lambda uri: storage.write_bytes(uri, b"x")]
)
def test_keys_and_a_query_in_a_uri_are_refused_and_keys_not_repeated(
    uri: str, use: Callable[[str], object], caplog: pytest.LogCaptureFixture
) -> None:
    of_query = "has a query .*AWS_ENDPOINT_URL"
    says = of_query if uri == QUERY else r"://\*\*\*.* has keys .*AWS_ACCESS_KEY_ID"
    with pytest.raises(ConfigurationError, match=says) as told:
        use(uri)
    said = f"{told.value}{caplog.text}"
    assert not any(part in said for part in ("AKIAKEY", "sEc", "ReT"))
    assert told.value.__cause__ is None and told.value.__context__ is None


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/ws/a@b:c",
        "gs://bucket",
        "abfss://box@account.dfs.core.windows.net/ws",
        "abfs://box@127.0.0.1:10000/ws",
        "hdfs://user@node:9000/ws",
        "hdfs://[::1]:9000/ws",
        "file:///a/b?c",
        "/a/x:y@b?c",
        "",
    ],
)
def test_a_uri_without_keys_is_taken(uri: str) -> None:
    require_plain(uri)
    assert Settings(workspace=uri, event_log=uri).workspace == uri
