"""Where the keys of an object store stand: in a file, and never in a URI.

In a file keys reach no environment and no child's log. pyarrow and boto3 read
`AWS_SHARED_CREDENTIALS_FILE` themselves; obstore does not, and asks what is here. Not for keys in
the environment, which come before the file for all three. Tested in
tests/pipelines/places/test_credentials.py.
"""

import configparser
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from obstore.store import S3Credential

_READ_AGAIN_AFTER = timedelta(minutes=5)
"""A file that is written anew takes effect within this time, so keys can be changed under way."""

_OF_BUCKETS = ("s3", "gs", "gcs")
"""Schemes after which the bucket alone stands. An account of Azure's is `container@account`."""
_AUTHORITY = re.compile(r"[^/?#]*")


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


def require_plain(uri: str, variable: str = "") -> None:
    """Refuse a URI with keys in it: messages, alerts and manifests repeat URIs, and so would they.

    Also refused is a query. It may hold keys, and a path below the URI would be added behind it.

    Args:
        uri: URI or local path.
        variable: The environment variable that it was read from, for the message.

    Raises:
        ConfigurationError: the URI has a query, or a user name or keys before the bucket.
    """
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    if not rest or scheme == "file":
        return
    before, query_sign, _ = rest.partition("?")
    _, at, place = before.rpartition("@")
    has_keys = _has_keys(scheme, before)
    if not has_keys and not query_sign:
        return
    # A key may hold a slash, so what comes before the last @ is not told apart, and not shown.
    shown = f"{scheme}://***{at}{place if at else ''}" if has_keys else f"{scheme}://{before}"
    found = "keys or a user name in it" if has_keys else "a query"
    raise ConfigurationError(
        f"{variable}{'=' if variable else ''}{shown} has {found} (not repeated here, because "
        f"messages are kept); expected scheme://bucket/path alone (or abfs://container@account/"
        f"path), to which paths are added; set AWS_ENDPOINT_URL (with http:// or https://), "
        f"AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment instead"
    )


def _has_keys(scheme: str, rest: str) -> bool:
    """Return whether more than the name of a bucket, account or server comes after `scheme://`."""
    authority = _AUTHORITY.match(rest)
    assert authority is not None  # It matches nothing at all, too.
    user, at, host = authority[0].rpartition("@")
    if scheme in _OF_BUCKETS:
        # No bucket's name has a colon. Without an @, a slash has cut a key in two.
        return bool(at) or ":" in host
    return ":" in user or re.search(r":(?!\d*$)", host.rpartition("]")[2]) is not None


def _unusable(path: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"AWS_SHARED_CREDENTIALS_FILE={path} {found}; expected [default] with aws_access_key_id "
        f"and aws_secret_access_key; correct the file, or set AWS_ACCESS_KEY_ID and "
        f"AWS_SECRET_ACCESS_KEY"
    )
