"""What only people look at fails no stage, unless it may pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import DataContractError, TrackingUnavailableError
from pipelines.contracts.judgement import Decision
from pipelines.registry.in_mlflow.decoration import as_decoration
from pipelines.registry.in_mlflow.gate import log_gate
from pipelines.stages.in_mlflow.sides import log_whole
from support.judgements import make_judgement
from support.runs import make_run
from support.snapshots import snapshot_of

REPORT = DataReport(outcomes=(), docs_uri="", snapshot_digest="d" * 64, reference_digest=None)


class Refusing:
    """A client of MLflow that refuses whatever is asked, and keeps what that was."""

    tracking_uri = "http://127.0.0.1:9"

    def __init__(self, code: int) -> None:
        self.code, self.asked = code, list[str]()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*arguments: Any, **options: Any) -> None:
            self.asked.append(name)
            raise MlflowException("no", error_code=self.code)

        return refuse


def test_what_is_refused_is_told_and_the_rest_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client, run = Refusing(INVALID_PARAMETER_VALUE), make_run(tmp_path)
    log_gate(client, run, "r", REPORT)
    log_whole(client, run, make_judgement(Decision.REJECT).comparison, snapshot_of(), "r")
    assert client.asked == [
        "log_artifacts", "log_inputs", "get_experiment_by_name", "get_experiment_by_name"
    ]  # fmt: skip
    assert caplog.text.count("TrackingRefusedError: MLflow at http://127.0.0.1:9 refuses") == 4


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    client, run = Refusing(TEMPORARILY_UNAVAILABLE), make_run(tmp_path)
    with pytest.raises(TrackingUnavailableError):
        log_gate(client, run, "r", REPORT)
    with pytest.raises(TrackingUnavailableError):
        log_whole(client, run, make_judgement(Decision.REJECT).comparison, snapshot_of(), "r")


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(KeyError), as_decoration("a table"):
        raise KeyError("column")
    with as_decoration("a table"):
        raise DataContractError("the run has no first day")
