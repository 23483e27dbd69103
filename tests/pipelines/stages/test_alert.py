"""A cycle that broke leaves no MLflow run that looks as if it were still at work."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.compose import Ended
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.registry import tracking
from pipelines.settings import Settings
from pipelines.stages.light import tell_failure
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
        occurred_at=run.as_of,
    )
    storage.write_model(failure_uri(run.run_uri, STAGE), failure)
    return run


@pytest.mark.services
@pytest.mark.parametrize("is_away", [False, True])
def test_its_runs_end_with_the_reason_also_where_a_transport_is_away_and_an_attempt_goes_on(
    run: ResolvedRun,
    tmp_path: Path,
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    is_away: bool,
) -> None:
    def send(*_: object) -> None:
        if is_away:
            raise OSError("no route")

    monkeypatch.setitem(transports._TRANSPORTS, "slack", send)
    places = {"tracking_uri": tracking_uri, "experiment": f"broken_{tmp_path.name}"}
    run = save_run(run.model_copy(update=places))
    client = tracking.connect(tracking_uri)
    mine = tracking.open_run(client, run, "challenger", "challenger")
    ended = tracking.open_run(client, run, "anchor", "anchor")
    client.set_terminated(ended, "FINISHED")
    settings = Settings(workspace=run.workspace_uri, alert_transports=("outbox", "slack"))
    refuses = pytest.raises(transports.AlertDeliveryError) if is_away else nullcontext()
    with refuses:
        tell_failure(run, settings, Ended(STAGE))
    found = client.get_run(mine)
    told = found.data.tags[tracking.FAILURE]
    assert found.info.status == "FAILED"
    assert told.startswith("train_challenger broke: ")
    assert "DataContractError in train_challenger: " in told
    assert client.get_run(ended).info.status == "FINISHED"

    assert tracking.open_run(client, run, "challenger", "challenger") == mine
    again = client.get_run(mine)
    assert (again.info.status, again.data.tags[tracking.FAILURE]) == ("RUNNING", "")


def test_people_are_told_though_mlflow_is_gone(
    run: ResolvedRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = save_run(run.model_copy(update={"tracking_uri": "http://127.0.0.1:9"}))
    receipt = tell_failure(run, Settings(workspace=run.workspace_uri), Ended(STAGE))
    assert receipt.delivered_to == ("outbox",)
    assert "the cycle's MLflow runs stay open" in caplog.text
