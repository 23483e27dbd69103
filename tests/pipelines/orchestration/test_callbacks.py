"""What Airflow's call about a failed run leads to: one alert about the last attempt, or none."""

import contextlib
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import storage
from pipelines.alerts.next_step import after_lost_start
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.contracts.run_layout import StageFailure, failure_uri, lost_race_uri, stage_lease_uri
from pipelines.orchestration.callbacks import alert_broken_run
from pipelines.orchestration.resolving import FAILURE_KEY
from pipelines.settings import Settings
from support.runs import make_run, save_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return tmp_path


def context_of(task_id: str, left: dict[str, Any], start_date: Any = None) -> dict[str, Any]:
    """Return what Airflow hands over; `left` has resolve_run's XComs by key."""

    def pull(task_ids: str, key: str = "return_value") -> Any:
        assert task_ids == "resolve_run"
        return left.get(key)

    ti = SimpleNamespace(task_id=task_id, xcom_pull=pull, start_date=start_date)
    return {"ti": ti, "run_id": "manual__x", "reason": "task_failure"}


def told(home: Path) -> list[str]:
    files = sorted((home / "workspace" / "outbox").glob("*.json"))
    receipts = [storage.read_model(storage.to_uri(file), AlertReceipt) for file in files]
    return [receipt.alert.happened for receipt in receipts if receipt.alert]


def failure(error_class: str, at: Any) -> StageFailure:
    return StageFailure(
        stage="build_snapshot",
        error_class=error_class,
        message="as it was",
        exit_code=75,
        is_retryable=True,
        occurred_at=at,
    )


def test_the_reason_is_that_of_the_last_attempt(home: Path) -> None:
    run = save_run(make_run(home))
    noted = failure("TransientStorageError", run.as_of)
    storage.write_model(failure_uri(run.run_uri, noted.stage), noted)
    left = {"return_value": {"run_uri": run.run_uri}}
    alert_broken_run(context_of(noted.stage, left, run.as_of + timedelta(hours=1)))
    alert_broken_run(context_of(noted.stage, left, run.as_of - timedelta(hours=1)))
    killed, noted_one = sorted(told(home), key=lambda words: "as it was" in words)
    assert "ended without saying why (task_failure)" in killed
    assert "TransientStorageError in build_snapshot" in noted_one


def test_a_lost_race_sends_nothing_while_the_other_one_is_at_work(home: Path) -> None:
    run = save_run(make_run(home))
    noted = failure("LostRaceError", run.as_of)
    storage.write_model(lost_race_uri(run.run_uri, noted.stage), noted)
    context = context_of(noted.stage, {"return_value": {"run_uri": run.run_uri}}, run.as_of)
    with storage.exclusive_lock(stage_lease_uri(run.run_uri, noted.stage), "the other one"):
        alert_broken_run(context)
    assert told(home) == []
    alert_broken_run(context)
    [said] = told(home)
    assert "ended without saying why (task_failure)" in said


def test_another_place_that_is_held_is_no_lost_race(home: Path) -> None:
    run = save_run(make_run(home))
    noted = failure("RunInProgressError", run.as_of)
    storage.write_model(failure_uri(run.run_uri, noted.stage), noted)
    context = context_of(noted.stage, {"return_value": {"run_uri": run.run_uri}}, run.as_of)
    with storage.exclusive_lock(stage_lease_uri(run.run_uri, noted.stage), "whoever"):
        alert_broken_run(context)
    assert len(told(home)) == 1


@pytest.mark.parametrize(
    ("is_lost_race", "other", "num_told"),
    [(True, "at work", 0), (True, "done", 0), (True, "killed", 1), (False, "at work", 1)],
)
def test_a_race_for_the_first_stage_sends_nothing_either(
    home: Path, is_lost_race: bool, other: str, num_told: int
) -> None:
    run = make_run(home)
    step = after_lost_start(Settings()).model_dump(mode="json")
    left = {"message": "already running", "next_step": step}
    left |= {"lost_in": run.run_uri} if is_lost_race else {}
    with contextlib.ExitStack() as held:
        if other == "at work":
            place = stage_lease_uri(run.run_uri, "resolve_run")
            held.enter_context(storage.exclusive_lock(place, "the other one"))
        if other == "done":
            save_run(run)
        alert_broken_run(context_of("resolve_run", {FAILURE_KEY: left}))
    assert len(told(home)) == num_told
