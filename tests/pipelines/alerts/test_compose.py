"""What an alert says: each kind, and its command."""

import functools
from datetime import UTC, datetime, timedelta

import pytest

from pipelines import storage
from pipelines.alerts import compose
from pipelines.alerts.compose import (
    alert_on_failure,
    alert_on_unresolved,
    compose_failure,
    compose_forced,
    find_failure,
)
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun, Standing
from pipelines.contracts.judged.alert import Alert, AlertKind, NextStep
from pipelines.contracts.judgement import AnchorFacts, BaselineKind, Decision, Judgement, Promoted
from pipelines.contracts.run_layout import StageFailure, failure_uri, lost_race_uri
from pipelines.settings import Settings
from pipelines.stages.alert import alert as alert_stage
from support.commands import EXECUTABLE, parse
from support.judgements import CHAMPION, make_judgement, ruled
from support.runs import make_run, save_artifact, save_run

SETTINGS = Settings()


def compose_verdict(judgement: Judgement, run: ResolvedRun, settings: Settings) -> Alert | None:
    """Return the alert about a judgement, by way of its outcome."""
    outcome = outcome_of(run, judgement, None, settings)
    return compose.compose_verdict(outcome, judgement, run, settings)


DAYS = tuple(datetime(2017, 1, day, tzinfo=UTC) for day in (1, 8, 15))
REASON = "The 95 % interval of repin_volume_at_3 lies wholly below zero."


def settings_in(tmp_path) -> Settings:
    return Settings(workspace=str(tmp_path / "workspace"))


def outbox_files(tmp_path, ending: str) -> list[str]:
    return sorted(p.name for p in (tmp_path / "workspace" / "outbox").glob(f"*.{ending}"))


def make_failure(stage: str, error_class: str, exit_code: int, at: int = 0) -> StageFailure:
    return StageFailure(
        stage=stage,
        error_class=error_class,
        message="rows <b>lost</b> & found",
        exit_code=exit_code,
        is_retryable=exit_code == 75,
        occurred_at=datetime(2026, 1, 5, 6, 0, at, tzinfo=UTC),
    )


def test_a_promotion_is_no_reason_to_write(tmp_path):
    receipt = alert_stage(
        make_run(tmp_path), make_judgement(Decision.PROMOTE, high=0.01), settings_in(tmp_path)
    )
    assert (receipt.alert, receipt.delivered_to) == (None, ())
    assert not (tmp_path / "workspace" / "outbox").exists()


def test_a_regression_says_how_sure_and_what_serves(tmp_path):
    run, judgement = make_run(tmp_path, champion=CHAMPION), make_judgement(Decision.REJECT, REASON)
    save_artifact(run, "compare_with_champion", judgement)
    receipt = alert_stage(run, judgement, settings_in(tmp_path))
    alert = receipt.alert
    assert alert.at == run.as_of, "when it was judged, whenever it is told"
    assert alert.kind is AlertKind.REGRESSION
    assert alert.happened == REASON
    assert "1.5000 against 1.6000 (champion test_ranker v3), -6.25 %" in alert.certainty
    assert "-5.00 % to -1.00 %" in alert.certainty
    assert "2.10 %" in alert.certainty and "1,234 users" in alert.certainty
    assert "test_ranker v3 (as_of 2017-02-16) stays champion" in alert.done
    assert ("Verdict page", "file:///w/runs/r/compare_with_champion/report.html") in alert.links
    assert receipt.delivered_to == ("outbox",)
    assert len(outbox_files(tmp_path, "json")) == len(outbox_files(tmp_path, "txt")) == 1


def test_an_inconclusive_verdict_asks_for_more_days(tmp_path):
    alert = compose_verdict(
        make_judgement(Decision.INCONCLUSIVE, high=0.01),
        make_run(tmp_path, champion=CHAMPION),
        SETTINGS,
    )
    assert alert.kind is AlertKind.INCONCLUSIVE
    assert "--as-of 2017-03-09" in alert.next_step.commands[-1][1]
    assert "is not known to be good enough" in alert.title


@pytest.mark.parametrize(
    ("decision", "title", "done"),
    [
        (Decision.PROMOTE, "is worse and is promoted, within the margin", "v4 is promoted"),
        (Decision.INCONCLUSIVE, "is worse and stays out", "v4 was not promoted"),
    ],
)
def test_a_certain_loss_is_a_regression_whatever_the_decision(tmp_path, decision, title, done):
    judgement = make_judgement(decision, low=-0.0015, high=-0.0005)
    alert = compose_verdict(judgement, make_run(tmp_path, champion=CHAMPION), SETTINGS)
    assert alert.kind is AlertKind.REGRESSION
    assert title in alert.title and done in alert.done


def test_a_metric_that_could_not_be_compared_is_said_so(tmp_path):
    judgement = make_judgement(Decision.REJECT)
    judgement = judgement.model_copy(
        update={"comparison": judgement.comparison.model_copy(update={"metrics": ()})}
    )
    alert = compose_verdict(judgement, make_run(tmp_path), SETTINGS)
    assert "could not be compared" in alert.certainty
    assert "There is no champion yet" in alert.done


@pytest.mark.parametrize(
    "stage, error_class, exit_code, kind, command",
    [
        ("check_snapshot", "DataGateFailedError", 65, AlertKind.DATA_GATE_FAILED, "retrain"),
        ("build_snapshot", "DataGateFailedError", 65, AlertKind.DATA_GATE_FAILED, "stage"),
        ("build_snapshot", "TransientStorageError", 75, AlertKind.BROKEN_RUN, "stage"),
        # The same data, seed and recipe would diverge again.
        ("train_challenger", "TrainingDivergedError", 65, AlertKind.BROKEN_RUN, "retrain"),
        ("check_snapshot", "SnapshotDamagedError", 65, AlertKind.DATA_GATE_FAILED, "stage"),
        ("train_challenger", "SnapshotDamagedError", 65, AlertKind.BROKEN_RUN, "stage"),
        ("promote_challenger", "PromotionRefusedError", 77, AlertKind.BROKEN_RUN, "retrain"),
    ],
)
def test_a_broken_run_names_the_stage_and_a_command_that_exists(
    tmp_path, stage, error_class, exit_code, kind, command
):
    run = make_run(tmp_path, champion=CHAMPION)
    failure = make_failure(stage, error_class, exit_code)
    alert = compose_failure(failure, run, SETTINGS, stage)
    assert alert.kind is kind
    assert error_class in alert.happened and "rows <b>lost</b>" in alert.happened
    parsed = [parse(line) for _, line in alert.next_step.commands]
    assert parsed[0].info_name == command
    assert command == "retrain" or parsed[0].params["run"] == run.run_uri


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_the_command_after_a_verdict_exists(tmp_path, decision):
    alert = compose_verdict(make_judgement(decision), make_run(tmp_path), SETTINGS)
    assert parse(alert.next_step.commands[-1][1]).info_name == "retrain"


def test_the_newest_failure_counts_and_a_leftover_of_another_stage_does_not(tmp_path):
    run = make_run(tmp_path)
    save_run(run)
    for failure in (
        make_failure("build_snapshot", "TransientStorageError", 75, at=9),
        make_failure("check_snapshot", "DataGateFailedError", 65, at=3),
    ):
        storage.write_model(failure_uri(run.run_uri, failure.stage), failure)
    assert find_failure(run.run_uri).stage == "build_snapshot"
    settings = settings_in(tmp_path)
    killed = alert_on_failure(run.run_uri, settings, "train_challenger", "task_failure").alert
    assert "train_challenger ended without saying why (task_failure)" in killed.happened
    _, command = killed.next_step.commands[0]
    assert command == f"{EXECUTABLE} stage train_challenger --run {run.run_uri}"


def test_what_is_noted_beside_a_manifest_is_no_failure_of_the_run(tmp_path):
    """The attempt that was refused leaves its note, and the other one ends well."""
    run = save_run(make_run(tmp_path))
    lost = make_failure("build_snapshot", "LostRaceError", 75)
    storage.write_model(lost_race_uri(run.run_uri, lost.stage), lost)
    assert find_failure(run.run_uri) == lost
    save_artifact(run, "build_snapshot", run)
    assert find_failure(run.run_uri) is None


def test_a_failure_of_the_other_attempt_is_told_though_a_race_was_lost_a_moment_later(tmp_path):
    run = save_run(make_run(tmp_path))
    failed = make_failure("build_snapshot", "DataContractError", 65, at=3)
    lost = make_failure("build_snapshot", "LostRaceError", 75, at=4)
    storage.write_model(failure_uri(run.run_uri, failed.stage), failed)
    storage.write_model(lost_race_uri(run.run_uri, lost.stage), lost)
    told = alert_on_failure(run.run_uri, settings_in(tmp_path), failed.stage).alert
    assert "DataContractError in build_snapshot" in told.happened


def test_the_same_failure_is_told_once_and_a_new_one_again(tmp_path):
    run = make_run(tmp_path)
    save_run(run)
    uri = failure_uri(run.run_uri, "build_snapshot")
    storage.write_model(uri, make_failure("build_snapshot", "TransientStorageError", 75))
    for _ in range(3):
        alert_on_failure(run.run_uri, settings_in(tmp_path), "build_snapshot", "task_failure")
    assert len(outbox_files(tmp_path, "json")) == 1
    storage.write_model(uri, make_failure("build_snapshot", "DataContractError", 65, at=7))
    told = alert_on_failure(run.run_uri, settings_in(tmp_path), "build_snapshot", "task_failure")
    assert len(outbox_files(tmp_path, "json")) == 2 and not told.is_counted


def test_what_an_earlier_attempt_noted_is_not_the_reason_of_the_last_one(tmp_path):
    run = make_run(tmp_path)
    save_run(run)
    failure = make_failure("build_snapshot", "DataContractError", 65, at=3)
    storage.write_model(failure_uri(run.run_uri, failure.stage), failure)
    tell = functools.partial(alert_on_failure, run.run_uri, settings_in(tmp_path), failure.stage)
    began_before = failure.occurred_at - timedelta(hours=1)
    assert "rows <b>lost</b>" in tell(since=began_before).alert.happened
    began_after = failure.occurred_at + timedelta(minutes=1)
    killed = tell(reason="task_failure", since=began_after).alert
    assert "ended without saying why (task_failure)" in killed.happened
    assert "A stage that was killed may be run again" in killed.certainty


@pytest.mark.parametrize(
    "error_class, exit_code, may_pass",
    [
        ("ProcessKilledError", 75, "The cause may pass"),
        ("ConfigurationError", 78, "will fail the same way (exit code 78)"),
        ("ZeroDivisionError", 70, "is not known: the error is unforeseen"),
    ],
)
def test_only_what_may_pass_is_said_to(tmp_path, error_class, exit_code, may_pass):
    failure = make_failure("train_challenger", error_class, exit_code)
    failure = failure.model_copy(update={"is_retryable": exit_code in (70, 75)})
    alert = compose_failure(failure, make_run(tmp_path), SETTINGS, failure.stage)
    assert may_pass in alert.certainty


def test_a_reason_of_several_lines_is_one_line_of_the_message(tmp_path):
    forged = "late\nWhat was done\n  v9 was promoted."
    alert = compose_forced(make_run(tmp_path), "m v2", "m v1", forged, "REJECT. Worse.", SETTINGS)
    assert alert.happened.splitlines() == [
        "A person made m v2 champion in spite of the verdict: late What was done v9 was promoted."
    ]
    judgement = make_judgement(Decision.REJECT)
    verdict = ruled(Decision.REJECT, forged, "Because.")
    judgement = judgement.model_copy(update={"verdict": verdict})
    alert = compose_verdict(judgement, make_run(tmp_path), SETTINGS)
    assert len(alert.happened.splitlines()) == 2


def test_a_run_without_a_folder_is_told_of_too(tmp_path):
    step = NextStep(sentence="Mend it.", commands=(("Begin:", "homefeed resolve --key 'a b'"),))
    receipt = alert_on_unresolved(
        "manual__2026-01-05T06:00:00+00:00/..",
        "ConfigurationError: no",
        step,
        settings_in(tmp_path),
    )
    assert receipt.delivered_to == ("outbox",)
    assert receipt.alert.next_step == step
    (name,) = outbox_files(tmp_path, "txt")
    assert "/" not in name and ":" not in name


def test_an_alert_survives_json():
    alert = Alert(
        kind=AlertKind.BROKEN_RUN,
        run_id="r",
        title="t",
        happened="h",
        certainty="c",
        done="d",
        next_step=NextStep(sentence="s", commands=(("p", "n"),)),
        links=(("a", "b"),),
    )
    assert Alert.model_validate_json(alert.model_dump_json()) == alert


def test_a_fresh_anchor_in_the_challenger_s_place_is_told_with_what_it_means(tmp_path):
    run = make_run(tmp_path, champion=CHAMPION)
    found = make_judgement(Decision.REJECT, REASON)
    fresh = found.comparison.challenger_model.model_copy(update={"version": "5"})
    anchor = AnchorFacts(
        model=fresh,
        recipe=found.comparison,
        freshness=found.comparison,
        self_test=found.self_test,
        serving=found.serving,
    )
    verdict = found.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    found = found.model_copy(update={"anchor": anchor, "verdict": verdict})
    alert = compose_verdict(found, run, SETTINGS)
    assert alert.kind is AlertKind.REGRESSION
    assert "test_ranker v5, the accepted recipe trained on the same rows, is promoted" in alert.done
    assert "The pipeline makes test_ranker v5 the champion" in alert.next_step.sentence
    commands = [command for _, command in alert.next_step.commands]
    assert any("rollback --to-version 3" in command for command in commands)


def test_after_four_cycles_without_a_promotion_a_person_is_asked(tmp_path):
    for num_before, is_asked in ((2, False), (3, True)):
        run = make_run(tmp_path, champion=CHAMPION, standing=Standing(unpromoted=DAYS[:num_before]))
        step = compose_verdict(make_judgement(Decision.INCONCLUSIVE), run, SETTINGS).next_step
        assert ("Nothing was promoted in 4 cycles" in step.sentence) is is_asked
        names = [parse(command).info_name for _, command in step.commands]
        assert (("promote" in names) and ("set" in names)) is is_asked
    past = run.model_copy(update={"may_promote": False})
    step = compose_verdict(make_judgement(Decision.INCONCLUSIVE), past, SETTINGS).next_step
    assert "promote" not in [parse(command).info_name for _, command in step.commands]


@pytest.mark.parametrize("decision", [Decision.INCONCLUSIVE, Decision.REJECT])
def test_where_the_accepted_recipe_is_lost_a_person_names_one(tmp_path, decision):
    run = make_run(tmp_path, champion=CHAMPION)
    found = make_judgement(decision).model_copy(update={"problem": "It is not known."})
    step = compose_verdict(found, run, SETTINGS).next_step
    assert "set" in [parse(command).info_name for _, command in step.commands]


def test_a_recipe_on_hold_is_released_with_the_command_that_is_offered(tmp_path):
    run = make_run(tmp_path, champion=CHAMPION, standing=Standing(hold="It was rolled back."))
    step = compose_verdict(make_judgement(Decision.INCONCLUSIVE), run, SETTINGS).next_step
    [found] = [c for _, command in step.commands if (c := parse(command)).info_name == "release"]
    assert run.config.recipe_digest.startswith(found.params["recipe"])


def test_a_certain_loss_of_a_recipe_is_told_though_it_is_promoted(tmp_path):
    run = make_run(tmp_path, champion=CHAMPION)
    found = make_judgement(Decision.PROMOTE, low=-0.01, high=0.01)
    assert compose_verdict(found, run, SETTINGS) is None
    lost = make_judgement(Decision.PROMOTE).comparison.model_copy(
        update={"baseline_kind": BaselineKind.ANCHOR}
    )
    anchor = AnchorFacts(
        model=lost.challenger_model,
        recipe=lost,
        freshness=found.comparison,
        self_test=found.self_test,
        serving=found.serving,
    )
    alert = compose_verdict(found.model_copy(update={"anchor": anchor}), run, SETTINGS)
    assert alert.kind is AlertKind.REGRESSION
    assert "has a worse recipe than the accepted one and is promoted" in alert.title
