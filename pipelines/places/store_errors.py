"""What an object store's refusal means: the client libraries' errors as ours.

Each library wraps the store's own code in its own words, and pyarrow asks by HEAD, whose answers
have no words at all: then the store is asked again by obstore, which gets them. The class of the
error says whether trying again can help. Not for the local disk (`contracts.errors`). Tested in
tests/pipelines/places/test_store_errors.py.
"""

import re
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TransientStorageError,
    explain_os_error,
)
from pipelines.places.stores import bucket_of, open_conditional, region_told

_CODE = re.compile(r"<Code>(\w+)</Code>|ExceptionName: (\w+)|AWS Error (\w+)")
"""Where the code stands: in the store's own words, and in two wordings of pyarrow's."""
_XML = re.compile(r"(?:<\?xml[^>]*>)?\s*<Error>.*?(?:</Error>|$)", re.DOTALL)
_SAID = re.compile(r"<Message>([^<]*)</Message>")
_REDIRECTED = "redirect without LOCATION"
"""obstore's words for an answer 301, of which it keeps nothing else."""
_FROM_A_STORE = re.compile(r"AWS Error|curlCode|google::cloud|Azure")
_NO_WORDS = re.compile(r"No response body|Server returned non-2xx status code: \d{3} [\w ]+: ?$")
_EXPIRED = {"expiredtoken", "tokenrefreshrequired", "expiredtokenexception", "requestexpired"}
_SKEWED = {"requesttimetooskewed"}
_ELSEWHERE = {
    *("permanentredirect", "authorizationheadermalformed", "illegallocationconstraintexception"),
}
_NO_BUCKET = {"nosuchbucket"}
_NO_ACCESS = {
    *("accessdenied", "allaccessdisabled", "accountproblem", "invalidaccesskeyid", "invalidtoken"),
    *("signaturedoesnotmatch", "invalidclienttokenid", "unrecognizedclient", "notsignedup"),
}
_NO_CREDENTIALS = re.compile(r"token request|OAuth2 access token|DefaultAzureCredential")
"""How the libraries say that nobody gave them credentials; they ask the machine last."""
_OF_CLOUD = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_CLIENT_SECRET",
    "abfss": "AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_CLIENT_SECRET",
}
_KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN"


def explain(error: Exception, place: str, doing: str) -> HomefeedError:
    """Return an error of a filesystem as one of ours.

    Args:
        error: An OSError of the system or of pyarrow, or another error that `is_from_store`.
        place: Path or URI.
        doing: What was done there, such as 'reading'.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error, place, doing)
    told = _with_reason(_first_line(error), place)
    return _explained(told, place, doing) or _may_pass(told, place, doing)


def explain_conditional(error: Exception, uri: str, doing: str) -> HomefeedError:
    """Return an error of obstore as one of ours.

    Args:
        error: One of `obstore.exceptions`, or an OSError.
        uri: The file.
        doing: What was done there.
    """
    told = _with_reason(_first_line(error), uri)
    found = _explained(told, uri, doing)
    if found is not None:
        return found
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return _no_access(told, uri, doing)
    if isinstance(error, FileNotFoundError):
        return _no_bucket(told, uri, doing)
    return _may_pass(told, uri, doing)


def is_from_store(error: Exception) -> bool:
    """Return whether pyarrow's error tells of an answer that did not come, and not of a content."""
    return _FROM_A_STORE.search(str(error)) is not None


def _explained(told: str, place: str, doing: str) -> HomefeedError | None:
    """Return what the store's code means; None where it is none that a person can do about."""
    code = _code_in(told)
    if code in _EXPIRED:
        return TransientStorageError(
            f"{doing} {place}: the credentials have expired ({told}); expected ones that outlast "
            f"the stage; give the workers a role, or new values of {_KEYS}, then retry: a new "
            f"process takes what the environment holds by then",
            kind="expired",
        )
    if code in _SKEWED:
        return ConfigurationError(
            f"{doing} {place}: this machine's clock is not the store's ({told}); expected less "
            f"than 15 minutes between them; set the clock (`timedatectl set-ntp true`)",
            kind="clock",
        )
    if code in _ELSEWHERE or _REDIRECTED in told:
        return ConfigurationError(
            f"{doing} {place}: the bucket is not in the region that was asked, "
            f"{region_told(place)} ({told}); expected the bucket's own; set AWS_REGION to it, or "
            f"for a store that is not Amazon's, AWS_ENDPOINT_URL to its address",
            kind="region",
        )
    if _NO_CREDENTIALS.search(told):
        names = _OF_CLOUD.get(urlsplit(place).scheme, _KEYS)
        return TransientStorageError(
            f"{doing} {place}: no credentials for the object store were found, and this machine "
            f"gave none of its own ({told}); expected some; set {names} in the environment, or "
            f"give the machine a role, then retry",
            kind="no credentials",
        )
    if code in _NO_BUCKET:
        return _no_bucket(told, place, doing)
    return _no_access(told, place, doing) if code in _NO_ACCESS else None


def _may_pass(told: str, place: str, doing: str) -> TransientStorageError:
    return TransientStorageError(f"{doing} {place}: {told}; check the storage, then retry")


def _no_bucket(told: str, place: str, doing: str) -> ConfigurationError:
    return ConfigurationError(
        f"{doing} {place}: there is no bucket {bucket_of(place)!r} ({told}); expected the bucket "
        f"to be there; make it, or correct the URI (HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG set "
        f"the places)",
        kind="no bucket",
    )


def _no_access(told: str, place: str, doing: str) -> ConfigurationError:
    return ConfigurationError(
        f"{doing} {place}: the object store refuses access ({told}); expected to list, read, write "
        f"and delete there; correct the credentials in the environment ({_KEYS}) or the bucket's "
        f"policy",
        kind="no access",
    )


def require_bucket(uri: str) -> None:
    """Tell a bucket that is missing from a folder in it that is empty; each lists as nothing.

    Raises:
        ConfigurationError: the bucket of an `s3://` URI is not there.
        HomefeedError: the store refuses, or does not answer.
    """
    if urlsplit(uri).scheme != "s3":
        return
    store, _ = open_conditional(f"{uri.rstrip('/')}/x", 3)
    try:
        next(iter(obstore.list(store, "", chunk_size=1)), None)
    except (BaseError, OSError) as error:
        raise explain_conditional(error, uri, "looking for the bucket of") from error


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
    told = str(error).partition("\n\nDebug")[0]
    return " ".join(_XML.sub(_in_short, told).split())


def _in_short(found: re.Match[str]) -> str:
    """Return the code and the message of an answer; the code stays as `_CODE` finds it."""
    code, said = _CODE.search(found[0]), _SAID.search(found[0])
    return f"{code[0] if code else ''} {said[1] if said else ''}".strip()


def _code_in(told: str) -> str:
    """Return the store's code, which each library spells in its own way; '' if there is none."""
    codes = [next(filter(None, found)) for found in _CODE.findall(told)]
    plain = [code.replace("_", "").lower() for code in codes]
    # The last ones are nearest to the store, and the first is often UNKNOWN.
    return next((code for code in reversed(plain) if code != "unknown"), "")
