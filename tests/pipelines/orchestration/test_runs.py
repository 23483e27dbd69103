"""What an Airflow run asks for, what is left where that is refused, and who hears of its end."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import storage
from pipelines.alerts.compose import cycle_of
from pipelines.alerts.incidents import REMIND_AFTER, find_open
from pipelines.contracts import errors
from pipelines.contracts.alert import AlertReceipt, Unresolved
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.run_layout import failure_uri
from pipelines.orchestration.runs import (
    FAILURE_KEY,
    alert_broken_run,
    request_of,
    start_cycle,
    tell_ended_run,
)
from pipelines.settings import Settings
from pipelines.stages import runner
from support.commands import parse
from support.judgements import make_failure, make_promotion
from support.runs import make_run, save_artifact, save_run
from support.worlds import write_planted_world

END = datetime(2026, 1, 19, 6, tzinfo=UTC)
NOW = datetime(2026, 2, 3, 17, 45, tzinfo=UTC)
BERLIN_NIGHT = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
BEGAN = datetime(2026, 11, 28, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PARAMS = {"as_of": "2017-06-12", "recipe": "smoke", "promote": True}
PARAMS |= {"devices": 1, "accelerator": "cpu", "nodes": 1}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return tmp_path


def run_of(**values: Any) -> SimpleNamespace:
    """Return Airflow's run of a person, or another."""
    known = {"run_id": "manual__x", "run_type": "manual", "data_interval_end": END}
    return SimpleNamespace(**(known | {"run_after": NOW, "conf": {}} | values))


class Left(dict[str, Any]):
    """Stands for the task `resolve_run`, and has the XComs that it leaves."""

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("param", "interval_end", "run_after", "expected_day"),
    [
        ("2017-06-12", END, NOW, "2017-06-12"),
        (None, END, NOW, "2026-01-19"),
        ("", END, NOW, "2026-01-19"),
        (None, None, NOW, "2026-02-03"),
        (None, None, BERLIN_NIGHT, "2026-02-02"),  # floored in UTC
    ],
)
def test_as_of_is_the_param_else_the_interval_end_else_now(
    param, interval_end, run_after, expected_day
):
    dag_run = run_of(data_interval_end=interval_end, run_after=run_after)
    found = request_of(PARAMS | {"as_of": param}, dag_run)
    assert found.as_of.isoformat() == f"{expected_day}T00:00:00+00:00"


@pytest.mark.parametrize("run_type", ["manual", "backfill"])
@pytest.mark.parametrize("promote", [True, False])
def test_a_backfill_never_promotes(run_type, promote):
    asked = request_of(PARAMS | {"promote": promote}, run_of(run_type=run_type))
    assert asked.may_promote == (promote and run_type == "manual")


def test_what_the_form_asks_for_is_resolved_and_crosses_to_the_trainings(tmp_path, monkeypatch):
    asked = []

    def resolve(request, settings):
        asked.append(request)
        return make_run(tmp_path, **request.options())

    monkeypatch.setattr(runner, "start_run", resolve)
    params = PARAMS | {"devices": 4, "accelerator": "gpu", "nodes": 2}
    resolved = start_cycle(params, run_of(), None, Settings())
    assert (asked[0].accelerator, asked[0].num_devices, asked[0].num_nodes) == ("gpu", 4, 2)
    assert resolved["hardware"] == {"accelerator": "gpu", "devices": 4, "nodes": 2}
    assert json.loads(json.dumps(resolved)) == resolved


def refuse(params: dict[str, Any], dag_run: Any, **settings: str) -> tuple[str, Unresolved]:
    """Start a cycle that is refused; return what is told, and what is left."""
    left = Left()
    with pytest.raises(errors.HomefeedError) as caught:
        start_cycle(PARAMS | params, dag_run, left, Settings(**settings))
    kept = Unresolved.model_validate(left[FAILURE_KEY])
    assert str(caught.value) in kept.message
    assert abs(kept.at - datetime.now(UTC)) < timedelta(minutes=1)
    return str(caught.value), kept


def test_a_cycle_that_cannot_be_resolved_leaves_the_command_that_begins_it():
    _, kept = refuse({"devices": 2}, run_of(run_id="manual__it's"))
    assert kept.cycle is not None and kept.cycle.label == "2017-06-12, recipe smoke"
    [begin] = (parse(command) for _, command in kept.next_step.commands)
    assert begin.info_name == "resolve"
    told = {"as_of": "2017-06-12", "devices": 2, "key": "manual__it's", "promote": True}
    assert begin.params.items() >= told.items()


def test_a_day_that_the_log_does_not_have_is_told_with_the_days_that_it_has(tmp_path):
    write_planted_world(tmp_path / "event_log", num_users=2, num_days=60)  # to 2017-03-01
    said, _ = refuse({"as_of": None}, run_of())
    assert "of as_of 2026-01-19: the event log at " in said
    assert "to 2017-03-01; choose an as_of whose windows lie in it" in said


UNKNOWN = "'as_off', which would change nothing; expected only as_of, recipe"


@pytest.mark.parametrize(
    ("params", "conf", "said"),
    [
        ({}, {"as_off": "2017-06-12"}, UNKNOWN),
        ({"as_of": "yesterday"}, {}, "'yesterday'"),
        ({"recipe": "os:getcwd"}, {}, "would run os:getcwd; expected"),
    ],
)
def test_what_is_no_option_no_day_or_not_allowed_is_refused_and_not_run(
    monkeypatch, params, conf, said
):
    monkeypatch.setattr(runner, "start_run", lambda *_: 1 / 0)
    told, kept = refuse(params, run_of(conf=conf), recipe_packages=("theirs", "json.tool"))
    assert said in told
    assert (kept.next_step.commands == ()) == ("recipe" not in params)
    with pytest.raises(ZeroDivisionError):
        allowed = Settings(recipe_packages=("theirs", "json.tool"))
        start_cycle(PARAMS | {"recipe": "json.tool:main"}, run_of(), Left(), allowed)


def test_own_features_of_a_package_that_is_not_allowed_stop_the_cycle(tmp_path, monkeypatch):
    numeric = (NumericFeature(name="theirs:number"),)
    run = make_run(tmp_path)
    features = run.config.features.model_copy(update={"numeric": numeric})
    config = run.config.model_copy(update={"features": features, "source": "file:///a.yaml"})
    monkeypatch.setattr(runner, "start_run", lambda *_: run.model_copy(update={"config": config}))
    params = PARAMS | {"recipe": "file:///a.yaml"}
    assert "would run theirs:number; expected" in refuse(params, run_of())[0]
    allowed = Settings(recipe_packages=("theirs",))
    assert start_cycle(params, run_of(), Left(), allowed)["run_uri"] == run.run_uri


def context_of(
    task_id: str, left: dict[str, Any], began: Any = None, **of_run: Any
) -> dict[str, Any]:
    """Return what Airflow hands over; `left` has resolve_run's XComs by key."""

    def pull(task_ids: str, key: str = "return_value") -> Any:
        assert task_ids == "resolve_run"
        return left.get(key)

    ti = SimpleNamespace(task_id=task_id, xcom_pull=pull)
    if began:  # The DAG processor's instance of a task has no such attribute.
        ti.start_date = began
    dag_run = SimpleNamespace(**({"start_date": None, "end_date": None} | of_run))
    return {"ti": ti, "run_id": "manual__x", "reason": "task_failure", "dag_run": dag_run}


def receipts(home: Path) -> list[AlertReceipt]:
    files = sorted((home / "workspace" / "outbox").glob("*.json"))
    found = [storage.read_model(storage.to_uri(file), AlertReceipt) for file in files]
    return [each for each in found if each.alert]


def told(home: Path) -> list[str]:
    return [each.alert.happened for each in receipts(home) if each.alert]


def unresolved(message: str = "ConfigurationError: no", **more: Any) -> dict[str, Any]:
    """Return what `resolve_run` leaves where it failed."""
    return Unresolved(message=message, **({"at": BEGAN} | more)).model_dump(mode="json")


def test_the_reason_is_that_of_the_last_attempt(home: Path) -> None:
    run = save_run(make_run(home))
    said = {"error_class": "TransientStorageError", "message": "as it was"}
    noted = make_failure("build_snapshot", 75, occurred_at=run.as_of, **said)
    storage.write_model(failure_uri(run.run_uri, noted.stage), noted)
    left = {"return_value": {"run_uri": run.run_uri}}
    for after in (HOUR, -HOUR):
        alert_broken_run(context_of(noted.stage, left, run.as_of + after))
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
    # As Airflow calls where only some tasks were cleared, or a run was skipped.
    for other in (context, context_of("alert", {}), {"run_id": "manual__x", "reason": "success"}):
        tell_ended_run(other)
    assert len(told(home)) == 1
    nothing = AlertReceipt(alert=None, delivered_to=())
    for stage in STAGES[1:]:
        save_artifact(run, stage, make_promotion() if stage == "promote_challenger" else nothing)
    for _ in range(2):
        tell_ended_run(context)
    happened = told(home)
    assert len(happened) == 2
    assert any("met: 1: Homefeed retrain broke in resolve_run" in each for each in happened)


@pytest.mark.parametrize("broke", ["refused", "killed", "killed later"])
def test_the_same_run_that_breaks_again_is_met_again_and_told_after_hours(
    home: Path, broke: str
) -> None:
    """Somebody clears the task; Airflow may call twice about one failure, and not at once."""
    run = save_run(make_run(home))
    resolved = {"return_value": {"run_uri": run.run_uri}}
    for after in (timedelta(0), HOUR, REMIND_AFTER):
        at = BEGAN + after
        left = {FAILURE_KEY: unresolved(at=at)}
        context = {
            "refused": context_of("resolve_run", left),
            "killed": context_of("resolve_run", {}, end_date=at),
            "killed later": context_of("train_challenger", resolved, end_date=at),
        }[broke]
        for _ in range(2):
            alert_broken_run(context)
    found = [(each.alert, each.is_counted) for each in receipts(home)]
    # A stage that was killed leaves no instant, so that it counts as met when it is told.
    assert sorted((alert.num_times, is_counted) for alert, is_counted in found if alert) == [
        *((1, False), (2, True), (3, broke == "killed later"))
    ]
    [incident] = find_open(Settings()).values()
    assert incident.num_times == 3


def test_a_task_that_never_began_again_is_not_told_in_the_words_of_the_last_attempt(
    home: Path,
) -> None:
    """Airflow keeps the XComs of an attempt until the task starts anew."""
    left = {FAILURE_KEY: unresolved(at=BEGAN)}
    for began in (BEGAN - timedelta(minutes=1), BEGAN + HOUR):
        ended_at = began + timedelta(minutes=2)
        alert_broken_run(context_of("resolve_run", left, end_date=ended_at, start_date=began))
    assert sorted("ConfigurationError" in each for each in told(home)) == [False, True]
