"""Leads two libraries to the same object store: pyarrow for files, obstore for conditional writes.

A URI names the bucket and the path. What else a store needs comes from the environment, which both
libraries read: `AWS_ENDPOINT_URL` (or `AWS_ENDPOINT_URL_S3`) for a store that is not Amazon's,
`AWS_REGION`, and the keys or the file that holds them. Not for local paths, nor for reading or
writing.
"""

import functools
import os
import re
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore.store
from obstore.exceptions import BaseError
from pyarrow import fs

from pipelines.contracts.errors import ConfigurationError, explain_os_error
from pipelines.places.credentials import file_of_keys, keys_from, require_plain

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss"}
"""Schemes of pyarrow that obstore knows too, and its names for them."""
_PLAIN_KEY = re.compile(r"[\w /.,:;@&=+$!'()-]*", re.ASCII)
"""Keys that both libraries send alike; obstore writes other characters as %XX."""
_ANY_REGION = "us-east-1"
"""What a store that is not Amazon's is told; it has no regions, and the signature needs one."""
_TIMEOUT = timedelta(seconds=10)
"""How long one small request may take: less than a lease has left when it is renewed."""
_SILENCE_S = 5.0
"""How long pyarrow waits for a connection, and then for the next byte, in seconds. It says that the
second is ignored on Linux, which is not so."""
_PATIENCE = timedelta(seconds=30)
"""For how long Google's client repeats one request."""
_RETRIES = 5
"""How often pyarrow repeats a request whose answer was lost, or was 500 or 503, within a second."""
LONGEST_REQUEST_S = (1 + _RETRIES) * _SILENCE_S + 1.0
"""How long pyarrow tries to make one request of a store that is silent, in seconds: 31."""


def open_arrow(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow filesystem of an object store's URI and the path on it.

    Raises:
        ConfigurationError: pyarrow does not know the scheme, or the URI has keys or a query.
        TransientStorageError: Amazon does not say where the bucket is.
    """
    require_plain(uri)
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        options = dict(_options_of(parts.scheme, parts.netloc))
        there = (options["region"], options.get("endpoint", ""))
        return _open_s3(*there, file_of_keys(), os.getpid()), f"{parts.netloc}{unquote(parts.path)}"
    if _SCHEMES.get(parts.scheme) == "gs":
        # Without a limit, Google's client asks a quarter of an hour for credentials it cannot get.
        limited = fs.GcsFileSystem(retry_time_limit=_PATIENCE)
        return limited, f"{parts.netloc}{unquote(parts.path)}"
    try:
        return fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError) as error:
        raise ConfigurationError(
            f"cannot open {uri}: {error}; expected file://, s3://, gs:// or another pyarrow scheme"
        ) from error
    except OSError as error:
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
        # One request writes a small file, in place of three.
        allow_delayed_open=True,
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
        TransientStorageError: Amazon does not say where the bucket is.
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
        found = "".join(sorted(set(_PLAIN_KEY.sub("", key))))
        raise ConfigurationError(
            f"{uri} has {found!r} in its path; expected letters, digits, spaces and /.,:;@&=+$!'()"
            f"-_ only, which every client of an object store sends alike; rename the folder"
        )
    base = f"{_SCHEMES[parts.scheme]}://{parts.netloc}"
    return _open_store(base, max_retries, _options_of(parts.scheme, parts.netloc)), key


def store_of(uri: str) -> str:
    """Return the name of the store that a URI is on, such as `s3://bucket`, with its endpoint."""
    parts = urlsplit(uri)
    endpoint = _endpoint() if parts.scheme == "s3" else ""
    return f"{parts.scheme}://{parts.netloc}" + (f" at {endpoint}" if endpoint else "")


def bucket_of(uri: str) -> str:
    """Return the bucket that a URI names; of a path without a scheme, its first part."""
    parts = urlsplit(uri)
    return parts.netloc or parts.path.partition("/")[0]


def region_told(uri: str) -> str:
    """Return, for people, in which region a URI's bucket is looked for, and why there."""
    if _region():
        return f"{_region()} (AWS_REGION)"
    return f"{_ANY_REGION} (AWS_REGION is not set)" if _endpoint() else f"that of {uri}"


def _options_of(scheme: str, bucket: str) -> tuple[tuple[str, str], ...]:
    """Return what obstore must be told of the environment."""
    if scheme != "s3":
        return ()
    keys = (("keys", path),) if (path := file_of_keys()) else ()
    if endpoint := _endpoint():
        return (("endpoint", endpoint), ("region", _region() or _ANY_REGION), *keys)
    return (("region", _region() or _region_of(bucket)), *keys)


@functools.lru_cache(maxsize=64)
def _open_store(
    base: str, max_retries: int, options: tuple[tuple[str, str], ...]
) -> "obstore.store.ObjectStore":
    named: dict[str, Any] = dict(options)
    if path := named.pop("keys", ""):
        named["credential_provider"] = keys_from(path)
    is_plain = named.get("endpoint", "").startswith("http://")
    try:
        return obstore.store.from_url(
            base,
            client_options={
                "allow_http": is_plain,
                "timeout": _TIMEOUT,
                "connect_timeout": _TIMEOUT,
            },
            retry_config={"max_retries": max_retries, "retry_timeout": _TIMEOUT},
            **named,
        )
    except (BaseError, ValueError) as error:
        told = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"cannot open {base}: {told}; expected s3://bucket, gs://bucket or "
            f"abfs://container@account.dfs.core.windows.net, and credentials in the environment; "
            f"correct the URI or the environment"
        ) from error


@functools.lru_cache(maxsize=64)
def _region_of(bucket: str) -> str:
    """Ask Amazon where a bucket is, as pyarrow does for itself."""
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise explain_os_error(
            error, f"s3://{bucket}", "asking Amazon for the region of"
        ) from error


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
