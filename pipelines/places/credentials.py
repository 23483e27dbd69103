"""Keys of an S3 store that stand in a file, where they reach no environment and no child's log.

pyarrow and boto3 read `AWS_SHARED_CREDENTIALS_FILE` themselves; obstore does not, and asks what is
here. Not for keys in the environment, which come before the file for all three. Tested in
tests/pipelines/places/test_credentials.py.
"""

import configparser
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from obstore.store import S3Credential

_READ_AGAIN_AFTER = timedelta(minutes=5)
"""A file that is written anew takes effect within this time, so keys can be changed under way."""


def file_of_keys() -> str:
    """Return the file that the environment names, or nothing where the keys stand in it."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return ""
    return os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "")


def keys_from(path: str) -> Callable[[], "S3Credential"]:
    """Return what obstore asks for keys, each time that those it has are too old.

    Raises (when it is asked):
        ConfigurationError: the file cannot be read, or has no such profile or keys.
    """

    def keys() -> "S3Credential":
        profile = os.environ.get("AWS_PROFILE", "default")
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(Path(path).read_text())
            section = parser[profile]
            found: S3Credential = {
                "access_key_id": section["aws_access_key_id"],
                "secret_access_key": section["aws_secret_access_key"],
                "token": section.get("aws_session_token"),
                "expires_at": datetime.now(UTC) + _READ_AGAIN_AFTER,
            }
        except OSError as error:
            raise _unusable(path, error.strerror or "cannot be read") from None
        except KeyError as error:
            raise _unusable(path, f"has no {error.args[0]} (profile {profile})") from None
        except configparser.Error as error:
            # The parser's own message quotes the line that it cannot read, which may be a key.
            raise _unusable(path, f"is no credentials file ({type(error).__name__})") from None
        return found

    return keys


def _unusable(path: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"AWS_SHARED_CREDENTIALS_FILE={path} {found}; expected [default] with aws_access_key_id "
        f"and aws_secret_access_key; correct the file, or set AWS_ACCESS_KEY_ID and "
        f"AWS_SECRET_ACCESS_KEY"
    )
