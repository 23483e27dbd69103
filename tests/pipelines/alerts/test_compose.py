"""Which alert follows from what, how urgent it is, and what tells it apart from another.

Its words are those of the stored examples (test_examples.py), and nobody else's affair.
"""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines import storage
from pipelines.alerts import compose
from pipelines.alerts.compose import (
    Ended,
    alert_about_failure,
    compose_failure,
    compose_forced,
    compose_missed,
    compose_not_approved,
    compose_wanted,
    find_failure,
)
from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.transports import read_outbox
from pipelines.contracts.alert import Alert, AlertKind, Cause, NextStep
from pipelines.contracts.artifacts import STAGES, ResolvedRun, RunRequest, Standing
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import BUNDLE_MISSING
from pipelines.contracts.judgement import AnchorFacts, Approval, Decision, Judgement, Promoted, Skew
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.run_layout import StageFailure, failure_uri
from pipelines.recipes import smoke
from pipelines.registry.history import Move
from pipelines.settings import Settings
from pipelines.stages.light import alert as alert_stage
from support.commands import parse, split
from support.judgements import CHAMPION, make_failure, make_judgement
from support.runs import make_run, save_run

SETTINGS = Settings(workspace="/a place", airflow_url="http://air:8080/")
DAYS = tuple(datetime(2017, 1, day, tzinfo=UTC) for day in (1, 8, 15))
DUE, FORTNIGHT = datetime(2026, 2, 16, 6, tzinfo=UTC), timedelta(days=14)
PROMOTE, REJECT, INCONCLUSIVE = Decision.PROMOTE, Decision.REJECT, Decision.INCONCLUSIVE


def compose_verdict(judgement: Judgement, run: ResolvedRun) -> Alert | None:
    """Return the alert about a judgement, by way of its outcome."""
    outcome = outcome_of(run, judgement, None, SETTINGS)
    return compose.compose_verdict(outcome, judgement, run, SETTINGS)


def told_of(alert: Alert | None) -> str:
    """Return kind and severity; '' where nobody is told."""
    return f"{alert.kind.value} {alert.severity.value}" if alert else ""


def names_in(step: NextStep) -> str:
    return " ".join(parse(command).info_name for _, command in step.commands)


def failure_in(stage: str, error_class: str, exit_code: int, at: int = 0) -> StageFailure:
    told = {"error_class": error_class, "raised_by": "pipelines.event_log.checks.f"}
    occurred_at = datetime(2026, 1, 5, 6, 0, at, tzinfo=UTC)
    about = ("a rule", "2026-01-04")
    return make_failure(stage, exit_code, **told, occurred_at=occurred_at, about=about)


def test_a_regression_is_told_and_a_promotion_to_nobody(tmp_path):
    run, settings = make_run(tmp_path, champion=CHAMPION), Settings(workspace=str(tmp_path / "w"))
    for decision, high in ((PROMOTE, 0.01), (REJECT, -0.001)):
        assert not (tmp_path / "w" / "outbox").exists()
        judgement = make_judgement(decision, high=high)
        alert = alert_stage(run, judgement, settings).alert
        assert told_of(alert) == ("regression warning" if decision is REJECT else "")
    assert alert.about == (judgement.ruling_digest,)
    assert ("Verdict page", "file:///w/runs/r/compare_with_champion/report.html") in alert.links


@pytest.mark.parametrize(("num_differ", "kinds"), [(2, []), (3, ["serving_fault"])])
def test_scores_that_differ_beyond_the_bound_are_told_once(tmp_path, num_differ, kinds):
    run, settings = make_run(tmp_path, champion=CHAMPION), Settings(workspace=str(tmp_path / "w"))
    causes = {"actions": num_differ}
    skew = Skew(num_requests=1000, num_differ=num_differ, causes=causes)
    judgement = make_judgement(PROMOTE, high=0.01).model_copy(update={"skew": skew})
    for _ in range(2):
        alert_stage(run, judgement, settings)
    told = [each for _, each in read_outbox(settings)]
    assert [each.kind.value for each in told] == kinds
    assert all("actions 3" in each.happened for each in told)
    warned = outcome_of(run, judgement, None, settings).warnings
    assert warned == ((skew.sentence,) if kinds else ())


@pytest.mark.parametrize(
    ("decision", "low", "high", "standing", "expected"),
    [
        (INCONCLUSIVE, -0.08, 0.01, {}, "inconclusive info"),
        (REJECT, -0.08, 0.01, {}, "regression warning"),
        # A certain loss, whatever the decision.
        (INCONCLUSIVE, -0.0015, -0.0005, {}, "regression warning"),
        (PROMOTE, -0.0015, -0.0005, {}, "regression warning"),
        (PROMOTE, -0.01, 0.01, {}, ""),
        # A person has to decide.
        (INCONCLUSIVE, -0.08, 0.01, {"unpromoted": DAYS[:2]}, "inconclusive info"),
        (INCONCLUSIVE, -0.08, 0.01, {"unpromoted": DAYS}, "inconclusive warning"),
        (INCONCLUSIVE, -0.08, 0.01, {"hold": "It was rolled back."}, "inconclusive warning"),
        (INCONCLUSIVE, -0.08, 0.01, {"problem": "It is not known."}, "inconclusive warning"),
    ],
)
def test_a_verdict_is_told_by_its_kind_and_as_soon_as_it_needs(
    tmp_path, decision, low, high, standing, expected
):
    judgement = make_judgement(decision, low=low, high=high)
    held = {name: standing.pop(name, "") for name in ("problem", "hold")}
    judgement = judgement.model_copy(update=held)
    run = make_run(tmp_path, champion=CHAMPION, standing=Standing(**standing))
    assert told_of(compose_verdict(judgement, run)) == expected


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


def test_a_certain_loss_of_a_recipe_and_a_fresh_anchor_in_its_place_are_told(tmp_path):
    run = make_run(tmp_path, champion=CHAMPION)
    lost = with_anchor(make_judgement(PROMOTE)).anchor.recipe
    found = with_anchor(make_judgement(PROMOTE, low=-0.01, high=0.01), recipe=lost)
    assert told_of(compose_verdict(found, run)) == "regression warning", "though it is promoted"
    found = make_judgement(REJECT)
    fresh = found.comparison.challenger_model.model_copy(update={"version": "5"})
    verdict = found.verdict.model_copy(update={"promoted": Promoted.ANCHOR})
    found = with_anchor(found, model=fresh).model_copy(update={"verdict": verdict})
    alert = compose_verdict(found, run)
    assert told_of(alert) == "regression warning"
    assert "test_ranker v5" in alert.done and "test_ranker v5" in alert.next_step.sentence
    back = parse(alert.next_step.commands[-1][1])
    assert (back.params["to_version"], back.params["from_version"]) == ("3", "5")


BROKEN, DOCS = AlertKind.BROKEN_RUN, {"docs_uri": "file:///docs"}
ONE, TWO = ({"acceptable": ("first_share", "second_share")[:num]} for num in (1, 2))
GATE, CONTRACT, DAMAGED = "DataGateFailedError", "DataContractError", "SnapshotDamagedError"
BUILD, CHECK, TRAIN = "build_snapshot", "check_snapshot", "train_challenger"


@pytest.mark.parametrize(
    ("stage", "error_class", "exit_code", "more", "commands"),
    [
        (CHECK, GATE, 65, DOCS, "retrain"),
        (CHECK, GATE, 65, DOCS | TWO, "accept accept stage retrain retrain"),
        (BUILD, GATE, 65, DOCS, "stage retrain"),
        (BUILD, GATE, 65, DOCS | ONE, "accept stage retrain retrain"),
        (BUILD, "TransientStorageError", 75, {}, "stage retrain"),
        (TRAIN, CONTRACT, 65, {}, "retrain"),  # data, seed and recipe would diverge again
        (CHECK, DAMAGED, 65, {}, "stage retrain"),
        ("compare_with_champion", CONTRACT, 65, {"about": (BUNDLE_MISSING,)}, "stage retrain"),
        ("promote_challenger", "PromotionRefusedError", 77, {}, "retrain"),
        ("approve_promotion", "", 70, {}, "retrain"),
    ],
)
def test_a_broken_run_has_a_cause_and_commands_that_exist(
    tmp_path, stage, error_class, exit_code, more, commands
):
    run = make_run(tmp_path, champion=CHAMPION)
    failure = failure_in(stage, error_class, exit_code).model_copy(update=more)
    alert = compose_failure(failure, run, SETTINGS, Ended(stage))
    assert alert.kind is (AlertKind.DATA_GATE_FAILED if DOCS.items() <= more.items() else BROKEN)
    told = {"raised_by": failure.raised_by, "about": failure.about}
    assert alert.cause == Cause(stage=stage, error_class=error_class, **told)
    assert names_in(alert.next_step) == commands
    found = [parse(line) for _, line in alert.next_step.commands]
    assert {each.params["run"] for each in found if "run" in each.params} <= {run.run_uri}
    accepted = [each.params.get("expectation") for each in found if each.info_name == "accept"]
    assert accepted == list(failure.acceptable)


def test_the_newest_failure_of_the_stages_that_are_asked_about_counts(tmp_path):
    run = save_run(make_run(tmp_path))
    for failure in (failure_in(BUILD, CONTRACT, 65, at=9), failure_in(CHECK, GATE, 65, at=3)):
        storage.write_model(failure_uri(run.run_uri, failure.stage), failure)
    newest = find_failure(run.run_uri, STAGES)
    assert newest.stage == BUILD
    for ended, error_class in (
        (Ended(TRAIN, "task_failure"), ""),  # the others are not its own
        (Ended(BUILD, "task_failure", newest.occurred_at - timedelta(hours=1)), CONTRACT),
        (Ended(BUILD, "task_failure", newest.occurred_at + timedelta(minutes=1)), ""),
    ):
        cause = alert_about_failure(run, SETTINGS, ended).cause
        assert (cause.stage, cause.error_class) == (ended.stage, error_class)
    assert find_failure(run.run_uri, [CHECK]).stage == CHECK
    assert find_failure(run.run_uri, [TRAIN]) is None


def test_a_reason_of_several_lines_is_one_line_of_the_message(tmp_path):
    forged = "late\nWhat was done\n  v9 was promoted."
    move = Move(kind="forced", moved_at=DUE, model=CHAMPION, previous=None, reason=forged)
    alert = compose_forced(make_run(tmp_path), move, "REJECT. Worse.", SETTINGS)
    assert len(alert.happened.splitlines()) == 1
    alert = compose_verdict(make_judgement(REJECT, forged, "Because."), make_run(tmp_path))
    assert len(alert.happened.splitlines()) == 1


def test_an_alert_survives_json_and_its_words_are_not_its_identity(tmp_path):
    alert = compose_failure(None, make_run(tmp_path), SETTINGS, Ended(BUILD, since=DUE))
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


@pytest.mark.parametrize("is_newer", [True, False])
def test_skipped_cycles_are_told_with_how_to_run_the_newest_where_none_follows(is_newer):
    skipped = [DUE - FORTNIGHT, DUE]
    alert = compose_missed(skipped, REQUEST, SETTINGS, is_newer)
    assert told_of(alert) == f"missed_cycle {'info' if is_newer else 'warning'}"
    assert alert.about == tuple(each.isoformat() for each in skipped)
    page = "http://air:8080/dags/homefeed_retrain/runs/scheduled__2026-02-16T06%3A00%3A00%2B00%3A00"
    assert alert.links[0] == ("Airflow run", page)
    assert names_in(alert.next_step) == ("" if is_newer else "retrain")
    if not is_newer:
        command = alert.next_step.commands[0][1]
        asked = parse(command).params
        assert (asked["devices"], asked["key"]) == (2, REQUEST.trigger)
        assert asked["as_of"] == f"{DUE:%Y-%m-%d}"
        assert split(command)[0]["HOMEFEED_WORKSPACE"] == "file:///a%20place"


def test_each_time_that_a_question_is_put_it_is_told_and_without_approval_it_can_be_forced(
    tmp_path,
):
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna", "b*n")))
    config = smoke().model_copy(update={"promotion": asked})
    asking = make_run(tmp_path, config, champion=CHAMPION)
    outcome = outcome_of(asking, make_judgement(PROMOTE), None, SETTINGS)
    first, again, *others = (
        compose_wanted(asking, outcome, digest, DUE, times, SETTINGS)
        for digest, times in (("r", 1), ("r", 1), ("r", 2), ("s", 1))
    )
    assert first.identity() == again.identity()
    assert len({each.identity() for each in (first, *others)}) == 3
    label, page = first.links[0]
    assert label == "Approve or reject"
    assert page.startswith("http://air:8080/dags/homefeed_retrain/runs/")
    assert page.endswith("/tasks/approve_promotion/required_actions")
    for answer, by, severity in (("rejected", "anna", "info"), ("no answer", "", "warning")):
        approval = Approval(answer=answer, by=by, at=DUE, model="test_ranker v4", ruling_digest="r")
        alert = compose_not_approved(asking, outcome, approval, SETTINGS)
        assert (told_of(alert), alert.at) == (f"not_approved {severity}", DUE)
        assert names_in(alert.next_step) == "promote"
