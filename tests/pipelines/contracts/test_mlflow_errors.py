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


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def ask(uri: str) -> None:
    with translated_outages(uri):
        MlflowClient(tracking_uri=uri).get_run(NO_RUN)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_an_outage(status: int) -> None:
    with server_that_answers(status, PAGE) as uri:
        with pytest.raises(TrackingUnavailableError, match=f"{uri} does not answer.*nothing was"):
            ask(uri)


@pytest.mark.parametrize(
    ("status", "expected", "message"),
    [
        (401, "no access", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "no access", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (200, "no MLflow", "no MLflow server.*HOMEFEED_TRACKING_URI"),
        (400, "no MLflow", "no MLflow server.*HOMEFEED_TRACKING_URI"),
        (404, "no MLflow", "no MLflow server.*HOMEFEED_TRACKING_URI"),
        (405, "no MLflow", "no MLflow server.*HOMEFEED_TRACKING_URI"),
        (501, "no MLflow", "no MLflow server.*HOMEFEED_TRACKING_URI"),
    ],
)
def test_a_page_in_place_of_json_is_told_by_its_status(
    status: int, expected: str, message: str
) -> None:
    with server_that_answers(status, PAGE) as uri:
        with pytest.raises(HomefeedError, match=message) as caught:
            ask(uri)
    assert caught.value.kind == expected and caught.value.exit_code == 78
    assert not caught.value.is_retryable


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("UNAUTHENTICATED", "no access"),
        ("PERMISSION_DENIED", "no access"),
        ("RESOURCE_DOES_NOT_EXIST", "missing"),
        ("INVALID_PARAMETER_VALUE", "refused"),
        ("RESOURCE_CONFLICT", "refused"),
        ("NOT_IMPLEMENTED", "no MLflow"),
        ("INTERNAL_ERROR", "outage"),
        ("TEMPORARILY_UNAVAILABLE", "outage"),
    ],
)
def test_json_of_mlflow_is_told_by_its_code(code: str, expected: str) -> None:
    body = json.dumps({"error_code": code, "message": "as it is"}).encode()
    with server_that_answers(400, body) as uri:
        with pytest.raises(HomefeedError, match="as it is") as caught:
            ask(uri)
    assert caught.value.is_retryable == (expected == "outage")
    assert caught.value.kind == expected


@pytest.mark.parametrize(
    ("status", "of_version", "expected"),
    [
        (404, (404, b"{}"), "no MLflow"),  # Airflow answers so, and many others
        (500, (500, b"{}"), "outage"),
        (500, (200, b"3.17.2"), "outage"),  # a proxy before a sound MLflow
    ],
)
def test_json_that_is_not_mlflow_s_is_told_by_asking_what_answers(
    status: int, of_version: tuple[int, bytes], expected: str
) -> None:
    body = b'{"detail": "Not Found"}'
    with server_that_answers(status, body, of_version=of_version) as uri:
        with pytest.raises(HomefeedError) as caught:
            ask(uri)
    assert caught.value.kind == expected


@pytest.mark.parametrize(
    ("of_search", "expected"),
    [
        ((503, b'{"message": "no upstream"}'), "outage"),
        ((200, b'{"experiments": []}'), "outage"),  # the outage has passed
        ((401, b'{"message": "no token"}'), "no access"),
        ((403, b'{"message": "not there"}'), "no access"),
        ((302, b""), "no access"),  # to a page that asks for a login
        ((404, b'{"message": "no route"}'), "no MLflow"),
    ],
)
def test_json_of_a_proxy_that_lets_nobody_in_without_a_token_is_told_by_asking_with_it(
    of_search: tuple[int, bytes], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy asks for a token everywhere, `/version` included.

    Of an answer with status 520 MLflow's client tells the JSON and not the status, unlike of 503.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "ours")
    body = b'{"message": "the upstream is odd"}'
    with server_that_answers(520, body, of_search=of_search, token="ours") as uri:
        with pytest.raises(HomefeedError) as caught:
            ask(uri)
    assert caught.value.kind == expected


@pytest.mark.parametrize("status", [500, 503])
def test_an_outage_behind_a_proxy_is_one_for_who_has_no_token_too(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    body, closed = b'{"message": "no upstream"}', (401, b'{"message": "no token"}')
    with server_that_answers(status, body, of_version=closed) as uri:
        with pytest.raises(TrackingUnavailableError):
            ask(uri)


def test_who_has_no_token_is_told_so_though_the_proxy_s_json_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
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
        (ValueError(), None),
    ],
)
def test_the_rule_by_kind(error: Exception, expected: str | None) -> None:
    assert kind_of(error) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, "outage"),
        (429, "outage"),
        (403, "no access"),
        (404, "missing"),
    ],
)
def test_an_upload_is_judged_by_its_status(status: int, expected: str) -> None:
    """Artifacts travel by plain requests, whose errors are not MLflow's."""
    with server_that_answers(status) as uri:
        with pytest.raises(requests.HTTPError) as caught:
            requests.get(uri, timeout=5).raise_for_status()
    assert kind_of(caught.value) == expected


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
