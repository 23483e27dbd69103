"""What an Airflow run asks for, what is left where that is refused, and who hears of its end."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from pipelines import storage
from pipelines.alerts.compose import cycle_of
from pipelines.alerts.incidents import REMIND_AFTER, find_open
from pipelines.alerts.transports import read_outbox
from pipelines.contracts import errors
from pipelines.contracts.alert import AlertReceipt, Unresolved
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.run_layout import failure_uri
from pipelines.orchestration.runs import (
    FAILURE_KEY,
    NOTE_KEY,
    alert_broken_run,
    request_of,
    start_cycle,
    tell_ended_run,
)
from pipelines.plain_text import as_markdown, one_line
from pipelines.settings import Settings
from pipelines.stages import runner
from support.commands import parse
from support.judgements import make_failure, make_promotion
from support.runs import make_run, save_artifact, save_run
from support.worlds import write_planted_world

END = datetime(2026, 1, 19, 6, tzinfo=UTC)
NOW = datetime(2026, 2, 3, 17, 45, tzinfo=UTC)
NIGHT = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
BEGAN = datetime(2026, 11, 28, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PARAMS = {"as_of": "2017-06-12", "recipe": "smoke", "promote": True}
PARAMS |= {"devices": 1, "accelerator": "cpu", "nodes": 1}


pytestmark = pytest.mark.usefixtures("home")


def run_of(**values: Any) -> SimpleNamespace:
    """Return Airflow's run of a person, or another."""
    known = {"run_id": "manual__x", "run_type": "manual", "data_interval_end": END}
    return SimpleNamespace(**(known | {"run_after": NOW, "conf": {}} | values))


class Left(dict[str, Any]):
    """Stands for the task `resolve_run`, and has the XComs that it leaves."""

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("params", "of_run", "expected"),
    [
        # as_of is the form's day, else the interval's end, else now; floored in UTC.
        ({"as_of": "2017-06-12"}, {}, ("2017-06-12", True)),
        ({"as_of": None}, {}, ("2026-01-19", True)),
        ({"as_of": ""}, {}, ("2026-01-19", True)),
        ({"as_of": None}, {"data_interval_end": None}, ("2026-02-03", True)),
        ({"as_of": None}, {"data_interval_end": None, "run_after": NIGHT}, ("2026-02-02", True)),
        # A backfill never promotes.
        ({"promote": False}, {}, ("2017-06-12", False)),
        ({"promote": True}, {"run_type": "backfill"}, ("2017-06-12", False)),
    ],
)
def test_a_run_asks_for_its_day_and_whether_it_may_promote(params, of_run, expected):
    found = request_of(PARAMS | params, run_of(**of_run))
    day, may_promote = expected
    assert found.as_of.isoformat() == f"{day}T00:00:00+00:00"
    assert found.may_promote == may_promote


def test_what_the_form_asks_for_is_resolved_and_crosses_to_the_trainings(tmp_path, monkeypatch):
    monkeypatch.setattr(
        runner, "start_run", lambda request, _: make_run(tmp_path, **request.options())
    )
    params = PARAMS | {"devices": 4, "accelerator": "gpu", "nodes": 2}
    resolved = start_cycle(params, run_of(), None, Settings())
    assert resolved["hardware"] == {"accelerator": "gpu", "devices": 4, "nodes": 2}
    assert json.loads(json.dumps(resolved)) == resolved


def refuse(params: dict[str, Any], **of_run: Any) -> tuple[str, Unresolved]:
    """Start a cycle that is refused; return what is told, and what is left.

    Where a person has triggered the same, nobody is paged, and the note says what would do.
    """
    noted, left = Left(), Left()
    with pytest.raises(AirflowSkipException, match="not begun: "):
        start_cycle(PARAMS | params, run_of(**of_run), noted, Settings())
    assert noted.keys() == {NOTE_KEY} and "**NOT BEGUN**: " in noted[NOTE_KEY]
    with pytest.raises(errors.HomefeedError) as caught:
        by_machine = {"run_type": "operator_triggered"} | of_run
        start_cycle(PARAMS | params, run_of(**by_machine), left, Settings())
    assert as_markdown(one_line(str(caught.value)))[:200] in noted[NOTE_KEY]
    kept = Unresolved.model_validate(left[FAILURE_KEY])
    assert str(caught.value) in kept.message
    assert abs(kept.at - datetime.now(UTC)) < timedelta(minutes=1)
    return str(caught.value), kept


@pytest.mark.parametrize("recipe", ["no_such", "/nowhere/careful.yaml"])
def test_a_recipe_that_is_not_there_is_told_in_the_note(recipe: str) -> None:
    said, _ = refuse({"recipe": recipe})
    assert "expected one" in said


def test_a_day_that_the_log_does_not_have_is_told_and_the_command_that_begins_the_cycle(tmp_path):
    write_planted_world(tmp_path / "event_log", num_users=2, num_days=60)  # to 2017-03-01
    said, kept = refuse({"as_of": None, "devices": 2}, run_id="manual__it's")
    assert "of as_of 2026-01-19: the event log at " in said
    assert (
        "to 2017-03-01; choose an as_of whose windows lie in it, at most the day after 2017-03-01"
        in said
    )
    assert kept.cycle is not None and kept.cycle.label == "2026-01-19, recipe smoke"
    [begin] = (parse(command) for _, command in kept.next_step.commands)
    assert begin.info_name == "resolve"
    told = {"as_of": "2026-01-19", "devices": 2, "key": "manual__it's", "promote": True}
    assert begin.params.items() >= told.items()


@pytest.mark.parametrize(
    ("params", "conf", "said"),
    [
        ({}, {"as_off": "x"}, "'as_off', which would change nothing; expected only as_of, recipe"),
        ({"as_of": "yesterday"}, {}, "'yesterday'"),
        ({"recipe": "os:getcwd"}, {}, "would run os:getcwd; expected"),
    ],
)
def test_what_is_no_option_no_day_or_not_allowed_is_refused_and_not_run(
    monkeypatch, params, conf, said
):
    monkeypatch.setattr(runner, "start_run", lambda *_: 1 / 0)
    monkeypatch.setenv("HOMEFEED_RECIPE_PACKAGES", '["theirs", "json.tool"]')
    told, kept = refuse(params, conf=conf)
    assert said in told
    assert (kept.next_step.commands == ()) == ("recipe" not in params)
    with pytest.raises(ZeroDivisionError):
        start_cycle(PARAMS | {"recipe": "json.tool:main"}, run_of(), Left(), Settings())


def test_own_features_of_a_package_that_is_not_allowed_stop_the_cycle(tmp_path, monkeypatch):
    numeric = (NumericFeature(name="theirs:number"),)
    run = make_run(tmp_path)
    features = run.config.features.model_copy(update={"numeric": numeric})
    config = run.config.model_copy(update={"features": features, "source": "file:///a.yaml"})
    monkeypatch.setattr(runner, "start_run", lambda *_: run.model_copy(update={"config": config}))
    params = PARAMS | {"recipe": "file:///a.yaml"}
    assert "would run theirs:number; expected" in refuse(params)[0]
    allowed = Settings(recipe_packages=("theirs",))
    assert start_cycle(params, run_of(), Left(), allowed)["run_uri"] == run.run_uri


def context_of(left: dict[str, Any], began: Any = None, ended: Any = None) -> dict[str, Any]:
    """Return what Airflow hands over; `left` has resolve_run's XComs by key."""

    def pull(task_ids: str, key: str = "return_value") -> Any:
        assert task_ids == "resolve_run"
        return left.get(key)

    ti = SimpleNamespace(task_id="build_snapshot", xcom_pull=pull)
    if began:  # The DAG processor's instance of a task has no such attribute.
        ti.start_date = began
    dag_run = SimpleNamespace(start_date=began, end_date=ended)
    return {"ti": ti, "run_id": "manual__x/..", "reason": "task_failure", "dag_run": dag_run}


def told() -> list[str]:
    return [alert.happened for _, alert in read_outbox(Settings())]


def unresolved(at: datetime = BEGAN, **more: Any) -> dict[str, Any]:
    """Return what `resolve_run` leaves where it failed."""
    left = Unresolved(message="TransientStorageError: as it was", at=at, **more)
    return {FAILURE_KEY: left.model_dump(mode="json")}


@pytest.mark.parametrize("after", [-HOUR, HOUR])
@pytest.mark.parametrize("has_folder", [True, False])
def test_only_what_the_last_attempt_left_is_told_as_the_reason(tmp_path, has_folder, after):
    """Airflow keeps the XComs of an attempt, and a run its failures, until a task starts anew."""
    run = save_run(make_run(tmp_path))
    said = {"error_class": "TransientStorageError", "message": "as it was"}
    noted = make_failure("build_snapshot", 75, occurred_at=BEGAN, **said)
    storage.write_model(failure_uri(run.run_uri, noted.stage), noted)
    left = {"return_value": {"run_uri": run.run_uri}} if has_folder else unresolved()
    alert_broken_run(context_of(left, began=BEGAN + after, ended=BEGAN + 2 * HOUR))
    [happened] = told()
    assert ("TransientStorageError" in happened) == ("as it was" in happened) == (after < 0 * HOUR)
    unknown = "ended without saying why (task_failure)" in happened
    assert unknown == (has_folder and after > 0 * HOUR)


def test_a_run_that_broke_before_it_had_a_folder_is_told_with_its_cycle_and_mended_by_its_next(
    tmp_path,
):
    run = make_run(tmp_path)
    alert_broken_run(context_of(unresolved(cycle=cycle_of(run.to_request()))))
    context = context_of({"return_value": {"run_uri": run.run_uri}})
    save_run(run)
    # As Airflow calls where only some tasks were cleared, or a run was skipped.
    for other in (context, context_of({}), {"run_id": "manual__x", "reason": "success"}):
        tell_ended_run(other)
    assert len(told()) == 1
    nothing = AlertReceipt(alert=None, delivered_to=())
    for stage in STAGES[1:]:
        save_artifact(run, stage, make_promotion() if stage == "promote_challenger" else nothing)
    for _ in range(2):
        tell_ended_run(context)
    [_, mended] = told()
    assert "met: 1: Homefeed retrain broke in resolve_run" in mended


@pytest.mark.parametrize("broke", ["refused", "killed", "killed later"])
def test_the_same_run_that_breaks_again_is_met_again_and_told_after_hours(tmp_path, broke):
    """Somebody clears the task; Airflow may call twice about one failure, and not at once."""
    run = save_run(make_run(tmp_path))
    for after in (timedelta(0), HOUR, REMIND_AFTER):
        at = BEGAN + after
        left = {
            "refused": unresolved(at),
            "killed": {},
            "killed later": {"return_value": {"run_uri": run.run_uri}},
        }[broke]
        for _ in range(2):
            alert_broken_run(context_of(left, ended=at))
    found = [(alert.num_times, receipt.is_counted) for receipt, alert in read_outbox(Settings())]
    # A stage that was killed leaves no instant, so that it counts as met when it is told.
    assert sorted(found) == [(1, False), (2, True), (3, broke == "killed later")]
    [incident] = find_open(Settings()).values()
    assert incident.num_times == 3
