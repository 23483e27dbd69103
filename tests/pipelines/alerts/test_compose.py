"""Which alert follows from what, how urgent it is, and what tells it apart from another.

Its words are those of the stored examples (test_examples.py), and nobody else's affair.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipelines import storage
from pipelines.alerts import compose
from pipelines.alerts.compose import (
    Ended,
    MissedCycles,
    after_lost_start,
    after_unresolved,
    alert_about_failure,
    compose_failure,
    compose_forced,
    compose_missed,
    compose_not_approved,
    compose_wanted,
    find_failure,
)
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.alert import Alert, AlertKind, AlertSeverity, Cause, NextStep
from pipelines.contracts.artifacts import ResolvedRun, RunRequest, Standing
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import BUNDLE_MISSING
from pipelines.contracts.judgement import (
    AnchorFacts,
    Approval,
    Decision,
    Judgement,
    Promoted,
    Question,
)
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.recipes import smoke
from pipelines.settings import Settings
from pipelines.stages.alert import alert as alert_stage
from support.commands import parse, split
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run, save_artifact, save_run

SETTINGS = Settings()
DAYS = tuple(datetime(2017, 1, day, tzinfo=UTC) for day in (1, 8, 15))
DUE, FORTNIGHT = datetime(2026, 2, 16, 6, tzinfo=UTC), timedelta(days=14)


def compose_verdict(judgement: Judgement, run: ResolvedRun) -> Alert | None:
    """Return the alert about a judgement, by way of its outcome."""
    outcome = outcome_of(run, judgement, None, SETTINGS)
    return compose.compose_verdict(outcome, judgement, run, SETTINGS)


def names_in(step: NextStep) -> str:
    return " ".join(parse(command).info_name for _, command in step.commands)


def make_failure(stage: str, error_class: str, exit_code: int, at: int = 0) -> StageFailure:
    return StageFailure(
        stage=stage,
        error_class=error_class,
        message="no rows",
        exit_code=exit_code,
        is_retryable=exit_code == 75,
        occurred_at=datetime(2026, 1, 5, 6, 0, at, tzinfo=UTC),
        raised_by="pipelines.event_log.checks.f",
        about=("a rule", "2026-01-04"),
    )


def test_a_promotion_is_no_reason_to_write(tmp_path):
    settings = Settings(workspace=str(tmp_path / "workspace"))
    judgement = make_judgement(Decision.PROMOTE, high=0.01)
    receipt = alert_stage(make_run(tmp_path), judgement, settings)
    assert (receipt.alert, receipt.delivered_to) == (None, ())
    assert not (tmp_path / "workspace" / "outbox").exists()


def test_a_regression_is_told_at_the_time_of_the_verdict_with_its_page(tmp_path):
    run, judgement = make_run(tmp_path, champion=CHAMPION), make_judgement(Decision.REJECT)
    save_artifact(run, "compare_with_champion", judgement)
    receipt = alert_stage(run, judgement, Settings(workspace=str(tmp_path / "workspace")))
    alert = receipt.alert
    assert alert.kind is AlertKind.REGRESSION and alert.severity is AlertSeverity.WARNING
    assert alert.at == run.as_of, "when it was judged, whenever it is told"
    assert alert.about == (judgement.ruling_digest,)
    assert ("Verdict page", "file:///w/runs/r/compare_with_champion/report.html") in alert.links
    assert receipt.delivered_to == ("outbox",)


@pytest.mark.parametrize(
    ("decision", "low", "high", "changes", "expected"),
    [
        (Decision.INCONCLUSIVE, -0.08, 0.01, {}, ("inconclusive", "info")),
        (Decision.REJECT, -0.08, 0.01, {}, ("regression", "warning")),
        # A certain loss, whatever the decision.
        (Decision.INCONCLUSIVE, -0.0015, -0.0005, {}, ("regression", "warning")),
        (Decision.PROMOTE, -0.0015, -0.0005, {}, ("regression", "warning")),
        (Decision.PROMOTE, -0.01, 0.01, {}, None),
        # A person has to decide.
        *(
            (Decision.INCONCLUSIVE, -0.08, 0.01, {"standing": standing}, ("inconclusive", told))
            for standing, told in (
                (Standing(unpromoted=DAYS[:2]), "info"),
                (Standing(unpromoted=DAYS), "warning"),
                (Standing(hold="It was rolled back."), "warning"),
            )
        ),
    ],
)
def test_a_verdict_is_told_by_its_kind_and_as_soon_as_it_needs(
    tmp_path, decision, low, high, changes, expected
):
    judgement = make_judgement(decision, low=low, high=high)
    alert = compose_verdict(judgement, make_run(tmp_path, champion=CHAMPION, **changes))
    assert (alert and (alert.kind.value, alert.severity.value)) == expected


def test_where_the_accepted_recipe_is_lost_a_person_is_asked(tmp_path):
    found = make_judgement(Decision.INCONCLUSIVE, high=0.01)
    found = found.model_copy(update={"problem": "It is not known."})
    alert = compose_verdict(found, make_run(tmp_path, champion=CHAMPION))
    assert alert.severity is AlertSeverity.WARNING


def with_anchor(judgement: Judgement, **facts) -> Judgement:
    lost = judgement.comparison.model_copy(update={"baseline_kind": BaselineKind.ANCHOR})
    told = {
        "model": lost.challenger_model,
        "recipe": lost,
        "freshness": judgement.comparison,
        "self_test": judgement.self_test,
        "serving": judgement.serving,
    }
    return judgement.model_copy(update={"anchor": AnchorFacts(**(told | facts))})


def test_a_certain_loss_of_a_recipe_is_told_though_it_is_promoted(tmp_path):
    run = make_run(tmp_path, champion=CHAMPION)
    found = make_judgement(Decision.PROMOTE, low=-0.01, high=0.01)
    assert compose_verdict(found, run) is None
    lost = with_anchor(make_judgement(Decision.PROMOTE)).anchor.recipe
    assert compose_verdict(with_anchor(found, recipe=lost), run).kind is AlertKind.REGRESSION


def test_a_fresh_anchor_in_the_challenger_s_place_is_told_with_the_way_back(tmp_path):
    found = make_judgement(Decision.REJECT)
    fresh = found.comparison.challenger_model.model_copy(update={"version": "5"})
    verdict = found.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    found = with_anchor(found, model=fresh).model_copy(update={"verdict": verdict})
    alert = compose_verdict(found, make_run(tmp_path, champion=CHAMPION))
    assert alert.kind is AlertKind.REGRESSION
    assert "test_ranker v5" in alert.done and "test_ranker v5" in alert.next_step.sentence
    back = parse(alert.next_step.commands[-1][1])
    assert (back.params["to_version"], back.params["from_version"]) == ("3", "5")


ONE, TWO = ("first_share",), ("first_share", "second_share")


@pytest.mark.parametrize(
    ("stage", "error_class", "exit_code", "more", "commands"),
    [
        ("check_snapshot", "DataGateFailedError", 65, {}, "retrain"),
        (
            "check_snapshot",
            "DataGateFailedError",
            65,
            {"acceptable": TWO},
            "retrain accept accept stage retrain",
        ),
        ("build_snapshot", "DataGateFailedError", 65, {}, "stage retrain"),
        ("build_snapshot", "DataGateFailedError", 65, {"acceptable": ONE}, "accept stage retrain"),
        ("build_snapshot", "TransientStorageError", 75, {}, "stage retrain"),
        # The same data, seed and recipe would diverge again.
        ("train_challenger", "DataContractError", 65, {}, "retrain"),
        ("check_snapshot", "SnapshotDamagedError", 65, {}, "stage stage retrain"),
        ("train_challenger", "SnapshotDamagedError", 65, {}, "stage stage retrain"),
        (
            "compare_with_champion",
            "DataContractError",
            65,
            {"about": (BUNDLE_MISSING,)},
            "stage retrain",
        ),
        ("promote_challenger", "PromotionRefusedError", 77, {}, "retrain"),
        ("promote_challenger", "", 75, {}, "stage retrain serving"),
        ("approve_promotion", "", 70, {}, ""),
    ],
)
def test_a_broken_run_has_a_cause_and_commands_that_exist(
    tmp_path, stage, error_class, exit_code, more, commands
):
    run = make_run(tmp_path, champion=CHAMPION)
    failure = make_failure(stage, error_class, exit_code).model_copy(update=more)
    alert = compose_failure(failure, run, SETTINGS, Ended(stage))
    is_gate = stage in ("build_snapshot", "check_snapshot") and exit_code == 65
    assert alert.kind is (AlertKind.DATA_GATE_FAILED if is_gate else AlertKind.BROKEN_RUN)
    told = {"raised_by": failure.raised_by, "about": failure.about}
    assert alert.cause == Cause(stage=stage, error_class=error_class, **told)
    assert names_in(alert.next_step) == commands
    found = [parse(line) for _, line in alert.next_step.commands]
    assert {each.params["run"] for each in found if "run" in each.params} <= {run.run_uri}
    accepted = [each.params.get("expectation") for each in found if each.info_name == "accept"]
    assert accepted == list(failure.acceptable)


def test_a_cycle_that_was_not_resolved_is_begun_under_the_name_that_airflow_gave_it():
    found = parse(after_unresolved(REQUEST, SETTINGS).commands[0][1])
    assert (found.info_name, found.params["key"]) == ("resolve", REQUEST.trigger)
    assert found.params["promote"]
    assert names_in(after_lost_start(SETTINGS)) == "serving"


def test_the_newest_failure_counts_and_a_leftover_of_another_stage_does_not(tmp_path):
    run = save_run(make_run(tmp_path))
    for failure in (
        make_failure("build_snapshot", "TransientStorageError", 75, at=9),
        make_failure("check_snapshot", "DataGateFailedError", 65, at=3),
    ):
        storage.write_model(failure_uri(run.run_uri, failure.stage), failure)
    assert find_failure(run.run_uri).stage == "build_snapshot"
    killed = alert_about_failure(run.run_uri, SETTINGS, Ended("train_challenger", "task_failure"))
    assert killed.cause == Cause(stage="train_challenger", error_class="")


def test_what_is_noted_beside_a_manifest_is_no_failure_of_the_run(tmp_path):
    run = save_run(make_run(tmp_path))
    failed = make_failure("build_snapshot", "RunInProgressError", 75)
    storage.write_model(failure_uri(run.run_uri, failed.stage), failed)
    assert find_failure(run.run_uri) == failed
    save_artifact(run, "build_snapshot", run)
    assert find_failure(run.run_uri) is None


def test_what_an_earlier_attempt_noted_is_not_the_reason_of_the_last_one(tmp_path):
    run = save_run(make_run(tmp_path))
    failure = make_failure("build_snapshot", "DataContractError", 65, at=3)
    storage.write_model(failure_uri(run.run_uri, failure.stage), failure)
    for later, error_class in (
        (timedelta(hours=-1), "DataContractError"),
        (timedelta(minutes=1), ""),
    ):
        ended = Ended(failure.stage, "task_failure", failure.occurred_at + later)
        assert alert_about_failure(run.run_uri, SETTINGS, ended).cause.error_class == error_class


def test_a_reason_of_several_lines_is_one_line_of_the_message(tmp_path):
    forged = "late\nWhat was done\n  v9 was promoted."
    alert = compose_forced(make_run(tmp_path), "m v2", "m v1", forged, "REJECT. Worse.", SETTINGS)
    assert len(alert.happened.splitlines()) == 1
    alert = compose_verdict(make_judgement(Decision.REJECT, forged, "Because."), make_run(tmp_path))
    assert len(alert.happened.splitlines()) == 2


def test_an_alert_survives_json_and_its_words_are_not_its_identity(tmp_path):
    alert = compose_failure(None, make_run(tmp_path), SETTINGS, Ended("build_snapshot", since=DUE))
    assert Alert.model_validate_json(alert.model_dump_json()) == alert
    words = {name: "other words" for name in ("title", "serves", "happened", "certainty", "done")}
    assert alert.model_copy(update=words).identity() == alert.identity()
    for other in ({"kind": AlertKind.RECOVERED}, {"run_id": "x"}, {"about": ("y",)}):
        assert alert.model_copy(update=other).identity() != alert.identity()


REQUEST = RunRequest(
    recipe="smoke",
    as_of=DUE,
    now=DUE,
    may_promote=True,
    num_devices=2,
    trigger="scheduled__2026-02-16T06:00:00+00:00",
)


def missed(num_skipped: int, is_too_late: bool) -> MissedCycles:
    newest = DUE if is_too_late else DUE - FORTNIGHT
    return MissedCycles(
        skipped=tuple(newest - k * FORTNIGHT for k in reversed(range(num_skipped))),
        due=DUE,
        started_at=DUE + timedelta(days=8 if is_too_late else 3),
        is_too_late=is_too_late,
        max_lateness=FORTNIGHT / 2,
        next_due=DUE + FORTNIGHT,
    )


def test_a_run_that_skipped_itself_says_how_to_run_it():
    settings = Settings(workspace="/a place", airflow_url="http://air:8080/")
    alert = compose_missed(missed(1, True), REQUEST, settings)
    assert (alert.kind, alert.severity) == (AlertKind.MISSED_CYCLE, AlertSeverity.WARNING)
    command = alert.next_step.commands[0][1]
    found = parse(command)
    assert (found.info_name, found.params["devices"]) == ("retrain", 2)
    assert (found.params["as_of"], found.params["key"]) == ("2026-02-16", REQUEST.trigger)
    assert split(command)[0]["HOMEFEED_WORKSPACE"] == "file:///a%20place"
    page = "http://air:8080/dags/homefeed_retrain/runs/scheduled__2026-02-16T06%3A00%3A00%2B00%3A00"
    assert alert.links[0] == ("Airflow run", page)


def test_where_a_newer_cycle_runs_or_is_next_nothing_has_to_be_run():
    newest = DUE + FORTNIGHT
    is_next = replace(missed(1, True), started_at=newest + timedelta(days=3), next_due=newest)
    for found in (missed(2, False), is_next):
        alert = compose_missed(found, REQUEST, SETTINGS)
        assert names_in(alert.next_step) == "serving" and alert.severity is AlertSeverity.INFO


@pytest.mark.parametrize(("num_skipped", "num_named"), [(12, 12), (13, 2)])
def test_many_dates_are_counted_and_not_listed(num_skipped, num_named):
    alert = compose_missed(missed(num_skipped, True), REQUEST, SETTINGS)
    assert alert.happened.splitlines()[0].count("UTC") == num_named
    assert len(alert.about) == num_skipped


@pytest.fixture
def asking(tmp_path) -> ResolvedRun:
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna", "b*n")))
    config = smoke().model_copy(update={"promotion": asked})
    return make_run(tmp_path, config, champion=CHAMPION)


def test_each_time_that_a_question_is_put_it_is_told_with_the_place(asking):
    outcome = outcome_of(asking, make_judgement(Decision.PROMOTE), None, SETTINGS)
    settings = Settings(airflow_url="http://air:8080")
    question = Question(ruling_digest="r", model="m", until=DUE, num_times=1)
    first, again, *others = (
        compose_wanted(asking, outcome, question.model_copy(update=changes), settings)
        for changes in ({}, {}, {"num_times": 2}, {"ruling_digest": "s"})
    )
    assert first == again and len({each.identity() for each in (first, *others)}) == 3
    label, page = first.links[0]
    assert label == "Approve or reject"
    assert page.startswith("http://air:8080/dags/homefeed_retrain/runs/")
    assert page.endswith("/tasks/approve_promotion/required_actions")


@pytest.mark.parametrize(
    ("answer", "by", "severity"),
    [("rejected", "anna", AlertSeverity.INFO), ("no answer", "", AlertSeverity.WARNING)],
)
def test_a_promotion_that_was_not_approved_can_be_forced(asking, answer, by, severity):
    outcome = outcome_of(asking, make_judgement(Decision.PROMOTE), None, SETTINGS)
    approval = Approval(answer=answer, by=by, at=DUE, model="test_ranker v4", ruling_digest="r")
    alert = compose_not_approved(asking, outcome, approval, SETTINGS)
    assert (alert.severity, alert.at) == (severity, DUE)
    assert names_in(alert.next_step) == "serving promote"
