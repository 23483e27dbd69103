"""What an error of MLflow means: one rule for the registry, the bundle and the training curves.

The HTTP status and MLflow's own error code decide; no words are read. An outage may pass: the
server cannot be reached, does not answer in time, asks to come again (408, 425, 429), fails by
itself (5xx), or what answers is not understood, such as a login page with the status 200. All else
is an answer, which the same request would get again: the thing is not there (404), or the request
is refused (another 4xx), also by a server that is none of MLflow's.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from traceback import walk_tb
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

_NUM_SHOWN = 300
_NO_MLFLOW = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
"""What MLflow's client calls a page with 404 or 501; MLflow itself says more in its JSON."""

Kind = Literal["outage", "missing", "refused"]
_ERRORS: dict[Kind, tuple[type[HomefeedError], str]] = {
    "refused": (
        ConfigurationError,
        "MLflow at {uri} refuses the request: {found}; expected an MLflow server where this user "
        "may read and write; correct HOMEFEED_TRACKING_URI (`make ui` starts a server on one "
        "machine), MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
        "MLFLOW_TRACKING_TOKEN), or what the answer names, such as a host that the server allows",
    ),
    "missing": (
        TrackingEntryMissingError,
        "MLflow at {uri} does not have it: {found}; it was deleted or never was; name one that "
        "is there, or start a new cycle, which takes what is there then",
    ),
    "outage": (
        TrackingUnavailableError,
        "MLflow at {uri} does not answer: {found}; start it (`make ui` on one machine) or correct "
        "HOMEFEED_TRACKING_URI, then retry",
    ),
}


def kind_of(error: Exception) -> Kind | None:
    """Return what an error of MLflow's client or of `requests` means; None of another library."""
    from google.protobuf.json_format import ParseError
    from mlflow import exceptions as of_mlflow
    from requests import exceptions

    if isinstance(error, of_mlflow.MlflowException):
        # Where the client looks first, as before it tags a model, it calls all a wrong parameter.
        cause = error.__cause__
        if isinstance(cause, Exception) and kind_of(cause) == "outage":
            return "outage"
        if isinstance(error, of_mlflow.InvalidUrlException) or error.error_code in _NO_MLFLOW:
            return "refused"
        # It calls a refused connection, a time-out and what it cannot read INTERNAL_ERROR.
        status = of_mlflow.ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, 500)
    elif isinstance(error, exceptions.HTTPError):
        status = 500 if error.response is None else error.response.status_code
    elif isinstance(error, exceptions.InvalidURL | exceptions.MissingSchema):
        return "refused"
    else:
        lost = (exceptions.ConnectionError, exceptions.Timeout, exceptions.RetryError)
        cut = (exceptions.ChunkedEncodingError, exceptions.JSONDecodeError, ParseError)  # or a page
        # MLflow reads some answers without a look, and stumbles over a list, a number or null.
        *_, place = "", *(frame.f_globals["__name__"] for frame, _ in walk_tb(error.__traceback__))
        is_unread = isinstance(error, AttributeError | LookupError | TypeError)
        is_unread &= place.startswith("mlflow.store.")
        return "outage" if is_unread or isinstance(error, lost + cut) else None
    if status >= 500 or status in (408, 425, 429):
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
        ConfigurationError: the server refuses the request, or is none of MLflow's.
    """
    try:
        yield
    except Exception as error:
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
