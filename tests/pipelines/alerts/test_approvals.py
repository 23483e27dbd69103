"""What is told where a promotion waits for a person, and where nobody approved it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.alerts.approvals import compose_not_approved, compose_wanted
from pipelines.alerts.next_step import after_failure
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.judged.alert import AlertKind
from pipelines.contracts.judged.approval import Approval
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.judgement import Decision
from pipelines.recipes import smoke
from pipelines.settings import Settings
from support.commands import parse
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run

UNTIL = datetime(2026, 1, 6, 6, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna", "b*n")))
    config = smoke().model_copy(update={"promotion": asked})
    return make_run(tmp_path, config, champion=CHAMPION)


def outcome_in(run: ResolvedRun, decision: Decision = Decision.PROMOTE) -> Outcome:
    return outcome_of(run, make_judgement(decision, low=0.01, high=0.09), None, Settings())


def test_the_outcome_promises_nothing_that_a_person_has_to_decide(run: ResolvedRun) -> None:
    outcome = outcome_in(run)
    assert outcome.title.startswith("test_ranker v4 is promoted if a person approves, ")
    assert "v3" in outcome.serves and "v4 takes its place if anna or b*n approves" in outcome.serves
    assert "waits to be approved by anna or b*n, for at most 24 hours" in outcome.done
    assert "task approve_promotion" in outcome.next_step.sentence


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_where_nothing_is_promoted_nobody_is_waited_for(
    run: ResolvedRun, decision: Decision
) -> None:
    plain = run.model_copy(update={"config": smoke()})
    assert outcome_in(run, decision) == outcome_in(plain, decision)


def test_an_answer_is_asked_for_with_the_place_and_the_time(run: ResolvedRun) -> None:
    alert = compose_wanted(run, outcome_in(run), UNTIL, Settings(airflow_url="http://air:8080"))
    assert alert.kind is AlertKind.APPROVAL_WANTED
    assert "waits to be approved until 2026-01-06 06:00 UTC" in alert.title
    label, page = alert.links[0]
    assert label == "Approve or reject"
    assert page.startswith("http://air:8080/dags/homefeed_retrain/runs/")
    assert page.endswith("/tasks/approve_promotion/required_actions")


def test_a_repeated_question_is_another_alert_though_its_time_is_the_same(
    run: ResolvedRun,
) -> None:
    first, second, third = (
        compose_wanted(run, outcome_in(run), UNTIL, Settings(), num_times)
        for num_times in (1, 2, 3)
    )
    assert first == compose_wanted(run, outcome_in(run), UNTIL, Settings())
    assert len({each.identity() for each in (first, second, third)}) == 3
    assert second.happened == (
        "Asked 2 times by now, because approve_promotion began anew. Whoever has answered has to "
        f"answer again.\n{first.happened}"
    )


@pytest.mark.parametrize(
    ("answer", "by", "said"),
    [("rejected", "anna", "anna rejected the promotion"), ("no answer", "", "Nobody approved")],
)
def test_a_promotion_that_was_not_approved_is_told_with_what_serves(
    run: ResolvedRun, answer: str, by: str, said: str
) -> None:
    approval = Approval(answer=answer, by=by, at=UNTIL, model="test_ranker v4", ruling_digest="r")
    alert = compose_not_approved(run, outcome_in(run), approval, Settings())
    assert alert.kind is AlertKind.NOT_APPROVED
    assert alert.happened.startswith(said) and "v3" in alert.serves
    commands = [parse(command) for _, command in alert.next_step.commands]
    assert [context.info_name for context in commands] == ["serving", "promote"]


def test_a_question_that_could_not_be_put_is_asked_again_by_clearing_it(run: ResolvedRun) -> None:
    step = after_failure(run, "approve_promotion", None)
    assert "clear approve_promotion in Airflow" in step.sentence and step.commands == ()
    assert "another verdict was shown, begin another cycle" in step.sentence
