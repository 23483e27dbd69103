"""Keys of an S3 store from a file: both clients find them, and an unusable file is named."""

import re
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.places.credentials import file_of_keys, keys_from
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


def test_both_clients_take_the_keys_from_the_file(s3_uri: str, key_file: Path) -> None:
    storage.write_bytes(f"{s3_uri}/plain", b"1")  # pyarrow
    storage.write_new(f"{s3_uri}/conditional", b"2")  # obstore
    assert storage.read_bytes(f"{s3_uri}/conditional") == b"2"


def test_keys_in_the_environment_come_first(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_of_keys() == str(key_file)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    assert file_of_keys() == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "No such file or directory"),
        ("aws_secret_access_key = s3cret\n", "is no credentials file"),
        ("[other]\n", "has no default (profile default)"),
        (GOOD.replace("aws_secret_access_key", "secret"), "has no aws_secret_access_key"),
    ],
)
def test_an_unusable_file_is_named_and_no_key_is_told(
    key_file: Path, text: str | None, found: str
) -> None:
    key_file.unlink() if text is None else key_file.write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(found)) as caught:
        keys_from(str(key_file))()
    assert str(key_file) in str(caught.value) and "s3cret" not in str(caught.value)


def test_an_unusable_file_ends_a_conditional_write_as_a_configuration_error(
    key_file: Path,
) -> None:
    key_file.write_text("[other]\n")
    with pytest.raises(ConfigurationError, match="has no default"):
        storage.write_new(f"s3://{BUCKET}/never", b"1")


def test_a_session_token_and_a_profile_are_taken(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file.write_text(GOOD + GOOD.replace("default", "mine") + "aws_session_token = t\n")
    assert keys_from(str(key_file))().get("token") is None
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert keys_from(str(key_file))().get("token") == "t"
