"""When a cycle has ended after cycles that broke, people are told once what is mended."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts import incidents, recovery, transports
from pipelines.alerts.compose import alert_on_failure, alert_on_unresolved
from pipelines.alerts.incidents import LAPSES_AFTER, IncidentRecord, read_open, record_uri
from pipelines.alerts.recovery import tell_recovered
from pipelines.alerts.transports import deliver_waiting
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.judged.alert import AlertKind, AlertReceipt, NextStep
from pipelines.contracts.judgement import Decision, Promotion
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri
from pipelines.settings import Settings
from support.judgements import CHALLENGER, CHAMPION
from support.runs import make_run, save_artifact, save_run

PROMOTION = Promotion(
    decision=Decision.PROMOTE,
    is_promoted=True,
    champion_before=CHAMPION,
    champion_after=CHALLENGER,
    reason="Because of a test.",
    history_uri=None,
)
NOTHING = AlertReceipt(alert=None, delivered_to=())
NOW = datetime(2017, 3, 1, 4, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=f"{tmp_path}/workspace", alert_transports=("outbox", "slack"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a transport took."""
    subjects: list[str] = []
    monkeypatch.setitem(
        transports._TRANSPORTS, "slack", lambda rendered, _: subjects.append(rendered.subject)
    )
    return subjects


def break_in(run: ResolvedRun, stage: str, settings: Settings, minute: int = 0) -> None:
    failure = StageFailure(
        stage=stage,
        error_class="DataContractError",
        message="no rows of 2017-02-27",
        exit_code=65,
        is_retryable=False,
        occurred_at=datetime(2017, 3, 1, 3, minute, tzinfo=UTC),
    )
    save_run(run)
    storage.write_model(failure_uri(run.run_uri, stage), failure)
    alert_on_failure(run.run_uri, settings, stage)


def end(run: ResolvedRun) -> ResolvedRun:
    """Leave what a cycle that has ended leaves."""
    save_run(run)
    for stage in STAGES[1:]:
        save_artifact(run, stage, PROMOTION if stage == "promote_challenger" else NOTHING)
    return run


def still_open(settings: Settings) -> list[str]:
    return [each.stage for each in storage.read_model(record_uri(settings), IncidentRecord).open]


def test_a_cycle_that_ends_tells_once_what_had_been_broken(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    first = make_run(tmp_path, run_id="first", code_version="old")
    break_in(first, "build_snapshot", settings)
    break_in(first, "build_snapshot", settings, minute=30)
    break_in(first, "check_snapshot", settings, minute=40)
    second = end(make_run(tmp_path, run_id="second", code_version="new"))
    alert = tell_recovered(second.run_uri, settings).alert
    assert alert is not None and alert.kind is AlertKind.RECOVERED
    assert alert.title.endswith("recovered, build_snapshot, check_snapshot end well again")
    assert alert.serves == "test_ranker v4 serves; this cycle promoted test_ranker v4."
    assert alert.happened.splitlines() == [
        "Since 2017-03-01 03:00 UTC, 2 times, last at 2017-03-01 03:30 UTC: "
        "Homefeed retrain 2017-03-02: build_snapshot broke",
        "Since 2017-03-01 03:40 UTC, once: Homefeed retrain 2017-03-02: check_snapshot broke",
    ]
    assert (
        alert.done == "Run second has ended in place of run first, with code new (old had broken)."
    )
    assert alert.mended_cycles == (alert.cycle,)
    for _ in range(2):  # Airflow calls again where the run is cleared and ends well again
        assert tell_recovered(second.run_uri, settings) == NOTHING
    assert [subject for subject in sent if "recovered" in subject] == sent[2:] != []
    assert len(sent) == 3 and still_open(settings) == []


def test_the_same_run_that_goes_on_says_which_stage_ended(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    run = make_run(tmp_path)
    break_in(run, "train_challenger", settings)
    end(run)
    alert = tell_recovered(run.run_uri, settings).alert
    assert alert is not None
    assert alert.done.startswith("The same run went on: train_challenger ended at 2017-03-02 00:00")


def test_a_task_that_is_no_stage_had_broken_and_the_same_run_went_on(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    """`approve_promotion` is Airflow's own task, and leaves no manifest."""
    run = make_run(tmp_path)
    break_in(run, "check_snapshot", settings)
    break_in(run, "approve_promotion", settings)
    alert = tell_recovered(end(run).run_uri, settings).alert
    assert alert is not None and still_open(settings) == []
    assert alert.title.endswith("recovered, check_snapshot, approve_promotion end well again")
    assert alert.done.splitlines()[1:] == ["The same run went on."]


@pytest.mark.parametrize("held", [b"{", b'{"artifact": {}}', None])
def test_a_run_that_broke_and_cannot_be_read_any_more_loses_nothing(
    tmp_path: Path, settings: Settings, sent: list[str], held: bytes | None
) -> None:
    broken = make_run(tmp_path, run_id="broken")
    break_in(broken, "build_snapshot", settings)
    place = manifest_uri(broken.run_uri, "resolve_run")
    if held is None:
        storage.remove(place)
    else:
        storage.write_bytes(place, held)
    alert = tell_recovered(end(make_run(tmp_path, run_id="later")).run_uri, settings).alert
    assert alert is not None and still_open(settings) == []
    assert alert.done == "Run later has ended in place of run broken."


@pytest.mark.parametrize("fault", [FileNotFoundError("gone"), PermissionError("no")])
def test_a_fault_of_the_disk_is_not_raised_into_airflow_and_it_is_told_later(
    tmp_path: Path,
    settings: Settings,
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: OSError,
) -> None:
    run = make_run(tmp_path)
    break_in(run, "build_snapshot", settings)
    end(run)

    def broken(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(incidents, "Ledger", broken)
        patched.setattr(recovery, "Ledger", broken)
        assert tell_recovered(run.run_uri, settings) == NOTHING
    assert tell_recovered(run.run_uri, settings).alert is not None


def test_a_cycle_that_has_not_ended_mends_nothing(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    """`alert` may end while `promote_challenger` is broken."""
    run = end(make_run(tmp_path))
    break_in(run, "promote_challenger", settings)
    storage.remove(manifest_uri(run.run_uri, "promote_challenger"))
    assert tell_recovered(run.run_uri, settings) == NOTHING
    assert still_open(settings) == ["promote_challenger"]
    save_artifact(run, "promote_challenger", PROMOTION)
    assert tell_recovered(run.run_uri, settings).alert is not None


@pytest.mark.parametrize(
    ("days", "recipe", "is_mended"),
    [(14, "smoke", True), (0, "smoke", True), (-14, "smoke", False), (14, "other.yaml", False)],
)
def test_a_cycle_of_another_recipe_or_an_earlier_day_shows_nothing(
    tmp_path: Path, settings: Settings, sent: list[str], days: int, recipe: str, is_mended: bool
) -> None:
    broken = make_run(tmp_path, run_id="broken")
    break_in(broken, "build_snapshot", settings)
    config = broken.config.model_copy(update={"source": recipe if recipe != "smoke" else ""})
    later = make_run(tmp_path, config, broken.as_of + days * DAY, run_id="later")
    told = tell_recovered(end(later).run_uri, settings)
    assert (told.alert is not None) is is_mended
    assert (still_open(settings) == []) is is_mended


def with_recipe(run: ResolvedRun, reference: str) -> ResolvedRun:
    return run.model_copy(update={"config": run.config.model_copy(update={"source": reference})})


def test_a_cause_that_two_recipes_met_is_mended_when_a_cycle_of_each_has_ended(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    first = make_run(tmp_path, run_id="first")
    other = with_recipe(make_run(tmp_path, run_id="other"), "other.yaml")
    break_in(first, "build_snapshot", settings)
    break_in(other, "build_snapshot", settings, minute=10)
    assert tell_recovered(end(first).run_uri, settings) == NOTHING
    [left] = read_open(settings, NOW)
    assert [cycle.recipe for cycle in left.cycles] == ["other.yaml"]
    alert = tell_recovered(end(other).run_uri, settings).alert
    assert alert is not None and still_open(settings) == []
    assert {cycle.recipe for cycle in alert.mended_cycles} == {"smoke", "other.yaml"}
    assert len([subject for subject in sent if "recovered" in subject]) == 1


def test_a_recipe_that_breaks_again_by_the_cause_has_to_end_again(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    first = make_run(tmp_path, run_id="first")
    other = with_recipe(make_run(tmp_path, run_id="other"), "other.yaml")
    break_in(first, "build_snapshot", settings)
    break_in(other, "build_snapshot", settings, minute=10)
    tell_recovered(end(first).run_uri, settings)
    break_in(make_run(tmp_path, run_id="third"), "build_snapshot", settings, minute=20)
    assert tell_recovered(end(other).run_uri, settings) == NOTHING
    alert = tell_recovered(end(make_run(tmp_path, run_id="fourth")).run_uri, settings).alert
    assert alert is not None and len(alert.mended_cycles) == 2
    assert alert.done == (
        "Run fourth has ended; a cycle of each other recipe that met it had before."
    )


def test_what_a_trial_recipe_met_lapses_where_nobody_runs_it_again(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    """Of the recipe that ends nothing is said: it had never broken."""
    trial = with_recipe(make_run(tmp_path, run_id="trial"), "trial.yaml")
    break_in(trial, "build_snapshot", settings)
    [met] = read_open(settings, NOW)
    just, long = met.last_at + LAPSES_AFTER - SECOND, met.last_at + LAPSES_AFTER
    assert read_open(settings, just) == (met,) and read_open(settings, long) == ()
    later = make_run(tmp_path, run_id="later", as_of=trial.as_of + 2 * LAPSES_AFTER)
    assert tell_recovered(end(later).run_uri, settings) == NOTHING
    assert still_open(settings) == [] and len(sent) == 1


def test_what_lapsed_is_still_told_as_mended_by_a_cycle_that_shows_it(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    """The DAG was paused for months."""
    broken = make_run(tmp_path, run_id="broken")
    break_in(broken, "build_snapshot", settings)
    later = make_run(tmp_path, run_id="later", as_of=broken.as_of + 2 * LAPSES_AFTER)
    assert tell_recovered(end(later).run_uri, settings).alert is not None


def test_a_run_that_never_had_a_folder_is_mended_by_the_next_that_ends(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    step = NextStep(sentence="Mend it.", commands=())
    alert_on_unresolved("manual__x/..", "ConfigurationError: no such recipe", step, settings)
    alert = tell_recovered(end(make_run(tmp_path)).run_uri, settings).alert
    assert alert is not None and "in place of run manual__x/.." in alert.done


def test_where_nothing_was_broken_nobody_is_told(
    tmp_path: Path, settings: Settings, sent: list[str]
) -> None:
    assert tell_recovered(end(make_run(tmp_path)).run_uri, settings) == NOTHING
    assert sent == [] and not storage.exists(record_uri(settings))


def test_a_kill_while_it_is_told_neither_loses_nor_repeats_it(
    tmp_path: Path, settings: Settings, sent: list[str], monkeypatch: pytest.MonkeyPatch
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
    assert len([subject for subject in sent if "recovered" in subject]) == 1
    assert storage.read_model(record_uri(settings), IncidentRecord) == IncidentRecord()


def test_a_transport_that_is_away_costs_the_cycle_nothing_and_gets_it_later_in_order(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    def away(*_: object) -> None:
        raise OSError("no route")

    run = make_run(tmp_path)
    with monkeypatch.context() as patched:
        patched.setitem(transports._TRANSPORTS, "slack", away)
        with pytest.raises(transports.AlertDeliveryError):
            break_in(run, "train_challenger", settings)
        tell_recovered(end(run).run_uri, settings)
    assert still_open(settings) == [] and sent == []
    assert len(deliver_waiting(settings)) == 2
    assert ["recovered" in subject for subject in sent] == [False, True]
