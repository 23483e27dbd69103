"""A person is asked before a promotion where the recipe wants it, and the answer is kept."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput

from pipelines import storage
from pipelines.alerts.commands import force_command, new_cycle_command
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig, RunConfig
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judgement import Approval, Decision, Judgement, approval_uri
from pipelines.orchestration import approval
from pipelines.orchestration.approval import PromotionApproval, closes_at
from pipelines.orchestration.run_note import NOTE_KEY
from pipelines.recipes import smoke
from support.judgements import CHAMPION, make_judgement
from support.questions import Questions
from support.runs import make_run, save_artifact, save_run

HOUR = timedelta(hours=1)
BEGAN = datetime(2026, 1, 5, 6, tzinfo=UTC)
DAG = SimpleNamespace(dagrun_timeout=72 * HOUR)


@pytest.fixture(autouse=True)
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Questions:
    """Airflow's own table of questions; it is one hour after the run began."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setattr(approval, "utc_now", lambda: BEGAN + HOUR)
    return Questions(tmp_path, monkeypatch)


def recipe(**options: Any) -> RunConfig:
    asked = PromotionConfig(approval=ApprovalConfig(**options))
    return smoke().model_copy(update={"promotion": asked})


def cycle(
    tmp_path: Path, config: RunConfig, decision: Decision = Decision.PROMOTE, **more: Any
) -> tuple[ResolvedRun, Judgement]:
    run = save_run(make_run(tmp_path, config, champion=CHAMPION, **more))
    judgement = make_judgement(decision, low=0.01, high=0.09)
    save_artifact(run, "compare_with_champion", judgement)
    return run, judgement


def task(
    run: ResolvedRun, airflow: Questions, began: datetime = BEGAN
) -> tuple[PromotionApproval, dict[str, Any], dict[str, Any]]:
    """Return the task, its context, and the XComs that it leaves."""
    left: dict[str, Any] = {}
    ti = airflow.task_instance(left)
    context = {
        "dag": DAG,
        "dag_run": SimpleNamespace(start_date=began),
        "ti": ti,
        "task_instance": ti,
    }
    return PromotionApproval(task_id="approve_promotion", run_uri=run.run_uri), context, left


def ask(run: ResolvedRun, airflow: Questions, began: datetime = BEGAN) -> timedelta:
    """Put the question, and return for how long Airflow waits."""
    asking, context, _ = task(run, airflow, began)
    with pytest.raises(TaskAwaitingInput) as caught:
        asking.execute(context)
    assert caught.value.method_name == "execute_complete"
    return caught.value.timeout


def judge_again(run: ResolvedRun) -> Judgement:
    judgement = make_judgement(Decision.PROMOTE, low=0.07)
    save_artifact(run, "compare_with_champion", judgement)
    return judgement


def answered(option: str, name: str | None) -> dict[str, Any]:
    """Return what Airflow hands over; without a name nobody answered in time."""
    by = {"id": name, "name": name} if name else None
    at = BEGAN + 2 * HOUR
    more = {"responded_by_user": by, "timedout": by is None, "params_input": {}}
    return {"chosen_options": [option], "responded_at": at, **more}


def alerts(tmp_path: Path) -> list[str]:
    files = sorted((tmp_path / "workspace" / "outbox").glob("*.json"))
    receipts = [storage.read_model(storage.to_uri(file), AlertReceipt) for file in files]
    return [f"{each.alert.kind}: {each.alert.happened}" for each in receipts if each.alert]


@pytest.mark.parametrize(
    ("within", "run_ends", "next_due", "expected"),
    [(24, 72, 336, 24), (72, 72, 336, 70), (24, 72, 20, 18), (24, 72, 1, -1)],
)
def test_the_question_is_closed_before_the_run_ends_and_the_next_cycle_is_due(
    within: float, run_ends: float, next_due: float, expected: float
) -> None:
    found = closes_at(BEGAN, within * HOUR, BEGAN + run_ends * HOUR, BEGAN + next_due * HOUR)
    assert found == BEGAN + expected * HOUR


def test_who_the_recipe_names_is_asked_with_the_outcome(tmp_path: Path, airflow: Questions) -> None:
    run, judgement = cycle(tmp_path, recipe(by=("anna", "ben"), within_hours=24))
    timeout, shown = ask(run, airflow), airflow.shown()
    assert "is promoted if a person approves" in shown.subject
    waits = "test\\_ranker v4 waits to be approved by anna or ben, for at most 24 hours"
    assert waits in shown.body
    assert "Answer until 2026-01-06 06:00 UTC; without an answer the champion stays." in shown.body
    assert shown.options == ["Approve", "Reject"] and shown.defaults == ["Reject"]
    assert judgement.ruling_digest in shown.body
    assert shown.assignees == [{"id": "anna", "name": "anna"}, {"id": "ben", "name": "ben"}]
    assert timeout == 23 * HOUR
    [told] = alerts(tmp_path)
    assert told.startswith("approval_wanted: test_ranker v4 is promoted if a person approves")


@pytest.mark.parametrize(
    ("config", "decision", "may_promote"),
    [
        (smoke(), Decision.PROMOTE, True),
        (recipe(), Decision.REJECT, True),
        (recipe(), Decision.PROMOTE, False),
    ],
)
def test_nobody_is_asked_where_nothing_would_be_promoted_or_the_recipe_does_not_want_it(
    tmp_path: Path, airflow: Questions, config: RunConfig, decision: Decision, may_promote: bool
) -> None:
    run, _ = cycle(tmp_path, config, decision, may_promote=may_promote)
    asking, context, left = task(run, airflow)
    with pytest.raises(AirflowSkipException, match="nobody has to approve"):
        asking.execute(context)
    assert left == {} and alerts(tmp_path) == [] and airflow.shown() is None


@pytest.mark.parametrize(
    ("event", "answer", "sentence"),
    [
        (answered("Approve", "anna"), "approved", "anna approved the promotion of test_ranker v4"),
        (answered("Reject", "anna"), "rejected", "anna rejected the promotion of test_ranker v4"),
        (answered("Reject", None), "no answer", "Nobody approved test_ranker v4 in time"),
        (answered("Approve", None), "no answer", "Nobody approved test_ranker v4 in time"),
    ],
)
def test_the_answer_is_kept_and_only_an_approval_is_green(
    tmp_path: Path, airflow: Questions, event: dict[str, Any], answer: str, sentence: str
) -> None:
    run, judgement = cycle(tmp_path, recipe())
    ask(run, airflow)
    asking, context, left = task(run, airflow)
    if answer == "approved":
        assert asking.execute_complete(context, event)["by"] == "anna"
        assert len(alerts(tmp_path)) == 1  # the one that asks
    else:
        with pytest.raises(AirflowSkipException, match=sentence):
            asking.execute_complete(context, event)
        [told] = [each for each in alerts(tmp_path) if each.startswith("not_approved")]
        assert told.startswith(f"not_approved: {sentence}")
    kept = storage.read_model(approval_uri(run.run_uri), Approval)
    assert (kept.answer, kept.at) == (answer, event["responded_at"])
    assert kept.ruling_digest == judgement.ruling_digest
    assert sentence in left[NOTE_KEY][0].replace("\\", "")


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_what_a_person_says_to_it_is_kept_and_told(
    tmp_path: Path, airflow: Questions, option: str
) -> None:
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    assert "comment" in airflow.shown().params  # the form asks for it
    asking, context, left = task(run, airflow)
    said = {"comment": "  Tuesday's data\n# are <b>odd</b>. "}
    with contextlib.suppress(AirflowSkipException):
        asking.execute_complete(context, answered(option, "anna") | {"params_input": said})
    kept = storage.read_model(approval_uri(run.run_uri), Approval)
    assert kept.comment == "Tuesday's data # are <b>odd</b>."
    assert kept.sentence.endswith(f'UTC, saying: "{kept.comment}".')
    assert "are &lt;b\\>odd" in left[NOTE_KEY][0]
    rejections = [each for each in alerts(tmp_path) if each.startswith("not_approved")]
    assert [kept.comment in each for each in rejections] == [True] * (option == "Reject")


@pytest.mark.parametrize(("found", "expected"), [(None, ""), ("x" * 9000, 500)])
def test_a_comment_may_be_missing_and_is_not_a_book(
    tmp_path: Path, airflow: Questions, found: str | None, expected: Any
) -> None:
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    asking, context, _ = task(run, airflow)
    event = answered("Approve", "anna") | {"params_input": {"comment": found}}
    comment = asking.execute_complete(context, event)["comment"]
    assert expected in (comment, len(comment))


def test_a_task_that_was_killed_after_the_answer_does_not_ask_again(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    asking, context, _ = task(run, airflow)
    asking.execute_complete(context, answered("Approve", "anna"))
    airflow.clear()
    again, context, _ = task(run, airflow)
    assert again.execute(context)["by"] == "anna"


def test_an_answer_about_another_verdict_does_not_count(tmp_path: Path, airflow: Questions) -> None:
    run, _ = cycle(tmp_path, recipe())
    old = Approval(answer="approved", by="anna", at=BEGAN, model="v4", ruling_digest="another")
    storage.write_model(approval_uri(run.run_uri), old)
    ask(run, airflow)
    assert airflow.shown() is not None


def test_after_another_verdict_nobody_is_asked_on_a_page_that_shows_the_old_one(
    tmp_path: Path, airflow: Questions
) -> None:
    run, judgement = cycle(tmp_path, recipe(by=("anna",)))
    ask(run, airflow)
    judge_again(run)
    airflow.clear()
    asking, context, left = task(run, airflow)
    with pytest.raises(PromotionRefusedError) as caught:
        asking.execute(context)
    assert judgement.ruling_digest in airflow.shown().body  # Airflow keeps what it has shown
    assert "another verdict" in str(caught.value)
    for command in (new_cycle_command(run), force_command(run)):
        assert command in str(caught.value)
    assert len(alerts(tmp_path)) == 1 and left == {}
    assert not storage.exists(approval_uri(run.run_uri))


def test_a_verdict_that_came_while_a_person_answered_is_not_approved_by_the_answer(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    judge_again(run)
    event = airflow.answer("Approve", "anna", BEGAN + 2 * HOUR)
    asking, context, _ = task(run, airflow)
    with pytest.raises(PromotionRefusedError, match="another verdict"):
        asking.execute_complete(context, event)
    assert not storage.exists(approval_uri(run.run_uri))


def test_an_answer_without_a_record_of_what_was_asked_counts_for_nothing(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe())
    asking, context, _ = task(run, airflow)
    with pytest.raises(PromotionRefusedError, match="no record of a question"):
        asking.execute_complete(context, answered("Approve", "anna"))
    assert not storage.exists(approval_uri(run.run_uri))


@pytest.mark.parametrize("column", ["body", "assignees"])
def test_a_question_that_is_not_ours_is_not_waited_for(
    tmp_path: Path, airflow: Questions, column: str
) -> None:
    run, _ = cycle(tmp_path, recipe(by=("anna",)))
    ask(run, airflow)
    airflow.alter(**{column: "May it?" if column == "body" else [{"id": "eve", "name": "eve"}]})
    asking, context, _ = task(run, airflow)
    with pytest.raises(PromotionRefusedError, match="found .*(May it|eve)"):
        asking.execute(context)


def test_a_task_that_is_cleared_asks_about_the_same_verdict_once_more_and_tells_so(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe(within_hours=24))
    ask(run, airflow)
    event = airflow.answer("Reject", "anna", BEGAN + 2 * HOUR)
    airflow.clear()  # before the task has written the answer down
    assert event["responded_by_user"] and ask(run, airflow) == 23 * HOUR
    first, second = sorted(alerts(tmp_path), key=len)
    assert "by now" not in first
    assert "approval_wanted: Asked 2 times by now, because approve_promotion began anew" in second
    assert "newest alert `approval_wanted`" in airflow.shown().body
    event = airflow.answer("Approve", "ben", BEGAN + 3 * HOUR)
    asking, context, _ = task(run, airflow)
    assert asking.execute_complete(context, event)["by"] == "ben"


def test_where_airflow_shows_nothing_any_more_another_verdict_is_asked_about_for_the_first_time(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe(by=("anna",)))
    ask(run, airflow)
    judgement = judge_again(run)
    airflow.forget()  # the run was deleted in Airflow and started again
    ask(run, airflow)
    assert judgement.ruling_digest in airflow.shown().body
    told = alerts(tmp_path)
    assert len(told) == 2 and "by now" not in "".join(told)
    event = airflow.answer("Approve", "anna", BEGAN + 2 * HOUR)
    asking, context, _ = task(run, airflow)
    asking.execute_complete(context, event)
    kept = storage.read_model(approval_uri(run.run_uri), Approval)
    assert kept.is_given and kept.ruling_digest == judgement.ruling_digest


def test_without_time_left_nobody_is_asked_and_the_champion_stays(
    tmp_path: Path, airflow: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = cycle(tmp_path, recipe(within_hours=72))
    for minutes in (0, 5):  # a retry finds what the first attempt has written and told
        now = BEGAN + 71 * HOUR + timedelta(minutes=minutes)
        monkeypatch.setattr(approval, "utc_now", lambda now=now: now)
        asking, context, _ = task(run, airflow)
        with pytest.raises(AirflowSkipException, match="Nobody approved test_ranker v4 in time"):
            asking.execute(context)
        kept = storage.read_model(approval_uri(run.run_uri), Approval)
        assert (kept.answer, kept.at) == ("no answer", BEGAN + 71 * HOUR)
    assert len(alerts(tmp_path)) == 1 and airflow.shown() is None


def test_no_answer_about_another_verdict_is_not_taken_for_that_about_this_one(
    tmp_path: Path, airflow: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "utc_now", lambda: BEGAN + 71 * HOUR)
    run, judgement = cycle(tmp_path, recipe())
    old = Approval(answer="no answer", by="", at=BEGAN, model="v4", ruling_digest="another")
    storage.write_model(approval_uri(run.run_uri), old)
    asking, context, _ = task(run, airflow)
    with pytest.raises(AirflowSkipException):
        asking.execute(context)
    kept = storage.read_model(approval_uri(run.run_uri), Approval)
    assert kept.ruling_digest == judgement.ruling_digest


def test_a_run_that_is_cleared_gives_time_to_answer_again(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe(within_hours=24))
    ask(run, airflow)
    asking, context, _ = task(run, airflow)
    with pytest.raises(AirflowSkipException):
        asking.execute_complete(context, answered("Reject", None))
    airflow.clear()
    assert ask(run, airflow, began=BEGAN + HOUR) == 24 * HOUR


def test_a_transport_that_fails_does_not_lose_the_question(
    tmp_path: Path, airflow: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_ALERT_TRANSPORTS", '["smtp"]')
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://127.0.0.1:1")
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    assert len(alerts(tmp_path)) == 1  # the outbox keeps it for the next one


def test_an_option_of_promotion_changes_no_digest_of_recipes_without_it() -> None:
    assert recipe().recipe_digest == smoke().recipe_digest
    assert RunConfig.model_validate(recipe().model_dump(mode="json")) == recipe()
