"""One rule for MLflow errors: what a server refuses, what a cut line is, and codes in between."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import InvalidUrlException, MlflowException
from mlflow.protos import databricks_pb2 as codes

from pipelines.contracts import mlflow_errors
from pipelines.contracts.errors import (
    HomefeedError,
    TrackingEntryMissingError,
    TrackingUnavailableError,
)
from pipelines.contracts.mlflow_errors import ask_again, kind_of, translated_outages
from support.answers import PAGE, server_that_answers
from support.faulty_proxy import faulty_proxy
from training.bundle.mlflow_model import log_bundle
from training.fitting.metrics_file import append, replay

NO_RUN = "0" * 32


def caused_by(cause: Exception) -> MlflowException:
    """Return the error that MLflow's client raises where it looks first and that fails."""
    error = MlflowException.invalid_parameter_value("Failed to get logged model")
    error.__cause__ = cause
    return error


def http_error(status: int) -> requests.HTTPError:
    return requests.HTTPError(response=SimpleNamespace(status_code=status))  # type: ignore[arg-type]


pytestmark = pytest.mark.usefixtures("few_retries")
LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
# A page in place of JSON is told by its status, JSON of MLflow by its code; JSON of a proxy by
# nothing, because the client does not tell its status.
ANSWERS = [
    *((status, PAGE, "outage", "does not answer.*nothing was") for status in (200, 408, 429, 502)),
    *((status, PAGE, "refused", LOGIN) for status in (400, 401, 403, 404, 501)),
    *(
        (400, json.dumps({"error_code": code, "message": "as it is"}).encode(), kind, "as it is")
        for kind, codes_ in {
            "missing": "RESOURCE_DOES_NOT_EXIST",
            "refused": "INVALID_PARAMETER_VALUE PERMISSION_DENIED NOT_IMPLEMENTED",
            "outage": "INTERNAL_ERROR TEMPORARILY_UNAVAILABLE",
        }.items()
        for code in codes_.split()
    ),
    (520, b'{"message": "no upstream"}', "outage", "no upstream"),
    (200, b'{"run": 3}', "outage", "does not answer"),
]
EXIT_CODES = {"outage": 75, "missing": 77}


@pytest.mark.parametrize(("status", "body", "kind", "told"), ANSWERS)
def test_an_answer_is_told_by_its_status_or_mlflow_s_code(
    status: int, body: bytes, kind: str, told: str
) -> None:
    with server_that_answers(status, body) as uri:
        with pytest.raises(HomefeedError, match=f"{uri} .*{told}") as caught:
            with translated_outages(uri):
                MlflowClient(tracking_uri=uri).get_run(NO_RUN)
    assert caught.value.kind == kind and caught.value.exit_code == EXIT_CODES.get(kind, 78)
    assert caught.value.is_retryable == (kind == "outage") and caught.value.about == (kind,)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("x", codes.REQUEST_LIMIT_EXCEEDED), "outage"),
        (MlflowException("x", codes.SERVICE_UNDER_MAINTENANCE), "outage"),  # it has no status
        (caused_by(MlflowException("x", codes.INTERNAL_ERROR)), "outage"),
        (caused_by(requests.ConnectionError()), "outage"),
        (caused_by(MlflowException("x", codes.PERMISSION_DENIED)), "refused"),
        (InvalidUrlException("x"), "refused"),
        (requests.ConnectionError(), "outage"),
        (requests.ReadTimeout(), "outage"),
        (requests.exceptions.RetryError(), "outage"),
        (requests.exceptions.JSONDecodeError("a page", "", 0), "outage"),
        (requests.exceptions.MissingSchema(), "refused"),
        # Artifacts travel by plain requests, whose errors are not MLflow's.
        *((http_error(status), "outage") for status in (503, 429)),
        *((http_error(403), "refused"), (http_error(404), "missing")),
        (ValueError(), None),
    ],
)
def test_the_rule_by_kind(error: Exception, expected: str | None) -> None:
    assert kind_of(error) == expected


@pytest.mark.services
def test_a_run_that_is_not_there_is_never_called_an_outage_and_a_cut_line_is(
    tracking_uri: str, tmp_path: Path
) -> None:
    append(tmp_path / "metrics.jsonl", 1, {"training/loss": 1.0})
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
    with faulty_proxy(tracking_uri) as proxy:
        client = MlflowClient(tracking_uri=proxy.url)
        proxy.spoil_every(1, "request lost")
        with pytest.raises(TrackingUnavailableError, match="does not answer.*; so far so good$"):
            with translated_outages(proxy.url, "so far so good"):
                client.search_experiments(max_results=1)
        proxy.mend()
        assert client.search_experiments(max_results=1)


LOST = requests.ConnectionError("lost")


@pytest.mark.parametrize(
    ("outages", "told"),
    [([LOST] * 2, ""), ([LOST] * 3, "lost"), ([LOST, ValueError("not a line")], "not a line")],
)
def test_an_outage_is_asked_about_again_and_the_last_one_is_told(
    outages: list[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_errors, "WAITS_S", (0.0, 0.0))
    left = iter(outages)

    def ask() -> str:
        if (error := next(left, None)) is not None:
            raise error
        return "answer"

    with pytest.raises(Exception, match=told) if told else contextlib.nullcontext():
        assert ask_again(ask) == "answer"
    assert next(left, None) is None


def test_a_long_error_is_told_with_its_beginning_and_its_end() -> None:
    found = f"API request failed {'with much between ' * 40}Connection refused"
    with pytest.raises(HomefeedError) as caught, translated_outages("uri"):
        raise MlflowException(found)
    told = str(caught.value)
    assert "API request failed " in told and "Connection refused; start it" in told
    assert " ... " in told and len(told) < 500
