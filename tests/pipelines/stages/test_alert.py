"""A cycle that broke leaves no MLflow run that looks as if it were still at work."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.compose import Ended
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.registry import tracking
from pipelines.settings import Settings
from pipelines.stages.alert import tell_failure
from support.runs import make_run, save_run

STAGE = "train_challenger"


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    run = save_run(make_run(tmp_path))
    failure = StageFailure(
        stage=STAGE,
        error_class="DataContractError",
        message="the loss is not finite",
        exit_code=65,
        is_retryable=False,
        occurred_at=run.as_of,
    )
    storage.write_model(failure_uri(run.run_uri, STAGE), failure)
    return run


def settings_in(tmp_path: Path) -> Settings:
    return Settings(workspace=str(tmp_path / "workspace"))


@pytest.mark.services
def test_its_runs_end_with_the_reason_and_a_later_attempt_goes_on(
    run: ResolvedRun, tmp_path: Path, tracking_uri: str
) -> None:
    places = {"tracking_uri": tracking_uri, "experiment": f"broken_{tmp_path.name}"}
    run = save_run(run.model_copy(update=places))
    client = tracking.connect(tracking_uri)
    mine = tracking.open_run(client, run, "challenger", "challenger")
    ended = tracking.open_run(client, run, "anchor", "anchor")
    client.set_terminated(ended, "FINISHED")
    receipt = tell_failure(run.run_uri, settings_in(tmp_path), Ended(STAGE))
    assert receipt.alert is not None
    found = client.get_run(mine)
    told = found.data.tags[tracking.FAILURE]
    assert found.info.status == "FAILED" and receipt.alert.happened in told
    assert told.startswith("train_challenger broke: DataContractError in train_challenger at")
    assert client.get_run(ended).info.status == "FINISHED"

    assert tracking.open_run(client, run, "challenger", "challenger") == mine
    again = client.get_run(mine)
    assert (again.info.status, again.data.tags[tracking.FAILURE]) == ("RUNNING", "")


def test_people_are_told_though_mlflow_is_gone(
    run: ResolvedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = save_run(run.model_copy(update={"tracking_uri": "http://127.0.0.1:9"}))
    receipt = tell_failure(run.run_uri, settings_in(tmp_path), Ended(STAGE))
    assert receipt.delivered_to == ("outbox",)
    assert "the cycle's MLflow runs stay open" in caplog.text


@pytest.mark.services
def test_its_runs_end_though_a_transport_is_away(
    run: ResolvedRun, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError("no route")

    monkeypatch.setitem(transports._TRANSPORTS, "slack", away)
    places = {"tracking_uri": tracking_uri, "experiment": f"away_{tmp_path.name}"}
    run = save_run(run.model_copy(update=places))
    client = tracking.connect(tracking_uri)
    mine = tracking.open_run(client, run, "challenger", "challenger")
    settings = settings_in(tmp_path).model_copy(update={"alert_transports": ("outbox", "slack")})
    with pytest.raises(transports.AlertDeliveryError):
        tell_failure(run.run_uri, settings, Ended(STAGE))
    assert client.get_run(mine).info.status == "FAILED"
