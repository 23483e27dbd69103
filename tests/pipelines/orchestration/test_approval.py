"""A person is asked before a promotion where the recipe wants it, and the answer is kept."""

import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.api_fastapi.execution_api.datamodels.hitl import HITLDetailRequest
from airflow.api_fastapi.execution_api.routes.hitl import upsert_hitl_detail
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.api.datamodels import _generated as of_client
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload, HITLDetailRequestResult
from sqlalchemy.orm import Session

from pipelines import storage
from pipelines.alerts.commands import force_command, new_cycle_command
from pipelines.alerts.transports import read_outbox
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judgement import Approval, Decision
from pipelines.contracts.run_layout import approval_uri
from pipelines.orchestration import approval
from pipelines.orchestration.approval import PromotionApproval
from pipelines.orchestration.run_note import NOTE_KEY
from pipelines.recipes import smoke
from pipelines.settings import Settings
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run, save_artifact, save_run

HOUR = timedelta(hours=1)
BEGAN = datetime(2026, 1, 5, 6, tzinfo=UTC)
TASKS = TaskInstance.__table__
OLD = Approval(answer="approved", by="anna", at=BEGAN, model="v4", ruling_digest="another")


class Questions:
    """Airflow's own table of questions, with those of one task instance.

    A task instance that is cleared or tried again gets a new id, and its question's row follows it.

    Args:
        folder: Where the database lies.
        patch: Makes tasks of this process send what they ask here.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.engine = sa.create_engine(f"sqlite:///{folder / 'questions.db'}")
        tables = [TASKS, DagRun.__table__, HITLDetail.__table__]  # a row is read with its run
        Base.metadata.create_all(self.engine, tables=tables)
        self.ti_id, self.try_number = uuid.uuid4(), 1
        with self.engine.begin() as connection:
            connection.execute(TASKS.insert().values(id=self.ti_id, **_required_values()))
        patch.setattr(task_runner, "SUPERVISOR_COMMS", self, raising=False)

    def send(self, msg: CreateHITLDetailPayload) -> HITLDetailRequestResult:
        """Put a question as the supervisor does for a task, and return what it hands back."""
        with Session(self.engine) as session:
            request = HITLDetailRequest.model_validate_json(msg.model_dump_json(exclude={"type"}))
            there = upsert_hitl_detail(msg.ti_id, request, session).model_dump_json()
            session.commit()
        found = of_client.HITLDetailRequest.model_validate_json(there)
        return HITLDetailRequestResult.from_api_response(found)

    def clear(self) -> None:
        """Begin the task anew, as Airflow does where it is cleared or tried again."""
        before, self.ti_id, self.try_number = self.ti_id, uuid.uuid4(), self.try_number + 1
        with self.engine.connect() as connection:
            connection.execute(sa.text("PRAGMA foreign_keys=ON"))
            connection.execute(TASKS.update().where(TASKS.c.id == before).values(id=self.ti_id))
            connection.commit()

    def shown(self) -> Any:
        """Return the row that people see; None where nothing was asked."""
        row = HITLDetail.__table__
        with self.engine.connect() as connection:
            return connection.execute(sa.select(row).where(row.c.ti_id == self.ti_id)).first()

    def answer(self, option: str, by: str, at: datetime, **said: Any) -> dict[str, Any]:
        """Answer what is shown as a person does, and return what Airflow hands to the task."""
        with Session(self.engine) as session:
            row = session.get_one(HITLDetail, self.ti_id)
            row.responded_at, row.chosen_options = at, [option]
            row.responded_by = {"id": by, "name": by}
            row.params_input = {name: each["value"] for name, each in row.params.items()} | said
            event = row.as_resume_event_payload()
            session.commit()
        return event


def _required_values() -> dict[str, Any]:
    """Return something for each column of a task instance that must not be empty."""
    values: dict[str, Any] = {}
    for column in TASKS.columns:
        if not column.nullable and column.name not in ("id", "executor_config"):
            is_text = isinstance(column.type, sa.String | sa.Text)
            values[column.name] = "x" if is_text else 0
            if "JSON" in type(column.type).__name__.upper():
                values[column.name] = {}
    return values


class Cycle:
    """A judged cycle, the task that asks about it, and Airflow's own table of questions."""

    def __init__(self, folder: Path, patch: Any, options: Any, **more: Any) -> None:
        self.airflow = Questions(folder, patch)
        asked = PromotionConfig(approval=options and ApprovalConfig(**options))
        recipe = smoke().model_copy(update={"promotion": asked})
        self.run = save_run(make_run(folder, recipe, champion=CHAMPION, **more))
        self.judge(Decision.PROMOTE)

    def judge(self, decision: Decision, **changes: float) -> None:
        self.judgement = make_judgement(decision, **changes)
        save_artifact(self.run, "compare_with_champion", self.judgement)

    def execute(self, event: Any = None) -> Any:
        """Run the task, or what follows an answer; return its result, or how it is skipped."""
        self.left: dict[str, Any] = {}  # the XComs
        known = {"id": self.airflow.ti_id, "try_number": self.airflow.try_number}
        ti = SimpleNamespace(**known, xcom_push=self.left.__setitem__)
        context = {"ti": ti, "task_instance": ti, "dag_run": SimpleNamespace(start_date=BEGAN)}
        context["dag"] = SimpleNamespace(dagrun_timeout=72 * HOUR)
        task = PromotionApproval(task_id="approve_promotion", run_uri=self.run.run_uri)
        try:
            return task.execute_complete(context, event) if event else task.execute(context)
        except AirflowSkipException as skipped:
            return skipped

    def ask(self) -> float:
        """Put the question, and return for how many hours Airflow waits."""
        with pytest.raises(TaskAwaitingInput) as caught:
            self.execute()
        assert caught.value.method_name == "execute_complete"
        return caught.value.timeout / HOUR

    def answer(self, option: str, by: str, **said: str) -> dict[str, Any]:
        """Return what Airflow hands over after an answer, or where there was none in time."""
        at = BEGAN + 2 * HOUR
        if by:
            return self.airflow.answer(option, by, at, **said)
        more = {"responded_by_user": None, "timedout": True, "params_input": {}}
        return {"chosen_options": [option], "responded_at": at, **more}

    @property
    def kept(self) -> Approval:
        """Return the answer that is kept, and see that it is about the verdict."""
        found = storage.read_model(approval_uri(self.run.run_uri), Approval)
        assert found.ruling_digest == self.judgement.ruling_digest
        return found

    @property
    def alerts(self) -> list[str]:
        return [f"{each.kind}: {each.happened}" for _, each in read_outbox(Settings())]


@pytest.fixture
def cycle(home: Path, monkeypatch: pytest.MonkeyPatch) -> partial[Cycle]:
    """Make a cycle whose recipe asks with such options; it is one hour after the run began."""
    monkeypatch.setattr(approval, "utc_now", lambda: BEGAN + HOUR)
    return partial(Cycle, home, monkeypatch)


def test_who_the_recipe_names_is_asked_with_the_outcome_and_anew_where_the_task_is_cleared(cycle):
    asked = cycle({"by": ("anna", "ben"), "within_hours": 24})
    storage.write_model(approval_uri(asked.run.run_uri), OLD)  # about another verdict
    assert asked.ask() == 24
    shown = asked.airflow.shown()
    assert "is promoted if a person approves" in shown.subject
    waits = "test\\_ranker v4 waits to be approved by anna or ben, for 24 h at most"
    assert waits in shown.body and "newest alert `approval_wanted`" in shown.body
    assert "Answer until 2026-01-06 07:00 UTC; without an answer the champion stays." in shown.body
    assert shown.options == ["Approve", "Reject"] and shown.defaults == ["Reject"]
    verdict = shown.params["verdict"]
    assert verdict["value"] == verdict["schema"]["const"] == asked.judgement.ruling_digest  # hidden
    assert shown.assignees == [{"id": "anna", "name": "anna"}, {"id": "ben", "name": "ben"}]
    asked.answer("Reject", "anna")
    asked.airflow.clear()  # before the task has written the answer down
    assert asked.ask() == 24
    wanted = "approval_wanted: test_ranker v4 is promoted if a person approves"
    assert [told.startswith(wanted) for told in asked.alerts] == [True, True]
    assert asked.execute(asked.answer("Approve", "ben"))["by"] == "ben"


@pytest.mark.parametrize(("within", "cadence_days", "expected"), [(72, 14, 69), (24, 1, 21)])
def test_the_question_is_closed_before_the_run_ends_and_the_next_cycle_is_due(
    cycle, monkeypatch, within, cadence_days, expected
):
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", str(cadence_days))
    # A transport that fails does not lose the question: the outbox keeps it for the next one.
    monkeypatch.setenv("HOMEFEED_ALERT_TRANSPORTS", '["smtp"]')
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://127.0.0.1:1")
    asked = cycle({"within_hours": within})
    assert asked.ask() == expected
    assert len(asked.alerts) == 1


@pytest.mark.parametrize(
    ("options", "decision", "may_promote"),
    [(None, Decision.PROMOTE, True), ({}, Decision.REJECT, True), ({}, Decision.PROMOTE, False)],
)
def test_nobody_is_asked_where_nothing_would_be_promoted_or_the_recipe_does_not_want_it(
    cycle, options, decision, may_promote
):
    asked = cycle(options, may_promote=may_promote)
    asked.judge(decision)
    assert "nobody has to approve" in str(asked.execute())
    assert asked.left == {} and asked.alerts == [] and asked.airflow.shown() is None


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
    cycle, option, by, answer, sentence
):
    asked = cycle({})
    asked.ask()
    result = asked.execute(asked.answer(option, by, comment="  Tuesday's data\n# are <b>odd</b>. "))
    found, note = asked.kept, asked.left[NOTE_KEY]
    assert (found.answer, found.at) == (answer, BEGAN + 2 * HOUR)
    assert found.comment == ("Tuesday's data # are <b>odd</b>." if by else "")
    assert sentence in note.replace("\\", "")
    assert ("are &lt;b\\>odd" in note) == bool(by)
    told = [each for each in asked.alerts if each.startswith("not_approved")]
    if answer == "approved":
        assert result["by"] == "anna" and told == []
        asked.airflow.clear()  # as after a kill: nobody is asked again
        assert asked.execute()["by"] == "anna"
    else:
        assert isinstance(result, AirflowSkipException) and sentence in str(result)
        assert [each.startswith(f"not_approved: {sentence}") for each in told] == [True]
        assert found.comment in told[0]


@pytest.mark.parametrize("said", [{}, {"verdict": ""}])
def test_an_answer_counts_only_for_the_verdict_that_people_were_shown(cycle, said):
    asked = cycle({})
    asked.ask()
    event = asked.answer("Approve", "anna", **said)
    if not said:
        asked.judge(Decision.PROMOTE, low=0.07)  # while a person thought
    with pytest.raises(PromotionRefusedError, match="counts for nothing") as caught:
        asked.execute(event)
    assert not storage.exists(approval_uri(asked.run.run_uri))
    for command in (new_cycle_command(asked.run), force_command(asked.run)):
        assert command in str(caught.value)


def test_without_time_left_nobody_is_asked_and_the_champion_stays(cycle, monkeypatch):
    asked = cycle({"within_hours": 72})
    for minutes in (0, 5):  # a retry writes and tells what the first attempt did
        now = BEGAN + 71 * HOUR + timedelta(minutes=minutes)
        monkeypatch.setattr(approval, "utc_now", lambda now=now: now)
        assert "Nobody approved test_ranker v4 in time" in str(asked.execute())
        assert (asked.kept.answer, asked.kept.at) == ("no answer", BEGAN + 70 * HOUR)
    assert len(asked.alerts) == 1 and asked.airflow.shown() is None
