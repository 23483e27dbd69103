"""What an error of MLflow means: one rule for the registry, the bundle and the training curves.

The HTTP status and MLflow's own error code decide. An outage may pass: the server cannot be
reached, does not answer in time (also 408, of a proxy), asks to come again (425, 429), or fails by
itself (5xx). Everything else is an answer, which the same request would get again: the user is not
let in (401, 403), the thing is not there (404), the request is refused (another 4xx), or no MLflow
server answers at that address. Requests are made by others, but for one that asks an address what
answers there.
"""

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)

Value = TypeVar("Value")

WAITS_S = (0.5, 1.0)
"""Seconds before the second and before the third attempt; a task's own retries come after."""

_COME_AGAIN = (408, 425, 429)
"""Statuses below 500 that say nothing against the request: time-out, too early, too many."""
_NUM_SHOWN = 300
_NO_JSON = re.compile(r"failed with error code (\d+) != ")
"""MLflow's client says this of an answer that is no JSON: not the server's own, or not of today."""
_NO_JSON_AT_ALL = "not in a valid JSON format"
_DOWNLOAD = "failures occurred while downloading"
_IN_DOWNLOAD = re.compile(r"\b(\d{3}) (?:Client|Server) Error")
"""A download tells of its files' errors in one text, in the words of `requests`."""
_QUESTION = "/api/2.0/mlflow/experiments/search?max_results=1"
"""What every MLflow answers to everybody whom it lets in."""
_PATIENCE_S = 10

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
    """Return what an error of MLflow's client or of `requests` means.

    None where the error is of another library, or is about no answer and no outage.
    """
    from mlflow.exceptions import (
        ERROR_CODE_TO_HTTP_STATUS,
        InvalidUrlException,
        MlflowException,
        RestException,
    )
    from requests import exceptions

    if isinstance(error, InvalidUrlException | exceptions.InvalidURL | exceptions.MissingSchema):
        return "no MLflow"
    if isinstance(error, RestException) and "error_code" not in error.json:
        return None  # JSON of another service, or of a proxy: the status is not told.
    if isinstance(error, MlflowException):
        # MLflow's client calls a refused connection and a time-out INTERNAL_ERROR, status 500.
        status = int(ERROR_CODE_TO_HTTP_STATUS.get(getattr(error, "error_code", ""), 500))
        is_answer = isinstance(error, RestException)
        return (None if is_answer else _told_by_client(error)) or _by_status(status)
    if isinstance(error, exceptions.HTTPError):
        return _by_status(500 if error.response is None else error.response.status_code)
    lost = (exceptions.ConnectionError, exceptions.Timeout, exceptions.RetryError)
    return "outage" if isinstance(error, (*lost, exceptions.ChunkedEncodingError)) else None


def _told_by_client(error: Exception) -> Kind | None:
    """Return what an error means that MLflow's client made itself; None: as its code says."""
    cause, text = error.__cause__, str(error)
    if isinstance(cause, Exception) and kind_of(cause) == "outage":
        # Where it looks first, as before it tags a model, it calls every error a wrong parameter.
        return "outage"
    if _NO_JSON_AT_ALL in text:
        return "no MLflow"
    if found := _NO_JSON.search(text):
        kind = _by_status(int(found[1]))
        # MLflow says in JSON what is not there and what is refused; a page is somebody else's.
        return "no MLflow" if kind in ("missing", "refused") else kind
    statuses = _IN_DOWNLOAD.findall(text) if _DOWNLOAD in text else []
    kinds = [_by_status(int(each)) for each in statuses]
    return "outage" if "outage" in kinds else next(iter(kinds), None)


def _by_status(status: int) -> Kind:
    if status in (401, 403):
        return "no access"
    if status == 501:
        return "no MLflow"
    if status in _COME_AGAIN or status >= 500:
        return "outage"
    return "missing" if status == 404 else "refused"


def _ask(tracking_uri: str) -> Kind:
    """Ask the address something simple, where the status of an answer is not told.

    It is asked as MLflow's client asks, with the user's credentials and certificates: what stands
    before a server may let nobody in without. If the server answers, the original error was
    temporary: retry.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request
    from requests.exceptions import RequestException

    # Nothing is followed: who leads to another page asks for a login there.
    options = {"max_retries": 0, "raise_on_status": False, "allow_redirects": False}
    try:  # MLflow has no types for what is called here.
        who = get_default_host_creds(tracking_uri)  # type: ignore[no-untyped-call]
        answer = http_request(  # type: ignore[no-untyped-call]
            who, _QUESTION, "GET", timeout=_PATIENCE_S, **options
        )
    except (MlflowException, RequestException):
        return "outage"
    status = int(answer.status_code)
    kind = "outage" if status == 200 else _by_status(status)
    if 300 <= status < 400:
        return "no access"
    return kind if kind in ("outage", "no access") else "no MLflow"


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
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        kind = kind_of(error)
        if kind is None and isinstance(error, RestException):
            kind = _ask(tracking_uri)
        if kind is None:
            raise
        ours, advice = _ERRORS[kind]
        told = advice.format(uri=tracking_uri, found=_shown(error))
        raise ours(f"{told}; {so_far}", kind=kind) from error


def _shown(error: Exception) -> str:
    """Return what an error says without its middle, where it is long: the cause stands last."""
    text, half = " ".join(str(error).split()), _NUM_SHOWN // 2
    return text if len(text) <= _NUM_SHOWN else f"{text[:half]} ... {text[-half:]}"


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


def ask_all_again(asks: Sequence[Callable[[], object]], num_at_a_time: int = 1) -> None:
    """Ask for many things, and again for those that meet an outage, while others come through.

    Over a line that spoils one request in three, each of a hundred requests may be asked again and
    hardly ever all of them succeed within three attempts each. So what failed goes to the end of
    the queue, and an outage is raised only once three batches in a row have brought nothing.

    Args:
        asks: Requests that may be sent more than once.
        num_at_a_time: How many of them are sent together.
    """

    def outage_of(ask: Callable[[], object]) -> Exception | None:
        try:
            ask()
        except Exception as error:
            if kind_of(error) != "outage":
                raise
            return error
        return None

    waiting, waits = deque(asks), deque(WAITS_S)
    with ThreadPoolExecutor(num_at_a_time) as pool:
        while waiting:
            batch = [waiting.popleft() for _ in range(min(num_at_a_time, len(waiting)))]
            outages = list(pool.map(outage_of, batch))
            waiting.extend(ask for ask, outage in zip(batch, outages, strict=True) if outage)
            if None in outages:
                waits = deque(WAITS_S)
            elif waits:
                time.sleep(waits.popleft())
            else:
                raise next(outage for outage in outages if outage)


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
