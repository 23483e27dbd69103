"""What an error of MLflow means: one rule for the registry, the bundle and the training curves.

The HTTP status and MLflow's own error code decide. An outage may pass: the server cannot be
reached, does not answer in time (also 408, of a proxy), asks to come again (425, 429), fails by
itself (5xx), or something before it answers with JSON of its own, of which MLflow's client does not
tell the status. Everything else is an answer, which the same request would get again: the user is
not let in (401, 403), the thing is not there (404), the request is refused (another 4xx), or no
MLflow server answers at that address.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)

Value = TypeVar("Value")

WAITS_S = (0.25, 0.5, 1.0, 2.0)
"""Seconds before the second attempt and those after it; a task's own retries come later."""

_COME_AGAIN = (408, 425, 429)
"""Statuses below 500 that say nothing against the request: time-out, too early, too many."""
_NUM_SHOWN = 300
_STATUS = re.compile(r"failed with error code (\d{3}) != |\b(\d{3}) (?:Client|Server) Error")
"""MLflow's client tells so of an answer that is a page, and of each file of a download."""

Kind = Literal["outage", "no access", "no MLflow", "missing", "refused"]
_ERRORS: dict[Kind, tuple[type[HomefeedError], str]] = {
    "no access": (
        ConfigurationError,
        "MLflow at {uri} does not let this user in: {found}; expected the credentials of a user "
        "who may read and write there; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
        "(or MLFLOW_TRACKING_TOKEN); if it speaks of a host header, allow that host on the server",
    ),
    "no MLflow": (
        ConfigurationError,
        "what answers at {uri} is no MLflow server, or an older one: {found}; expected MLflow's "
        "JSON; correct HOMEFEED_TRACKING_URI (`make ui` starts a server on one machine)",
    ),
    "missing": (
        TrackingEntryMissingError,
        "MLflow at {uri} does not have it: {found}; it was deleted or never was; name one that "
        "is there, or start a new cycle, which takes what is there then",
    ),
    "refused": (
        ConfigurationError,
        "MLflow at {uri} refuses the request: {found}; the same request would be refused again; "
        "correct what it names",
    ),
    "outage": (
        TrackingUnavailableError,
        "MLflow at {uri} does not answer: {found}; start it (`make ui` on one machine) or correct "
        "HOMEFEED_TRACKING_URI, then retry",
    ),
}


def kind_of(error: Exception) -> Kind | None:
    """Return what an error of MLflow's client or of `requests` means; None of another library."""
    from mlflow import exceptions as of_mlflow
    from requests import exceptions

    no_address = (of_mlflow.InvalidUrlException, exceptions.InvalidURL, exceptions.MissingSchema)
    if isinstance(error, no_address):
        return "no MLflow"
    if isinstance(error, of_mlflow.MlflowException):
        if not isinstance(error, of_mlflow.RestException) and (told := _told_by_client(error)):
            return told
        # MLflow's client calls a refused connection, a time-out and JSON of others INTERNAL_ERROR.
        return _by_status(of_mlflow.ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, 500))
    if isinstance(error, exceptions.HTTPError):
        return _by_status(500 if error.response is None else error.response.status_code)
    lost = (exceptions.ConnectionError, exceptions.Timeout, exceptions.RetryError)
    return "outage" if isinstance(error, (*lost, exceptions.ChunkedEncodingError)) else None


def _told_by_client(error: Exception) -> Kind | None:
    """Return what an error means that MLflow's client made itself; None: as its code says."""
    cause, text = error.__cause__, str(error)
    # Where it looks first, as before it tags a model, it calls every error a wrong parameter.
    kinds: list[Kind] = (
        ["outage"] if isinstance(cause, Exception) and kind_of(cause) == "outage" else []
    )
    kinds += ["no MLflow"] if "not in a valid JSON format" in text else []
    for of_page, of_file in _STATUS.findall(text):
        kind = _by_status(int(of_page or of_file))
        # MLflow says in JSON what is not there and what is refused; a page is somebody else's.
        kinds.append("no MLflow" if of_page and kind in ("missing", "refused") else kind)
    return "outage" if "outage" in kinds else (kinds[0] if kinds else None)


def _by_status(status: int) -> Kind:
    if status in (401, 403):
        return "no access"
    if status == 501:
        return "no MLflow"
    if status in _COME_AGAIN or status >= 500:
        return "outage"
    return "missing" if status == 404 else "refused"


@contextlib.contextmanager
def translated_outages(tracking_uri: str, so_far: str = "nothing was promoted") -> Iterator[None]:
    """Turn an error of MLflow into one of ours, which says whether a retry helps and what to do.

    Args:
        tracking_uri: address of the server, for the message.
        so_far: what stays as it is in spite of the error, for the message.

    Raises:
        TrackingUnavailableError: the error was an outage.
        TrackingEntryMissingError: what was asked for is not there.
        ConfigurationError: the user is not let in, the server refuses the request, or no MLflow
            server answers at the address.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        if (kind := kind_of(error)) is None:
            raise
        found, half = " ".join(str(error).split()), _NUM_SHOWN // 2
        if len(found) > _NUM_SHOWN:  # the cause stands last
            found = f"{found[:half]} ... {found[-half:]}"
        ours, advice = _ERRORS[kind]
        raise ours(
            f"{advice.format(uri=tracking_uri, found=found)}; {so_far}", kind=kind
        ) from error


def ask_again(ask: Callable[[], Value]) -> Value:
    """Return an answer, asking again after an outage; the last outage is raised."""
    for wait_s in WAITS_S:
        try:
            return ask()
        except Exception as error:
            if kind_of(error) != "outage":
                raise
        time.sleep(wait_s)
    return ask()


def make_once(find: Callable[[], Value | None], make: Callable[[], Value]) -> Value:
    """Return what was made before, or make it, in such a way that a lost answer makes no second.

    A request that is given up is not sent again by this process: the server may still be at work on
    it. The next attempt of the stage looks first.

    Args:
        find: Returns what this cycle has made already, by the cycle's own mark, or None.
        make: Makes it, with that mark.
    """
    if (found := find()) is not None:
        return found
    try:
        return make()
    except Exception as error:
        if kind_of(error) != "outage" or (found := find()) is None:
            raise
        return found
