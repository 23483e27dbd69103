"""A person is asked before a promotion where the recipe wants it, and the answer is kept."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowSkipException

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig, RunConfig
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.contracts.judged.approval import Approval, approval_uri
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.orchestration import approval
from pipelines.orchestration.approval import PromotionApproval, closes_at
from pipelines.orchestration.shown.keys import NOTE_KEY
from pipelines.orchestration.timetable import GridTimetable
from pipelines.recipes import smoke
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run, save_artifact, save_run

HOUR = timedelta(hours=1)
BEGAN = datetime(2026, 1, 5, 6, tzinfo=UTC)
DAG = SimpleNamespace(timetable=GridTimetable(BEGAN, 14 * 86400), dagrun_timeout=72 * HOUR)


class Asked(Exception):
    """Airflow has put the question."""


@pytest.fixture(autouse=True)
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own operator asks in a database that is not there."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setattr(approval, "utc_now", lambda: BEGAN + HOUR)

    def ask(self: HITLOperator, context: Any) -> None:
        raise Asked(self.subject, self.body, self.assigned_users, self.response_timeout)

    monkeypatch.setattr(HITLOperator, "execute", ask)


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


def task(run: ResolvedRun) -> tuple[PromotionApproval, dict[str, Any], dict[str, Any]]:
    """Return the task, its context, and the XComs that it leaves."""
    left: dict[str, Any] = {}
    context = {
        "dag": DAG,
        "dag_run": SimpleNamespace(start_date=BEGAN),
        "ti": SimpleNamespace(xcom_push=left.__setitem__),
    }
    return PromotionApproval(task_id="approve_promotion", run_uri=run.run_uri), context, left


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


def test_who_the_recipe_names_is_asked_with_the_outcome(tmp_path: Path) -> None:
    run, _ = cycle(tmp_path, recipe(by=("anna", "ben"), within_hours=24))
    asking, context, _ = task(run)
    with pytest.raises(Asked) as caught:
        asking.execute(context)
    subject, body, users, timeout = caught.value.args
    assert "is promoted if a person approves" in subject
    assert "test\\_ranker v4 waits to be approved by anna or ben, for at most 24 hours" in body
    assert "Answer until 2026-01-06 06:00 UTC; without an answer the champion stays." in body
    assert users == [{"id": "anna", "name": "anna"}, {"id": "ben", "name": "ben"}]
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
    tmp_path: Path, config: RunConfig, decision: Decision, may_promote: bool
) -> None:
    run, _ = cycle(tmp_path, config, decision, may_promote=may_promote)
    asking, context, left = task(run)
    with pytest.raises(AirflowSkipException, match="nobody has to approve"):
        asking.execute(context)
    assert left == {} and alerts(tmp_path) == []


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
    tmp_path: Path, event: dict[str, Any], answer: str, sentence: str
) -> None:
    run, judgement = cycle(tmp_path, recipe())
    asking, context, left = task(run)
    if answer == "approved":
        assert asking.execute_complete(context, event)["by"] == "anna"
        assert alerts(tmp_path) == []
    else:
        with pytest.raises(AirflowSkipException, match=sentence):
            asking.execute_complete(context, event)
        [told] = alerts(tmp_path)
        assert told.startswith(f"not_approved: {sentence}")
    kept = storage.read_model(approval_uri(run.run_uri), Approval)
    assert (kept.answer, kept.at) == (answer, event["responded_at"])
    assert kept.ruling_digest == judgement.ruling_digest
    assert sentence in left[NOTE_KEY][0].replace("\\", "")


def test_a_task_that_was_killed_after_the_answer_does_not_ask_again(tmp_path: Path) -> None:
    run, _ = cycle(tmp_path, recipe())
    asking, context, _ = task(run)
    asking.execute_complete(context, answered("Approve", "anna"))
    again, context, _ = task(run)
    assert again.execute(context)["by"] == "anna"


def test_an_answer_about_another_verdict_does_not_count(tmp_path: Path) -> None:
    run, _ = cycle(tmp_path, recipe())
    asking, context, _ = task(run)
    asking.execute_complete(context, answered("Approve", "anna"))
    save_artifact(run, "compare_with_champion", make_judgement(Decision.PROMOTE, low=0.07))
    with pytest.raises(Asked):
        asking.execute(context)


def test_without_time_left_nobody_is_asked_and_the_champion_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "utc_now", lambda: BEGAN + 71 * HOUR)
    run, _ = cycle(tmp_path, recipe(within_hours=72))
    asking, context, _ = task(run)
    with pytest.raises(AirflowSkipException, match="Nobody approved test_ranker v4 in time"):
        asking.execute(context)
    assert storage.read_model(approval_uri(run.run_uri), Approval).answer == "no answer"


def test_a_transport_that_fails_does_not_lose_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_ALERT_TRANSPORTS", '["smtp"]')
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://127.0.0.1:1")
    run, _ = cycle(tmp_path, recipe())
    asking, context, _ = task(run)
    with pytest.raises(Asked):
        asking.execute(context)
    assert len(alerts(tmp_path)) == 1  # the outbox keeps it for the next one


def test_an_option_of_promotion_changes_no_digest_of_recipes_without_it() -> None:
    assert "promotion" not in smoke().model_dump(mode="json")
    assert recipe().recipe_digest == smoke().recipe_digest
    assert RunConfig.model_validate(recipe().model_dump(mode="json")) == recipe()
