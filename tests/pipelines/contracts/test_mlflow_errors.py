"""One rule for MLflow errors: what a server refuses, what a cut line is, and codes in between."""

import json
import random
from functools import partial
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import InvalidUrlException, MlflowException
from mlflow.protos import databricks_pb2 as codes

from pipelines.contracts import mlflow_errors
from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)
from pipelines.contracts.mlflow_errors import (
    _shown,
    ask_again,
    ask_all_again,
    kind_of,
    translated_outages,
)
from support.answers import PAGE, server_that_answers
from support.line import line_to
from training.bundle.mlflow_model import log_bundle
from training.fitting.live_metrics import LiveTracking, LoggedValue, MetricLog, replay

NO_RUN = "0" * 32


def caused_by(cause: Exception) -> MlflowException:
    """Return the error that MLflow's client raises where it looks first and that fails."""
    error = MlflowException.invalid_parameter_value("Failed to get logged model")
    error.__cause__ = cause
    return error


OF_UPLOADS = {503: "outage", 429: "outage", 403: "no access", 404: "missing"}


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(response=response)


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def ask(uri: str) -> None:
    with translated_outages(uri):
        MlflowClient(tracking_uri=uri).get_run(NO_RUN)


def of_mlflow(code: str) -> bytes:
    return json.dumps({"error_code": code, "message": "as it is"}).encode()


LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
ANSWERS = [
    # A page in place of JSON is told by its status.
    *((status, PAGE, "outage", "does not answer.*nothing was") for status in (408, 425, 429)),
    *((status, PAGE, "outage", "does not answer.*nothing was") for status in (500, 502, 503, 504)),
    *((status, PAGE, "no access", LOGIN) for status in (401, 403)),
    *((status, PAGE, "no MLflow", "HOMEFEED_TRACKING_URI") for status in (200, 400, 404, 405, 501)),
    # JSON of MLflow is told by its code.
    (400, of_mlflow("UNAUTHENTICATED"), "no access", "as it is"),
    (400, of_mlflow("PERMISSION_DENIED"), "no access", "as it is"),
    (400, of_mlflow("RESOURCE_DOES_NOT_EXIST"), "missing", "as it is"),
    (400, of_mlflow("INVALID_PARAMETER_VALUE"), "refused", "as it is"),
    (400, of_mlflow("RESOURCE_CONFLICT"), "refused", "as it is"),
    (400, of_mlflow("NOT_IMPLEMENTED"), "no MLflow", "as it is"),
    (400, of_mlflow("INTERNAL_ERROR"), "outage", "as it is"),
    (400, of_mlflow("TEMPORARILY_UNAVAILABLE"), "outage", "as it is"),
]
EXIT_CODES = {"outage": 75, "missing": 77}


@pytest.mark.parametrize(("status", "body", "kind", "told"), ANSWERS)
def test_an_answer_is_told_by_its_status_or_mlflow_s_code(
    status: int, body: bytes, kind: str, told: str
) -> None:
    with server_that_answers(status, body) as uri:
        with pytest.raises(HomefeedError, match=f"{uri} .*{told}") as caught:
            ask(uri)
    assert caught.value.kind == kind and caught.value.exit_code == EXIT_CODES.get(kind, 78)
    assert caught.value.is_retryable == (kind == "outage") and caught.value.about == (kind,)


UPSTREAM = b'{"message": "no upstream"}'
CLOSED = (401, b'{"message": "no token"}')


@pytest.mark.parametrize(
    ("status", "body", "others", "kind"),
    [
        (404, b'{"detail": "Not Found"}', {"of_version": (404, b"{}")}, "no MLflow"),  # Airflow
        (500, b'{"detail": "Not Found"}', {"of_version": (500, b"{}")}, "outage"),
        (500, b'{"detail": "Not Found"}', {"of_version": (200, b"3.17.2")}, "outage"),  # a proxy
        (500, UPSTREAM, {"of_version": CLOSED}, "outage"),
        (503, UPSTREAM, {"of_version": CLOSED}, "outage"),
    ],
)
def test_json_that_is_not_mlflow_s_is_told_by_asking_what_answers(
    status: int,
    body: bytes,
    others: dict[str, tuple[int, bytes]],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    with server_that_answers(status, body, **others) as uri:
        with pytest.raises(HomefeedError) as caught:
            ask(uri)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("of_search", "kind"),
    [
        ((503, UPSTREAM), "outage"),
        ((200, b'{"experiments": []}'), "outage"),  # it has passed
        (CLOSED, "no access"),
        ((403, b'{"message": "not there"}'), "no access"),
        ((302, b""), "no access"),  # to a page that asks for a login
        ((404, b'{"message": "no route"}'), "no MLflow"),
    ],
)
def test_json_of_a_proxy_that_lets_nobody_in_without_a_token_is_told_by_asking_with_it(
    of_search: tuple[int, bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an answer with status 520 MLflow's client tells the JSON and not the status."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "ours")
    with server_that_answers(520, UPSTREAM, of_search=of_search, token="ours") as uri:
        with pytest.raises(HomefeedError) as caught:
            ask(uri)
    assert caught.value.kind == kind
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    with server_that_answers(200, b"{}", token="ours") as uri:
        with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_TOKEN"):
            ask(uri)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("x", codes.TEMPORARILY_UNAVAILABLE), "outage"),
        (MlflowException("x", codes.INTERNAL_ERROR), "outage"),
        (MlflowException("x", codes.REQUEST_LIMIT_EXCEEDED), "outage"),
        (MlflowException("x", codes.RESOURCE_DOES_NOT_EXIST), "missing"),
        (MlflowException("x", codes.PERMISSION_DENIED), "no access"),
        (MlflowException("x", codes.INVALID_PARAMETER_VALUE), "refused"),
        (caused_by(MlflowException("x", codes.INTERNAL_ERROR)), "outage"),
        (caused_by(requests.ConnectionError()), "outage"),
        (caused_by(MlflowException("x", codes.PERMISSION_DENIED)), "refused"),
        (InvalidUrlException("x"), "no MLflow"),
        (requests.ConnectionError(), "outage"),
        (requests.ReadTimeout(), "outage"),
        (requests.exceptions.RetryError(), "outage"),
        (requests.exceptions.MissingSchema(), "no MLflow"),
        # Artifacts travel by plain requests, whose errors are not MLflow's.
        *((http_error(status), kind) for status, kind in OF_UPLOADS.items()),
        (ValueError(), None),
    ],
)
def test_the_rule_by_kind(error: Exception, expected: str | None) -> None:
    assert kind_of(error) == expected


@pytest.mark.services
def test_a_run_that_is_not_there_is_never_called_an_outage(
    tracking_uri: str, tmp_path: Path
) -> None:
    MetricLog(tmp_path / "metrics.jsonl", "", "").add(1, 0, {"training/loss": 1.0})
    client = MlflowClient(tracking_uri=tracking_uri)
    asked = (
        lambda: client.get_run(NO_RUN),
        lambda: replay(client, tmp_path / "metrics.jsonl", NO_RUN),
        lambda: log_bundle(client, tmp_path, NO_RUN),
    )
    for ask_for_it in asked:
        with pytest.raises(TrackingEntryMissingError, match="RESOURCE_DOES_NOT_EXIST") as caught:
            with translated_outages(tracking_uri):
                ask_for_it()
        assert not caught.value.is_retryable


@pytest.mark.services
def test_a_refusal_does_not_end_a_training(
    tracking_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveTracking(tracking_uri, NO_RUN)
    for step in range(3):
        live.add([LoggedValue(step, 0, "training/loss", 1.0, 1)])
        live.flush()
    (warning,) = caplog.records
    assert NO_RUN in warning.getMessage()


@pytest.mark.services
def test_a_cut_line_is_an_outage_and_a_mended_one_is_not(tracking_uri: str) -> None:
    with line_to(tracking_uri) as line:
        client = MlflowClient(tracking_uri=line.url)
        line.cut()
        with pytest.raises(TrackingUnavailableError, match="does not answer.*; so far so good$"):
            with translated_outages(line.url, "so far so good"):
                client.search_experiments(max_results=1)
        line.mend()
        with translated_outages(line.url):
            assert client.search_experiments(max_results=1)


def answered(taken: list[int], number: int, outages: dict[int, int]) -> None:
    """Note a number, after as many outages as are planned for it."""
    if outages.get(number, 0):
        outages[number] -= 1
        raise requests.ConnectionError(f"lost {number}")
    taken.append(number)


@pytest.mark.parametrize(("num_at_a_time", "is_patient"), [(1, True), (8, False)])
def test_a_hundred_requests_come_through_a_line_that_spoils_a_quarter_of_them(
    monkeypatch: pytest.MonkeyPatch, num_at_a_time: int, is_patient: bool
) -> None:
    """Files are sent one by one by a client that asks again itself, and fetched eight together."""
    monkeypatch.setattr(mlflow_errors, "WAITS_S", (0.0, 0.0))
    draw, taken = random.Random(7), list[int]()

    def ask(number: int) -> None:
        answered(taken, number, {number: int(draw.random() < 0.25)})

    asks = [partial(ask, number) for number in range(100)]
    patient = [partial(ask_again, each) for each in asks] if is_patient else asks
    ask_all_again(patient, num_at_a_time)
    assert sorted(taken) == list(range(100))


def test_an_outage_that_lets_nothing_through_is_told_after_three_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_errors, "WAITS_S", (0.0, 0.0))
    taken: list[int] = []
    outages = dict.fromkeys(range(3, 100), 10)
    with pytest.raises(requests.ConnectionError, match="lost"):
        ask_all_again([partial(answered, taken, n, outages) for n in range(100)], 4)
    assert taken == [0, 1, 2]
    # The batch that brought three, and three more in vain: thirteen requests met the outage.
    assert 10 * 97 - sum(outages.values()) == 13


def test_what_is_no_outage_is_raised_at_once() -> None:
    def fail() -> None:
        raise ValueError("not about a line")

    with pytest.raises(ValueError, match="not about a line"):
        ask_all_again([fail])


def test_a_long_error_is_told_with_its_beginning_and_its_end() -> None:
    error = MlflowException(f"API request failed {'with much between ' * 40}Connection refused")
    told = _shown(error)
    assert told.startswith("API request failed ") and told.endswith("Connection refused")
    assert " ... " in told and len(told) <= 305
    assert _shown(MlflowException("short")) == "short"
