"""A person is asked before a promotion where the recipe wants it, and the answer is kept."""

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
from pipelines.contracts.judgement import Approval, Decision, Judgement
from pipelines.contracts.run_layout import approval_uri
from pipelines.orchestration import approval
from pipelines.orchestration.approval import PromotionApproval
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


def judge_again(run: ResolvedRun) -> Judgement:
    judgement = make_judgement(Decision.PROMOTE, low=0.07)
    save_artifact(run, "compare_with_champion", judgement)
    return judgement


def execute(
    run: ResolvedRun, airflow: Questions, event: Any = None, began: datetime = BEGAN
) -> tuple[Any, dict[str, Any]]:
    """Run the task, or what follows an answer; return its result, and the XComs that it leaves."""
    left: dict[str, Any] = {}
    ti = airflow.task_instance(left)
    context = {"dag": DAG, "dag_run": SimpleNamespace(start_date=began)}
    context |= {"ti": ti, "task_instance": ti}
    task = PromotionApproval(task_id="approve_promotion", run_uri=run.run_uri)
    try:
        if event is None:
            return task.execute(context), left
        return task.execute_complete(context, event), left
    except AirflowSkipException as skipped:
        return skipped, left


def ask(run: ResolvedRun, airflow: Questions, began: datetime = BEGAN) -> timedelta:
    """Put the question, and return for how long Airflow waits."""
    with pytest.raises(TaskAwaitingInput) as caught:
        execute(run, airflow, began=began)
    assert caught.value.method_name == "execute_complete"
    return caught.value.timeout


def silence(option: str) -> dict[str, Any]:
    """Return what Airflow hands over where nobody has answered in time."""
    more = {"responded_by_user": None, "timedout": True, "params_input": {}}
    return {"chosen_options": [option], "responded_at": BEGAN + 2 * HOUR, **more}


def kept(run: ResolvedRun) -> Approval | None:
    uri = approval_uri(run.run_uri)
    return storage.read_model(uri, Approval) if storage.exists(uri) else None


def alerts(tmp_path: Path) -> list[str]:
    files = sorted((tmp_path / "workspace" / "outbox").glob("*.json"))
    receipts = [storage.read_model(storage.to_uri(file), AlertReceipt) for file in files]
    return [f"{each.alert.kind}: {each.alert.happened}" for each in receipts if each.alert]


def test_who_the_recipe_names_is_asked_with_the_outcome(tmp_path: Path, airflow: Questions) -> None:
    run, judgement = cycle(tmp_path, recipe(by=("anna", "ben"), within_hours=24))
    timeout, shown = ask(run, airflow), airflow.shown()
    assert "is promoted if a person approves" in shown.subject
    waits = "test\\_ranker v4 waits to be approved by anna or ben, for 24 h at most"
    assert waits in shown.body
    assert "Answer until 2026-01-06 06:00 UTC; without an answer the champion stays." in shown.body
    assert shown.options == ["Approve", "Reject"] and shown.defaults == ["Reject"]
    assert shown.params["verdict"]["value"] == judgement.ruling_digest
    assert shown.params["verdict"]["schema"]["const"] == judgement.ruling_digest  # it is hidden
    assert shown.assignees == [{"id": "anna", "name": "anna"}, {"id": "ben", "name": "ben"}]
    assert timeout == 23 * HOUR
    [told] = alerts(tmp_path)
    assert told.startswith("approval_wanted: test_ranker v4 is promoted if a person approves")


@pytest.mark.parametrize(
    ("within", "cadence_days", "expected"), [(24, 14, 23), (72, 14, 69), (24, 1, 21)]
)
def test_the_question_is_closed_before_the_run_ends_and_the_next_cycle_is_due(
    tmp_path: Path,
    airflow: Questions,
    monkeypatch: pytest.MonkeyPatch,
    within: float,
    cadence_days: float,
    expected: float,
) -> None:
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", str(cadence_days))
    run, _ = cycle(tmp_path, recipe(within_hours=within))
    assert ask(run, airflow) == expected * HOUR


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
    skipped, left = execute(run, airflow)
    assert "nobody has to approve" in str(skipped)
    assert left == {} and alerts(tmp_path) == [] and airflow.shown() is None


@pytest.mark.parametrize(
    ("option", "by", "answer", "sentence"),
    [
        ("Approve", "anna", "approved", "anna approved the promotion of test_ranker v4"),
        ("Reject", "anna", "rejected", "anna rejected the promotion of test_ranker v4"),
        ("Reject", "", "no answer", "Nobody approved test_ranker v4 in time"),
        ("Approve", "", "no answer", "Nobody approved test_ranker v4 in time"),
    ],
)
def test_the_answer_and_its_comment_are_kept_and_only_an_approval_is_green(
    tmp_path: Path, airflow: Questions, option: str, by: str, answer: str, sentence: str
) -> None:
    run, judgement = cycle(tmp_path, recipe())
    ask(run, airflow)
    comment = "  Tuesday's data\n# are <b>odd</b>. "
    at = BEGAN + 2 * HOUR
    event = airflow.answer(option, by, at, comment=comment) if by else silence(option)
    result, left = execute(run, airflow, event)
    found = kept(run)
    assert found is not None and (found.answer, found.at) == (answer, at)
    assert found.ruling_digest == judgement.ruling_digest
    assert found.comment == ("Tuesday's data # are <b>odd</b>." if by else "")
    assert sentence in left[NOTE_KEY][0].replace("\\", "")
    assert ("are &lt;b\\>odd" in left[NOTE_KEY][0]) == bool(by)
    told = [each for each in alerts(tmp_path) if each.startswith("not_approved")]
    if answer == "approved":
        assert result["by"] == "anna" and told == []
    else:
        assert isinstance(result, AirflowSkipException) and sentence in str(result)
        assert [each.startswith(f"not_approved: {sentence}") for each in told] == [True]
        assert found.comment in told[0]


def test_a_task_that_was_killed_after_the_answer_does_not_ask_again(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    execute(run, airflow, airflow.answer("Approve", "anna", BEGAN))
    airflow.clear()
    assert execute(run, airflow)[0]["by"] == "anna"


def test_an_answer_about_another_verdict_does_not_count(tmp_path: Path, airflow: Questions) -> None:
    run, _ = cycle(tmp_path, recipe())
    old = Approval(answer="approved", by="anna", at=BEGAN, model="v4", ruling_digest="another")
    storage.write_model(approval_uri(run.run_uri), old)
    ask(run, airflow)
    assert airflow.shown() is not None


@pytest.mark.parametrize("said", [{}, {"verdict": ""}])
def test_an_answer_counts_only_for_the_verdict_that_people_were_shown(
    tmp_path: Path, airflow: Questions, said: dict[str, str]
) -> None:
    run, _ = cycle(tmp_path, recipe())
    ask(run, airflow)
    event = airflow.answer("Approve", "anna", BEGAN + 2 * HOUR, **said)
    if not said:
        judge_again(run)  # while a person thought
    with pytest.raises(PromotionRefusedError, match="another verdict") as caught:
        execute(run, airflow, event)
    assert kept(run) is None
    for command in (new_cycle_command(run), force_command(run)):
        assert command in str(caught.value)


def test_a_task_that_is_cleared_asks_about_the_same_verdict_once_more_and_tells_so(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe(within_hours=24))
    ask(run, airflow)
    airflow.answer("Reject", "anna", BEGAN + 2 * HOUR)
    airflow.clear()  # before the task has written the answer down
    assert ask(run, airflow) == 23 * HOUR
    first, second = sorted(alerts(tmp_path), key=len)
    assert "by now" not in first
    assert "approval_wanted: Asked 2 times by now" in second
    assert "newest alert `approval_wanted`" in airflow.shown().body
    event = airflow.answer("Approve", "ben", BEGAN + 3 * HOUR)
    assert execute(run, airflow, event)[0]["by"] == "ben"


def test_without_time_left_nobody_is_asked_and_the_champion_stays(
    tmp_path: Path, airflow: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judgement = cycle(tmp_path, recipe(within_hours=72))
    old = Approval(answer="no answer", by="", at=BEGAN, model="v4", ruling_digest="another")
    storage.write_model(approval_uri(run.run_uri), old)
    for minutes in (0, 5):  # a retry finds what the first attempt has written and told
        now = BEGAN + 71 * HOUR + timedelta(minutes=minutes)
        monkeypatch.setattr(approval, "utc_now", lambda now=now: now)
        assert "Nobody approved test_ranker v4 in time" in str(execute(run, airflow)[0])
        found = kept(run)
        assert found is not None and found.ruling_digest == judgement.ruling_digest
        assert (found.answer, found.at) == ("no answer", BEGAN + 71 * HOUR)
    assert len(alerts(tmp_path)) == 1 and airflow.shown() is None


def test_a_run_that_is_cleared_gives_time_to_answer_again(
    tmp_path: Path, airflow: Questions
) -> None:
    run, _ = cycle(tmp_path, recipe(within_hours=24))
    ask(run, airflow)
    execute(run, airflow, silence("Reject"))
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
