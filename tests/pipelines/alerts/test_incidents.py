"""A cause is told once, counted, told again, then told as mended; no kill loses anything."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from pipelines import deletion, storage
from pipelines.alerts import incidents, transports
from pipelines.alerts.compose import Ended, compose_unresolved
from pipelines.alerts.incidents import (
    LAPSES_AFTER,
    REMIND_AFTER,
    Incident,
    alert_on_failure,
    find_open,
    read_open,
    tell,
    tell_recovered,
)
from pipelines.alerts.transports import AlertDeliveryError, deliver_waiting, entry_uri
from pipelines.contracts.alert import (
    Alert,
    AlertKind,
    AlertReceipt,
    AlertSeverity,
    Cause,
    Cycle,
    NextStep,
    Unresolved,
)
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.settings import Settings
from support.judgements import CHALLENGER, CHAMPION
from support.runs import make_run, save_artifact, save_run

AT = datetime(2026, 11, 28, 3, 12, tzinfo=UTC)
SMOKE = Cycle(day=date(2026, 11, 28), recipe="smoke")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = AlertReceipt(alert=None, delivered_to=())
PROMOTION = Promotion(
    decision=Decision.PROMOTE,
    is_promoted=True,
    champion_before=CHAMPION,
    champion_after=CHALLENGER,
    reason="Because of a test.",
    history_uri=None,
)


def make_alert(run: str = "one", after: timedelta = timedelta(0), about: str = "c") -> Alert:
    """An alert about a failure; another run or another time is another alert."""
    return Alert(
        kind=AlertKind.BROKEN_RUN,
        run_id=run,
        about=("build_snapshot", (AT + after).isoformat()),
        title="Homefeed retrain 2026-11-28: build_snapshot broke",
        happened=f"DataContractError in build_snapshot at {AT + after}:\nno rows",
        certainty="Certain.",
        done="Nothing.",
        next_step=NextStep(sentence="Look.", commands=()),
        severity=AlertSeverity.CRITICAL,
        at=AT + after,
        cycle=SMOKE,
        cause=Cause(stage="build_snapshot", error_class="DataContractError", about=(about,)),
    )


class Taken:
    """Stands for a transport; keeps the subjects that it took."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.fault: BaseException | None = None

    def send(self, rendered, settings) -> None:  # type: ignore[no-untyped-def]
        if self.fault is not None:
            raise self.fault
        self.subjects.append(rendered.subject)

    @property
    def recovered(self) -> list[bool]:
        return ["recovered" in subject for subject in self.subjects]


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Taken:
    taken = Taken()
    monkeypatch.setitem(transports._TRANSPORTS, "slack", taken.send)
    return taken


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=f"{tmp_path}/workspace", alert_transports=("outbox", "slack"))


def open_in(settings: Settings) -> list[Incident]:
    return list(find_open(settings).values())


def test_the_same_cause_is_told_once_then_counted_then_told_again_with_the_count(
    slack: Taken, settings: Settings
) -> None:
    assert not tell(make_alert(), settings).is_counted
    for hours, run in ((1, "one"), (5, "two")):
        counted = tell(make_alert(run, hours * HOUR), settings)
        assert counted.is_counted and counted.delivered_to == ("outbox",)
    assert len(slack.subjects) == 1
    again = tell(make_alert("three", REMIND_AFTER), settings)
    assert not again.is_counted and again.alert is not None
    assert (again.alert.num_times, again.alert.first_at) == (4, AT)
    assert "(4th time)" in slack.subjects[1] and len(slack.subjects) == 2
    [incident] = open_in(settings)
    assert (incident.num_times, incident.first_at) == (4, AT)
    assert incident.cycle == SMOKE


def test_a_cause_that_was_not_met_for_long_has_lapsed_and_begins_anew(
    slack: Taken, settings: Settings
) -> None:
    tell(make_alert(), settings)
    tell(make_alert("two", LAPSES_AFTER / 2), settings)
    anew = tell(make_alert("three", LAPSES_AFTER * 3 / 2), settings)
    assert anew.alert is not None and anew.alert.first_at is None
    [incident] = open_in(settings)
    assert (incident.num_times, incident.first_at) == (1, AT + LAPSES_AFTER * 3 / 2)


@pytest.mark.parametrize(
    "field", [{"stage": "s"}, {"error_class": "E"}, {"raised_by": "f"}, {"about": ("2026-11-03",)}]
)
def test_another_cause_is_told_at_once_and_another_run_or_wording_is_none(
    slack: Taken, settings: Settings, field: dict[str, str]
) -> None:
    first = make_alert()
    assert first.cause is not None
    tell(first, settings)
    same = make_alert("two", HOUR).model_copy(update={"title": "t", "happened": "h"})
    assert tell(same, settings).is_counted
    other = make_alert("one", 2 * HOUR)
    other = other.model_copy(update={"cause": first.cause.model_copy(update=field)})
    assert not tell(other, settings).is_counted and len(slack.subjects) == 2
    assert len(open_in(settings)) == 2


def test_a_task_that_is_retried_tells_and_counts_nothing_more(
    slack: Taken, settings: Settings
) -> None:
    tell(make_alert(), settings)
    counted = make_alert("two", HOUR)
    for alert in (make_alert(), counted, make_alert(), counted):
        tell(alert, settings)
    assert len(slack.subjects) == 1 and open_in(settings)[0].num_times == 2
    assert deliver_waiting(settings) == (), "what was only counted waits for no transport"


@pytest.mark.parametrize("is_in_the_outbox", [True, False])
def test_a_kill_while_it_is_told_neither_loses_nor_counts_it(
    slack: Taken, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_in_the_outbox: bool
) -> None:
    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        if is_in_the_outbox:
            slack.fault = SystemExit(137)
        else:
            dying.setattr(incidents, "deliver", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
        tell(make_alert(), settings)
    slack.fault = None
    assert not tell(make_alert(), settings).is_counted
    assert tell(make_alert("two", HOUR), settings).is_counted
    assert len(slack.subjects) == 1 and open_in(settings)[0].num_times == 2


def test_where_what_is_open_is_not_known_it_is_told_all_the_same(
    slack: Taken, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(make_alert(), settings)
    [entry] = (Path(settings.workspace) / "outbox").glob("*.json")
    entry.write_text("{")
    assert not tell(make_alert("two", HOUR), settings).is_counted
    away = mock.Mock(side_effect=TransientStorageError("the disk is away"))
    monkeypatch.setattr(incidents, "read_outbox", away)
    assert tell(make_alert("three", 2 * HOUR), settings).delivered_to == ("outbox", "slack")
    assert len(slack.subjects) == 3


def test_a_transport_that_is_away_is_told_late_and_the_cause_counts_as_told(
    slack: Taken, settings: Settings
) -> None:
    slack.fault = OSError("no route")
    with pytest.raises(AlertDeliveryError):
        tell(make_alert(), settings)
    slack.fault = None
    assert deliver_waiting(settings) == ("one",)
    assert tell(make_alert("two", HOUR), settings).is_counted


def test_what_is_open_is_found_on_an_object_store(s3_uri: str, slack: Taken) -> None:
    settings = Settings(workspace=s3_uri, alert_transports=("outbox", "slack"))
    tell(make_alert(), settings)
    assert tell(make_alert("two", HOUR), settings).is_counted
    [incident] = open_in(settings)
    assert incident.num_times == 2 and len(slack.subjects) == 1


def break_in(
    run: ResolvedRun, stage: str, settings: Settings, minute: int = 0, day: int = 1
) -> None:
    failure = StageFailure(
        stage=stage,
        error_class="DataContractError",
        message="no rows of 2017-02-27",
        exit_code=65,
        is_retryable=False,
        occurred_at=datetime(2017, 3, day, 3, minute, tzinfo=UTC),
    )
    save_run(run)
    storage.write_model(failure_uri(run.run_uri, stage), failure)
    alert_on_failure(run.run_uri, settings, Ended(stage))


def end(run: ResolvedRun) -> ResolvedRun:
    """Leave what a cycle that has ended leaves."""
    save_run(run)
    for stage in STAGES[1:]:
        save_artifact(run, stage, PROMOTION if stage == "promote_challenger" else NOTHING)
    return run


def with_recipe(run: ResolvedRun, reference: str) -> ResolvedRun:
    return run.model_copy(update={"config": run.config.model_copy(update={"source": reference})})


def still_open(settings: Settings) -> list[str]:
    return [each.cause.stage for each in open_in(settings)]


def test_a_cycle_that_ends_tells_once_what_had_been_broken(
    tmp_path: Path, settings: Settings, slack: Taken
) -> None:
    first = make_run(tmp_path, run_id="first", code_version="old")
    break_in(first, "build_snapshot", settings)
    break_in(first, "build_snapshot", settings, minute=30)
    break_in(first, "check_snapshot", settings, minute=40, day=3)  # by a clock that is ahead
    second = end(make_run(tmp_path, run_id="second", code_version="new"))
    alert = tell_recovered(second.run_uri, settings).alert
    assert alert is not None and alert.kind is AlertKind.RECOVERED
    assert alert.title.endswith("recovered, build_snapshot, check_snapshot ended well")
    assert len(alert.happened.splitlines()) == 2 and "2 times" in alert.happened
    assert alert.done == "Run second has ended, with code new."
    for _ in range(2):  # Airflow calls again where the run is cleared and ends well again
        assert tell_recovered(second.run_uri, settings) == NOTHING
    assert slack.recovered == [False, False, True] and still_open(settings) == []


@pytest.mark.parametrize("stage", ["train_challenger", "approve_promotion"])
def test_the_same_run_may_go_on_also_after_a_task_that_is_no_stage(
    tmp_path: Path, settings: Settings, slack: Taken, stage: str
) -> None:
    """`approve_promotion` is Airflow's own task, and leaves no manifest."""
    run = make_run(tmp_path)
    break_in(run, stage, settings)
    alert = tell_recovered(end(run).run_uri, settings).alert
    assert alert is not None and stage in alert.title


@pytest.mark.parametrize("fault", [FileNotFoundError("gone"), PermissionError("no")])
def test_a_fault_of_the_disk_is_not_raised_into_airflow_and_it_is_told_later(
    tmp_path: Path,
    settings: Settings,
    slack: Taken,
    monkeypatch: pytest.MonkeyPatch,
    fault: OSError,
) -> None:
    run = make_run(tmp_path)
    break_in(run, "build_snapshot", settings)
    end(run)
    with monkeypatch.context() as patched:
        patched.setattr(incidents, "read_outbox", mock.Mock(side_effect=fault))
        assert tell_recovered(run.run_uri, settings) == NOTHING
    assert tell_recovered(run.run_uri, settings).alert is not None


def test_a_cycle_that_has_not_ended_mends_nothing(
    tmp_path: Path, settings: Settings, slack: Taken
) -> None:
    """`alert` may end while `promote_challenger` is broken."""
    run = end(make_run(tmp_path))
    break_in(run, "promote_challenger", settings)
    deletion.remove(f"{run.run_uri}/promote_challenger/manifest.json")
    assert tell_recovered(run.run_uri, settings) == NOTHING
    assert still_open(settings) == ["promote_challenger"]
    save_artifact(run, "promote_challenger", PROMOTION)
    assert tell_recovered(run.run_uri, settings).alert is not None


@pytest.mark.parametrize(
    ("days", "recipe", "is_mended"),
    [(14, "smoke", True), (0, "smoke", True), (-14, "smoke", False), (14, "other.yaml", False)],
)
def test_a_cycle_of_another_recipe_or_an_earlier_day_shows_nothing(
    tmp_path: Path, settings: Settings, slack: Taken, days: int, recipe: str, is_mended: bool
) -> None:
    broken = make_run(tmp_path, run_id="broken")
    break_in(broken, "build_snapshot", settings)
    config = broken.config.model_copy(update={"source": recipe if recipe != "smoke" else ""})
    later = make_run(tmp_path, config, broken.as_of + days * DAY, run_id="later")
    told = tell_recovered(end(later).run_uri, settings)
    assert (told.alert is not None) is is_mended
    assert (still_open(settings) == []) is is_mended


def test_a_cause_that_two_recipes_met_is_told_and_mended_for_each(
    tmp_path: Path, settings: Settings, slack: Taken
) -> None:
    first = make_run(tmp_path, run_id="first")
    other = with_recipe(make_run(tmp_path, run_id="other"), "other.yaml")
    break_in(first, "build_snapshot", settings)
    break_in(other, "build_snapshot", settings, minute=10)
    assert tell_recovered(end(first).run_uri, settings).alert is not None
    [left] = read_open(settings, datetime(2017, 3, 1, 4, tzinfo=UTC))
    assert left.cycle is not None and left.cycle.recipe == "other.yaml"
    later = make_run(tmp_path, run_id="in 3 days", as_of=first.as_of + 3 * DAY)
    break_in(with_recipe(later, "other.yaml"), "build_snapshot", settings, day=3)
    assert tell_recovered(end(other).run_uri, settings) == NOTHING, "a later day broke again"
    assert tell_recovered(end(with_recipe(later, "other.yaml")).run_uri, settings).alert
    assert slack.recovered == [False, False, True, False, True] and still_open(settings) == []


@pytest.mark.parametrize("is_shown", [True, False])
def test_what_has_lapsed_is_told_as_mended_only_by_a_cycle_that_shows_it(
    tmp_path: Path, settings: Settings, slack: Taken, is_shown: bool
) -> None:
    """A trial recipe that nobody runs again, or a DAG that was paused for months."""
    trial = make_run(tmp_path, run_id="trial")
    trial = trial if is_shown else with_recipe(trial, "trial.yaml")
    break_in(trial, "build_snapshot", settings)
    [met] = open_in(settings)
    long = met.last_at + LAPSES_AFTER
    assert read_open(settings, long - timedelta(seconds=1)) == (met,)
    assert read_open(settings, long) == ()
    later = make_run(tmp_path, run_id="later", as_of=trial.as_of + 2 * LAPSES_AFTER)
    assert (tell_recovered(end(later).run_uri, settings).alert is not None) is is_shown
    assert read_open(settings, later.as_of) == ()


def test_a_run_that_never_had_a_folder_is_mended_by_the_next_that_ends(
    tmp_path: Path, settings: Settings, slack: Taken
) -> None:
    step = NextStep(sentence="Mend it.", commands=())
    broken = Unresolved(message="ConfigurationError: no such recipe", next_step=step, at=None)
    receipt = tell(compose_unresolved("manual__x/..", broken, settings), settings)
    assert receipt.alert is not None and receipt.alert.next_step == step
    name = entry_uri(receipt.alert, settings).rpartition("/")[2]
    assert name.startswith("manual__x_...broken_run.")
    assert tell_recovered(end(make_run(tmp_path)).run_uri, settings).alert is not None


def test_a_kill_while_a_recovery_is_told_neither_loses_nor_repeats_it(
    tmp_path: Path, settings: Settings, slack: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    break_in(run, "build_snapshot", settings)
    end(run)
    genuine = incidents.deliver
    for is_before in (True, False):  # the outbox has it, or not yet

        def killed(*arguments, is_before=is_before, **options):  # type: ignore[no-untyped-def]
            if not is_before:
                genuine(*arguments, **options)
            raise SystemExit(137)

        with monkeypatch.context() as dying, pytest.raises(SystemExit):
            dying.setattr(incidents, "deliver", killed)
            tell_recovered(run.run_uri, settings)
    for _ in range(2):
        tell_recovered(run.run_uri, settings)
    assert slack.recovered == [False, True]
    assert open_in(settings) == []


def test_a_transport_that_is_away_costs_the_cycle_nothing_and_gets_it_later_in_order(
    tmp_path: Path, settings: Settings, slack: Taken
) -> None:
    run = make_run(tmp_path)
    slack.fault = OSError("no route")
    with pytest.raises(AlertDeliveryError):
        break_in(run, "train_challenger", settings)
    tell_recovered(end(run).run_uri, settings)
    assert still_open(settings) == []
    slack.fault = None
    assert len(deliver_waiting(settings)) == 2 and slack.recovered == [False, True]
