"""Which errors of MLflow may pass: one rule for the registry, the bundle and the training curves.

An error is an outage where the server cannot be reached, does not answer in time, asks for
patience (429), or fails by itself (5xx). Everything else is an answer: the server refuses this
request, and would refuse it again. Not for making requests.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipelines.contracts.errors import TrackingUnavailableError

Value = TypeVar("Value")

WAITS_S = (0.5, 1.0)
"""Seconds before the second and before the third attempt; a task's own retries come after."""

_TOO_MANY_REQUESTS, _SERVER_ERROR, _NOT_IMPLEMENTED = 429, 500, 501


def is_outage(error: Exception) -> bool:
    """Return whether an error of MLflow's client may pass without anybody changing anything."""
    from mlflow.exceptions import (
        ERROR_CODE_TO_HTTP_STATUS,
        InvalidUrlException,
        MlflowException,
    )
    from requests import exceptions

    if isinstance(error, InvalidUrlException):
        return False
    if isinstance(error, MlflowException):
        # MLflow's client calls a refused connection and a time-out INTERNAL_ERROR, status 500.
        return _may_pass(ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, _SERVER_ERROR))
    if isinstance(error, exceptions.HTTPError):
        return error.response is None or _may_pass(error.response.status_code)
    lost = (
        exceptions.ConnectionError,
        exceptions.Timeout,
        exceptions.RetryError,
        exceptions.ChunkedEncodingError,
    )
    return isinstance(error, lost)


def _may_pass(status: int) -> bool:
    is_server_error = status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED
    return status == _TOO_MANY_REQUESTS or is_server_error


@contextlib.contextmanager
def translated_outages(tracking_uri: str, so_far: str = "nothing was promoted") -> Iterator[None]:
    """Turn an outage into an error that says so; let an answer of the server pass as it is.

    Args:
        tracking_uri: address of the server, for the message.
        so_far: what stays as it is in spite of the outage, for the message.

    Raises:
        TrackingUnavailableError: the error was an outage.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        if not is_outage(error):
            raise
        raise TrackingUnavailableError(
            f"MLflow at {tracking_uri} does not answer: {str(error)[:300]}; start it (`make ui` on "
            f"one machine) or correct HOMEFEED_TRACKING_URI, then retry; {so_far}"
        ) from error


def ask_again(ask: Callable[[], Value]) -> Value:
    """Return an answer, asking again after an outage; the last outage is raised."""
    for wait_s in WAITS_S:
        try:
            return ask()
        except Exception as error:
            if not is_outage(error):
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
    found = find()
    if found is not None:
        return found
    try:
        return make()
    except Exception as error:
        if not is_outage(error):
            raise
        found = find()
        if found is None:
            raise
        return found
