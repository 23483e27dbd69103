"""What Airflow's call about a failed run leads to: one alert about the last attempt, or none."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from pipelines import storage
from pipelines.alerts.compose import after_lost_start, cycle_of
from pipelines.alerts.incidents import REMIND_AFTER, find_open
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, NextStep, Unresolved
from pipelines.contracts.artifacts import STAGES, ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import (
    StageFailure,
    failure_uri,
)
from pipelines.orchestration.callbacks import (
    alert_broken_run,
    announce_promotion,
    require_alert,
    roll_back,
    tell_ended_run,
)
from pipelines.orchestration.resolving import FAILURE_KEY
from pipelines.registry import history, registry, tracking
from pipelines.settings import Settings
from support.judgements import CHALLENGER, CHAMPION
from support.registered import NOW, promote_bundle
from support.runs import make_run, save_artifact, save_run

ASSET = Asset("homefeed/champion", uri="homefeed://champion")
NOTHING = AlertReceipt(alert=None, delivered_to=())
FIRST_DAY = datetime(2017, 6, 12, tzinfo=UTC)
PROMOTION = Promotion(
    decision=Decision.PROMOTE,
    is_promoted=True,
    champion_before=CHAMPION,
    champion_after=CHALLENGER,
    reason="Because of a test.",
    history_uri=None,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return tmp_path


def context_of(
    task_id: str, left: dict[str, Any], start_date: Any = None, ended_at: Any = None
) -> dict[str, Any]:
    """Return what Airflow hands over; `left` has resolve_run's XComs by key."""

    def pull(task_ids: str, key: str = "return_value") -> Any:
        assert task_ids == "resolve_run"
        return left.get(key)

    ti = SimpleNamespace(task_id=task_id, xcom_pull=pull, start_date=start_date)
    dag_run = {"dag_run": SimpleNamespace(end_date=ended_at)} if ended_at else {}
    return {"ti": ti, "run_id": "manual__x", "reason": "task_failure", **dag_run}


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


def unresolved(message: str = "ConfigurationError: no", **more: Any) -> dict[str, Any]:
    """Return what `resolve_run` leaves where it failed."""
    known = {"next_step": after_lost_start(Settings()), "at": datetime.now(UTC)} | more
    return Unresolved(message=message, **known).model_dump(mode="json")


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


def test_a_run_that_broke_before_it_had_a_folder_is_told_with_its_cycle_and_mended_by_its_next(
    home: Path,
) -> None:
    run = make_run(home)
    left = unresolved(cycle=cycle_of(run.to_request()))
    alert_broken_run(context_of("resolve_run", {FAILURE_KEY: left}))
    context = context_of("alert", {"return_value": {"run_uri": run.run_uri}})
    save_run(run)
    tell_ended_run(context)  # as Airflow calls where only some tasks were cleared
    assert len(told(home)) == 1
    for stage in STAGES[1:]:
        promotion = stage == "promote_challenger"
        save_artifact(run, stage, PROMOTION if promotion else NOTHING)
    for _ in range(2):
        tell_ended_run(context)
    happened = told(home)
    assert len(happened) == 2
    assert any("once: Homefeed retrain broke in resolve_run" in each for each in happened)


@pytest.mark.parametrize("broke", ["refused", "killed", "killed later"])
def test_the_same_run_that_breaks_again_is_met_again_and_told_after_hours(
    home: Path, broke: str
) -> None:
    """Somebody clears the task; Airflow may call twice about one failure, and not at once."""
    began = datetime(2026, 11, 28, 3, 12, tzinfo=UTC)
    run = save_run(make_run(home))
    for after in (timedelta(0), timedelta(hours=1), REMIND_AFTER):
        at = began + after
        left = unresolved(at=at)
        context = {
            "refused": context_of("resolve_run", {FAILURE_KEY: left}),
            "killed": context_of("resolve_run", {}, ended_at=at),
            "killed later": context_of(
                "train_challenger", {"return_value": {"run_uri": run.run_uri}}, ended_at=at
            ),
        }[broke]
        for _ in range(2):
            alert_broken_run(context)
    receipts = [
        storage.read_model(storage.to_uri(file), AlertReceipt)
        for file in (home / "workspace" / "outbox").glob("*.json")
    ]
    told_of = sorted((each.alert.num_times, each.is_counted) for each in receipts if each.alert)
    # A stage that was killed leaves no instant, so that it counts as met when it is told.
    assert told_of == [(1, False), (2, True), (3, broke == "killed later")]
    [incident] = find_open(Settings()).values()
    assert incident.num_times == 3
    assert all("2026-11-28 " in each.alert.happened for each in receipts if each.alert)


def test_a_task_that_never_began_again_is_not_told_in_the_words_of_the_last_attempt(
    home: Path,
) -> None:
    """Airflow keeps the XComs of an attempt until the task starts anew."""
    first = datetime(2026, 11, 28, 3, 12, tzinfo=UTC)
    left = unresolved(at=first)
    for began in (first - timedelta(minutes=1), first + timedelta(hours=1)):
        ended_at = began + timedelta(minutes=2)
        context = context_of("resolve_run", {FAILURE_KEY: left}, ended_at=ended_at)
        context["dag_run"].start_date = began
        alert_broken_run(context)
    assert sorted("ConfigurationError" in each for each in told(home)) == [False, True]


def test_a_run_that_was_skipped_mends_nothing(home: Path) -> None:
    left = unresolved()
    alert_broken_run(context_of("resolve_run", {FAILURE_KEY: left}))
    tell_ended_run(context_of("alert", {}))
    tell_ended_run({"run_id": "manual__x", "reason": "success"})
    assert len(told(home)) == 1


class Events(list[dict[str, str]]):
    """Stands for Airflow's record of what a task's outlet has updated."""

    def add(self, asset: Asset, extra: dict[str, str]) -> None:
        assert asset == ASSET
        self.append(extra)


@pytest.mark.parametrize("is_promoted", [True, False])
def test_the_task_is_green_only_where_something_was_promoted(home: Path, is_promoted: bool) -> None:
    run = save_run(make_run(home))
    stays = {"decision": Decision.REJECT, "is_promoted": False, "champion_after": CHAMPION}
    promotion = PROMOTION if is_promoted else PROMOTION.model_copy(update=stays)
    save_artifact(run, "promote_challenger", promotion)
    events = Events()
    skipped = pytest.raises(AirflowSkipException, match="nothing was promoted: Because of a test.")
    with contextlib.nullcontext() if is_promoted else skipped:
        announce_promotion(run.run_uri, events, ASSET)
    told_of = [{"version": CHALLENGER.version, "reason": "Because of a test."}]
    assert events == (told_of if is_promoted else [])


@pytest.mark.parametrize("is_told", [True, False])
def test_the_alert_is_skipped_where_nobody_is_told(home: Path, is_told: bool) -> None:
    run = save_run(make_run(home))
    said = dict.fromkeys(("run_id", "title", "happened", "certainty", "done"), "It lost.")
    step = NextStep(sentence="Rest.", commands=())
    alert = Alert(kind=AlertKind.REGRESSION, next_step=step, **said)
    receipt = AlertReceipt(alert=alert if is_told else None, delivered_to=())
    save_artifact(run, "alert", receipt)
    with contextlib.nullcontext() if is_told else pytest.raises(AirflowSkipException):
        require_alert(run.run_uri)


def form(**values: str | None) -> dict[str, Any]:
    return {"to_version": None, "from_version": None, "reason": "hides rose", **values}


def run_of(begun: datetime) -> Any:
    return SimpleNamespace(start_date=begun)


@pytest.fixture
def two(
    tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[ResolvedRun, ModelRef, ModelRef]:
    """The second cycle's run, and the models of two cycles, the second of which serves."""
    client, name = tracking.connect(tracking_uri), f"rolled_{tmp_path.name}"
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, as_of=FIRST_DAY, **places)
    first = promote_bundle(client, run, tmp_path)
    later = make_run(tmp_path, as_of=FIRST_DAY + timedelta(days=14), champion=first, **places)
    second = promote_bundle(client, later, tmp_path, NOW + timedelta(days=14))
    monkeypatch.setenv("HOMEFEED_WORKSPACE", run.workspace_uri)
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", name)
    return later, first, second


@pytest.mark.services
def test_it_moves_once_and_a_retry_tells_the_asset_again(
    two: tuple[ResolvedRun, ModelRef, ModelRef], tracking_uri: str
) -> None:
    run, first, second = two
    begun, events = run_of(datetime.now(UTC) - timedelta(seconds=5)), Events()
    said = roll_back(form(), begun, events, ASSET)
    assert said == f"{first.label} serves, in place of {second.label}"
    found = registry.read_champion(tracking.connect(tracking_uri), run.registered_model)
    assert found == first
    index = storage.read_bytes(f"{run.workspace_uri}/cycles.html").decode()
    assert f">{first.label}</p>" in index, "the index of all cycles says who serves"
    # As after a kill between the move and the end of the task.
    roll_back(form(), begun, events, ASSET)
    assert events == [{"version": first.version, "reason": "hides rose"}] * 2
    assert len(history.load(run.workspace_uri, run.registered_model).moves) == 3


@pytest.mark.services
def test_a_form_that_is_sent_twice_is_skipped_the_second_time(
    two: tuple[ResolvedRun, ModelRef, ModelRef],
) -> None:
    roll_back(form(), run_of(datetime.now(UTC) - timedelta(seconds=5)), Events(), ASSET)
    events = Events()
    with pytest.raises(AirflowSkipException, match=r"nothing was moved: .*hides rose"):
        roll_back(form(), run_of(datetime.now(UTC) + timedelta(seconds=5)), events, ASSET)
    assert events == []


@pytest.mark.services
def test_what_cannot_be_gone_back_to_is_an_error(
    two: tuple[ResolvedRun, ModelRef, ModelRef],
) -> None:
    events = Events()
    with pytest.raises(ConfigurationError, match="is the champion already"):
        serving = form(to_version=two[2].version)
        roll_back(serving, run_of(datetime.now(UTC)), events, ASSET)
    assert events == []
