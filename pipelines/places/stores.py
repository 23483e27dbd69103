"""Leads two libraries to the same object store: pyarrow for files, obstore for conditional writes.

A URI names the bucket and the path. What else a store needs comes from the environment, which both
libraries read: `AWS_ENDPOINT_URL` (or `AWS_ENDPOINT_URL_S3`) for a store that is not Amazon's,
`AWS_REGION` (us-east-1 where it is not set), and the keys. Keys stand in the environment or, so
that they reach no child's log, in the file of `AWS_SHARED_CREDENTIALS_FILE`, which pyarrow reads by
itself; never in a URI. Not for local paths, nor for reading or writing.
"""

import configparser
import functools
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore.store
from obstore.exceptions import BaseError
from pyarrow import fs

from pipelines.contracts.errors import ConfigurationError, explain_os_error
from pipelines.places.plain_uri import require_plain

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss"}
"""Schemes of pyarrow that obstore knows too, and its names for them."""
_PLAIN_KEY = re.compile(r"[\w /.,:;@&=+$!'()-]*", re.ASCII)
"""Keys that both libraries send alike; obstore writes other characters as %XX."""
_TIMEOUT = timedelta(seconds=10)
"""How long one small request may take: long for a file of some kilobytes."""
_SILENCE_S = 5.0
"""How long pyarrow waits for a connection, and then for the next byte, in seconds. It says that the
second is ignored on Linux, which is not so."""
_PATIENCE = timedelta(seconds=30)
"""For how long Google's client repeats one request."""
_RETRIES = 5
"""How often pyarrow repeats a request whose answer was lost, or was 500 or 503, within a second: it
tries to make one request of a silent store for 31 s."""
_READ_AGAIN_AFTER = timedelta(minutes=5)
"""A file of keys that is written anew takes effect within this time."""


def open_arrow(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow filesystem of an object store's URI and the path on it.

    Raises:
        ConfigurationError: pyarrow does not know the scheme, or the URI has keys or a query.
    """
    require_plain(uri)
    parts = urlsplit(uri)
    path = f"{parts.netloc}{unquote(parts.path)}"
    if parts.scheme == "s3":
        return _open_s3(region(), _endpoint(), file_of_keys(), os.getpid()), path
    if _SCHEMES.get(parts.scheme) == "gs":
        # Without a limit, Google's client asks a quarter of an hour for credentials it cannot get.
        return fs.GcsFileSystem(retry_time_limit=_PATIENCE), path
    try:
        return fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError) as error:
        raise ConfigurationError(
            f"cannot open {uri}: {error}; expected file://, s3://, gs:// or another pyarrow scheme"
        ) from error
    except OSError as error:  # A cluster that does not answer, such as HDFS, may come back.
        raise explain_os_error(error, uri, "opening") from error


@functools.lru_cache(maxsize=64)
def _open_s3(region: str, endpoint: str, keys: str, process_id: int) -> fs.S3FileSystem:
    """Return pyarrow's client, whose connections stay open; a forked process gets its own.

    It finds by itself the file that holds the keys, once, when it is made.
    """
    there = urlsplit(endpoint)
    own = {"endpoint_override": there.netloc, "scheme": there.scheme} if endpoint else {}
    return fs.S3FileSystem(
        region=region,
        request_timeout=_SILENCE_S,
        connect_timeout=_SILENCE_S,
        # The other strategy repeats fifty requests in the life of a client, and then none.
        retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=_RETRIES),
        allow_delayed_open=True,  # One request writes a small file, in place of three.
        **own,
    )


def open_conditional(uri: str, max_retries: int) -> tuple["obstore.store.ObjectStore", str]:
    """Return the obstore store of a URI, and the key in it.

    Args:
        uri: of a file.
        max_retries: how often the client repeats a request whose answer was lost.

    Raises:
        ConfigurationError: obstore does not know such a store, the key would be another one, or
            the URI has keys or a query.
    """
    require_plain(uri)
    parts = urlsplit(uri)
    key = unquote(parts.path).strip("/")
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{uri} is on a store ({parts.scheme}://) for which no conditional write is known; "
            f"expected a local path, or one of {', '.join(f'{each}://' for each in _SCHEMES)}: two "
            f"runs could not be kept apart there; set HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG to "
            f"such a place"
        )
    if not _PLAIN_KEY.fullmatch(key):
        raise ConfigurationError(
            f"{uri} has another character in its path; expected letters, digits, spaces and "
            f"/.,:;@&=+$!'()-_ only, which every client of an object store sends alike; rename it"
        )
    base = f"{_SCHEMES[parts.scheme]}://{parts.netloc}"
    there = (region(), _endpoint(), file_of_keys()) if parts.scheme == "s3" else None
    return _open_store(base, max_retries, there), key


@functools.lru_cache(maxsize=64)
def _open_store(
    base: str, max_retries: int, there: tuple[str, str, str] | None
) -> "obstore.store.ObjectStore":
    """Return obstore's client; `there` is the region, the endpoint and the file of keys of S3."""
    named: dict[str, Any] = {}
    of_region, endpoint, keys = there or ("", "", "")
    if there:
        named = {"region": of_region} | ({"endpoint": endpoint} if endpoint else {})
    if keys:
        named["credential_provider"] = functools.partial(read_keys, keys)
    is_plain = endpoint.startswith("http://")
    limits = {"timeout": _TIMEOUT, "connect_timeout": _TIMEOUT}
    named["client_options"] = {"allow_http": is_plain, **limits}
    named["retry_config"] = {"max_retries": max_retries, "retry_timeout": _TIMEOUT}
    try:
        return obstore.store.from_url(base, **named)
    except (BaseError, ValueError) as error:
        told = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"cannot open {base}: {told}; expected s3://bucket, gs://bucket or "
            f"abfs://container@account.dfs.core.windows.net, and credentials in the environment; "
            f"correct the URI or the environment"
        ) from error


def store_of(uri: str) -> str:
    """Return the name of the store that a URI is on, such as `s3://bucket`, with its endpoint."""
    parts = urlsplit(uri)
    endpoint = _endpoint() if parts.scheme == "s3" else ""
    return f"{parts.scheme}://{parts.netloc}" + (f" at {endpoint}" if endpoint else "")


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def region() -> str:
    """Return the region that is asked; a store that is not Amazon's has none, and is told one."""
    told = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return told or "us-east-1"


def file_of_keys() -> str:
    """Return the file that the environment names, or nothing where the keys stand in it."""
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "")
    return "" if os.environ.get("AWS_ACCESS_KEY_ID") else named


def read_keys(path: str) -> "obstore.store.S3Credential":
    """Return the keys of a file, which obstore asks for each time that those it has are too old.

    Raises:
        ConfigurationError: the file cannot be read, or has no such profile or keys.
    """
    profile, parser = os.environ.get("AWS_PROFILE", "default"), configparser.RawConfigParser()
    try:
        parser.read_string(Path(path).read_text())
        section = parser[profile]
        return {
            "access_key_id": section["aws_access_key_id"],
            "secret_access_key": section["aws_secret_access_key"],
            "token": section.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + _READ_AGAIN_AFTER,
        }
    except (OSError, KeyError, configparser.Error) as error:
        # The parser's own message quotes the line that it cannot read, which may be a key.
        raise ConfigurationError(
            f"AWS_SHARED_CREDENTIALS_FILE={path} has no keys of the profile {profile!r} "
            f"({type(error).__name__}); expected [{profile}] with aws_access_key_id and "
            f"aws_secret_access_key; correct the file, or set AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY"
        ) from None
