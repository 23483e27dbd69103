"""One rule for MLflow errors: what a server refuses, what a cut line is, and codes in between."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import InvalidUrlException, MlflowException
from mlflow.protos import databricks_pb2 as codes

from pipelines.contracts.errors import TrackingUnavailableError
from pipelines.contracts.mlflow_errors import is_outage, translated_outages
from support.line import line_to
from training.bundle.mlflow_model import log_bundle
from training.fitting.live_metrics import LiveTracking, LoggedValue, MetricLog, replay

NO_RUN = "0" * 32


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


@contextmanager
def server_that_answers(status: int, body: bytes = b"") -> Iterator[str]:
    """Give the address of a server with the same answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_an_outage(status: int) -> None:
    with server_that_answers(status, b"<html>a proxy's page</html>") as uri:
        with pytest.raises(TrackingUnavailableError, match=f"{uri} does not answer.*nothing was"):
            with translated_outages(uri):
                MlflowClient(tracking_uri=uri).get_run(NO_RUN)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_a_refusal_is_no_outage(status: int) -> None:
    with server_that_answers(status, b"<html>a proxy's page</html>") as uri:
        with pytest.raises(MlflowException), translated_outages(uri):
            MlflowClient(tracking_uri=uri).get_run(NO_RUN)


@pytest.mark.parametrize(
    ("error", "is_expected"),
    [
        (MlflowException("x", codes.TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("x", codes.INTERNAL_ERROR), True),
        (MlflowException("x", codes.REQUEST_LIMIT_EXCEEDED), True),
        (MlflowException("x", codes.RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("x", codes.PERMISSION_DENIED), False),
        (MlflowException("x", codes.INVALID_PARAMETER_VALUE), False),
        (InvalidUrlException("x"), False),
        (requests.ConnectionError(), True),
        (requests.ReadTimeout(), True),
        (requests.exceptions.RetryError(), True),
        (requests.exceptions.MissingSchema(), False),
        (ValueError(), False),
    ],
)
def test_the_rule_by_kind(error: Exception, is_expected: bool) -> None:
    assert is_outage(error) == is_expected


@pytest.mark.parametrize(("status", "is_expected"), [(503, True), (429, True), (403, False)])
def test_an_upload_is_judged_by_its_status(status: int, is_expected: bool) -> None:
    """Artifacts travel by plain requests, whose errors are not MLflow's."""
    with server_that_answers(status) as uri:
        with pytest.raises(requests.HTTPError) as caught:
            requests.get(uri, timeout=5).raise_for_status()
    assert is_outage(caught.value) == is_expected


@pytest.mark.services
def test_a_run_that_is_not_there_is_never_called_an_outage(
    tracking_uri: str, tmp_path: Path
) -> None:
    MetricLog(tmp_path / "metrics.jsonl", "", "").add(1, 0, {"training/loss": 1.0})
    asked = (
        lambda: MlflowClient(tracking_uri=tracking_uri).get_run(NO_RUN),
        lambda: replay(tmp_path / "metrics.jsonl", tracking_uri, NO_RUN),
        lambda: log_bundle(tmp_path, NO_RUN, tracking_uri),
    )
    for ask in asked:
        with pytest.raises(MlflowException) as caught, translated_outages(tracking_uri):
            ask()
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


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
