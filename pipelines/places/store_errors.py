"""What an object store's refusal means: the client libraries' errors as ours, by one table.

Each library wraps the store's own code in its own words, and pyarrow asks by HEAD, whose answers
have no words at all: then the store is asked again by obstore, which gets them. Not for the local
disk (`contracts.errors`). Tested in tests/pipelines/places/test_store_errors.py.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TransientStorageError,
    explain_os_error,
)
from pipelines.places.stores import open_conditional, region

_CODE = re.compile(r"<Code>(\w+)</Code>|ExceptionName: (\w+)|AWS Error (\w+)")
"""Where the code stands: in the store's own words, and in two wordings of pyarrow's."""
_XML = re.compile(r"(?:<\?xml[^>]*>)?\s*<Error>.*?(?:</Error>|$)", re.DOTALL)
_SAID = re.compile(r"<Message>([^<]*)</Message>")
_FROM_A_STORE = re.compile(r"AWS Error|curlCode|google::cloud|Azure")
_NO_WORDS = re.compile(r"No response body|Server returned non-2xx status code: \d{3} [\w ]+: ?$")
_KEYS = (
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; GOOGLE_APPLICATION_CREDENTIALS; "
    "AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_CLIENT_SECRET"
)


class _Meaning(NamedTuple):
    """What a store's code means."""

    told: str  # follows what was done where; names found, place and what the environment says
    codes: str = ""  # each library's spelling, in lower case and without underscores
    words: str = "(?!)"  # by which it is known where there is no code
    error: type[HomefeedError] = ConfigurationError


_MEANINGS = {
    "expired": _Meaning(
        "the credentials have expired ({found}); expected ones that outlast the stage; give the "
        "workers a role, or new values of {keys}, then retry: a new process takes what the "
        "environment holds by then",
        "expiredtoken tokenrefreshrequired expiredtokenexception requestexpired",
        error=TransientStorageError,
    ),
    "clock": _Meaning(
        "this machine's clock is not the store's ({found}); expected less than 15 minutes between "
        "them; set the clock (`timedatectl set-ntp true`)",
        "requesttimetooskewed",
    ),
    "region": _Meaning(
        "the bucket is not in the region that was asked, {region} ({found}); expected the bucket's "
        "own; set AWS_REGION to it, or for a store that is not Amazon's, AWS_ENDPOINT_URL to its "
        "address",
        "permanentredirect authorizationheadermalformed illegallocationconstraintexception",
        "redirect without LOCATION",  # of an answer 301 obstore keeps nothing else
    ),
    "no credentials": _Meaning(
        "no credentials for the object store were found, and this machine gave none of its own "
        "({found}); expected some; set those of its cloud in the environment ({keys}), or give the "
        "machine a role, then retry",
        # The libraries ask the machine last.
        words=r"token request|OAuth2 access token|DefaultAzureCredential",
        error=TransientStorageError,
    ),
    "no bucket": _Meaning(
        "there is no such bucket ({found}); expected the bucket to be there; make it, or "
        "correct the URI (HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG set the places)",
        "nosuchbucket",
    ),
    "no access": _Meaning(
        "the object store refuses access ({found}); expected to list, read, write and delete "
        "there; correct the credentials in the environment ({keys}) or the bucket's policy",
        "accessdenied allaccessdisabled accountproblem invalidaccesskeyid invalidtoken "
        "signaturedoesnotmatch invalidclienttokenid unrecognizedclient notsignedup",
    ),
}


def explain(error: Exception, place: str, doing: str) -> HomefeedError:
    """Return an error of a filesystem or of obstore as one of ours; what is unknown may pass.

    Args:
        error: An OSError of the system or of pyarrow, one of `obstore.exceptions`, or another error
            that `is_from_store`.
        place: Path or URI.
        doing: What was done there, such as 'reading'.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error, place, doing)
    found = _with_reason(_first_line(error), place)
    codes = {"".join(each).replace("_", "").lower() for each in _CODE.findall(found)}
    # What is nearer to the store says more than its answer to a HEAD, which is "no access".
    kind = next(
        (
            k
            for k, m in _MEANINGS.items()
            if codes & {*m.codes.split()} or re.search(m.words, found)
        ),
        "",
    )
    if not kind and isinstance(error, PermissionDeniedError | UnauthenticatedError):
        kind = "no access"
    if not kind and isinstance(error, FileNotFoundError):
        kind = "no bucket"
    if not kind:
        return TransientStorageError(f"{doing} {place}: {found}; check the storage, then retry")
    told = _MEANINGS[kind].told.format(found=found, keys=_KEYS, region=region())
    return _MEANINGS[kind].error(f"{doing} {place}: {told}", kind=kind)


def is_from_store(error: Exception) -> bool:
    """Return whether pyarrow's error tells of an answer that did not come, and not of a content."""
    return _FROM_A_STORE.search(str(error)) is not None


@contextlib.contextmanager
def translated_errors(uri: str, doing: str) -> Iterator[None]:
    """Turn errors of the system or of a store into ours, which name the URI and what to change."""
    try:
        yield
    except (OSError, BaseError, pa.ArrowException) as error:
        if isinstance(error, pa.ArrowException) and not (
            isinstance(error, OSError) or is_from_store(error)
        ):
            raise
        raise explain(error, uri, doing) from error


def require_bucket(uri: str) -> None:
    """Tell a bucket that is missing from a folder in it that is empty; each lists as nothing.

    Raises:
        ConfigurationError: the bucket of an `s3://` URI is not there.
        HomefeedError: the store refuses, or does not answer.
    """
    if urlsplit(uri).scheme == "s3":
        store, _ = open_conditional(f"{uri.rstrip('/')}/x", 3)
        with translated_errors(uri, "looking for the bucket of"):
            next(iter(obstore.list(store, "", chunk_size=1)), None)


def _with_reason(told: str, place: str) -> str:
    """Return the words of an error and, where the store's are not among them, those too."""
    if not _NO_WORDS.search(told) or "://" not in place:
        return told
    try:
        store, key = open_conditional(place, 0)
        obstore.get(store, key)
    except (BaseError, OSError) as error:
        return f"{told} {_first_line(error)}".strip()
    except ConfigurationError:
        return told  # No file can have this name, so nobody can be asked.
    return told


def _first_line(error: Exception) -> str:
    """Return what obstore says; after it comes a dump of its own values.

    Of the store's own answer only code and message stay, because the rest may hold the session's
    token, a secret, and goes into logs.
    """

    def in_short(found: re.Match[str]) -> str:
        code, said = _CODE.search(found[0]), _SAID.search(found[0])
        return f"{code[0] if code else ''} {said[1] if said else ''}".strip()

    return " ".join(_XML.sub(in_short, str(error).partition("\n\nDebug")[0]).split())
