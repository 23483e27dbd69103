"""Makes URIs of locations, and refuses URIs that hold keys.

Nothing heavy is imported: the settings ask this when they are read.

Tested in tests/pipelines/places/test_credentials.py.
"""

import re
from pathlib import Path

from pipelines.contracts.errors import ConfigurationError

_OF_BUCKETS = ("s3", "gs", "gcs")
"""Schemes after which the bucket alone stands. An account of Azure's is `container@account`."""


def to_uri(location: str | Path) -> str:
    """Return a URI for a path or a URI; relative paths become absolute `file://` URIs."""
    text = str(location)
    if "://" in text:
        return text.rstrip("/")
    return Path(text).expanduser().absolute().as_uri().rstrip("/")


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
    user, at, host = re.split(r"[/?#]", before, maxsplit=1)[0].rpartition("@")
    if scheme in _OF_BUCKETS:
        # No bucket's name has a colon. Without an @, a slash has cut a key in two.
        has_keys = bool(at) or ":" in host
    else:
        has_keys = ":" in user or re.search(r":(?!\d*$)", host.rpartition("]")[2]) is not None
    if not has_keys and not query_sign:
        return
    # A key may hold a slash, so what comes before the last @ is not told apart, and not shown.
    _, at, place = before.rpartition("@")
    shown = f"{scheme}://***{at}{place if at else ''}" if has_keys else f"{scheme}://{before}"
    found = "keys or a user name in it" if has_keys else "a query"
    raise ConfigurationError(
        f"{variable}{'=' if variable else ''}{shown} has {found} (not repeated here, because "
        f"messages are kept); expected scheme://bucket/path alone (or abfs://container@account/"
        f"path), to which paths are added; set AWS_ENDPOINT_URL (with http:// or https://), "
        f"AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment instead"
    )
