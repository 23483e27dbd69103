"""Writes into a run's note what became of the cycle: the verdict's words, or what broke.

Airflow has no call by which a task could write a note. So the task that knows the words leaves them
in an XCom, and the scheduler, which hears of the run's end, writes them. Not for the words
(`pipelines.orchestration.shown.words`). Tested in
tests/pipelines/orchestration/shown/test_run_note.py, and in a browser in
tests/pipelines/local/test_real_browser.py.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from airflow.listeners import hookimpl

from pipelines.orchestration.shown.keys import FAILURE_KEY, NOTE_KEY, broke_at
from pipelines.settings import DAG_ID, Settings

log = logging.getLogger(__name__)

JUDGING, ASKING = "compare_with_champion", "approve_promotion"


def _harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """Make a hook of ours end well whatever happens in it.

    A note is worth neither a cycle nor the scheduler, in which these hooks run, so here, and
    nowhere else, every exception is caught.
    """

    @functools.wraps(hook)
    def told(*args: Any, **values: Any) -> None:
        try:
            hook(*args, **values)
        except Exception:
            log.warning("the run's note is not written", exc_info=True)

    return told


class RunNotes:
    """Airflow's listener: its tasks leave words, its scheduler writes them into the note."""

    @hookimpl
    @_harmless
    def on_task_instance_success(self, task_instance: Any) -> None:
        """Leave the outcome's words, in the worker whose task has judged the cycle."""
        if _is_ours(task_instance) and task_instance.task_id == JUDGING:
            _leave_outcome(task_instance)

    @hookimpl
    @_harmless
    def on_task_instance_failed(self, task_instance: Any) -> None:
        """Leave what broke, in the worker whose task has failed."""
        if _is_ours(task_instance):
            _leave_failure(task_instance)

    @hookimpl
    @_harmless
    def on_dag_run_success(self, dag_run: Any) -> None:
        """Write the note of a run that has ended well."""
        _write_when_committed(dag_run, "")

    @hookimpl
    @_harmless
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """Write the note of a run that has failed; `msg` is Airflow's word for how."""
        _write_when_committed(dag_run, msg or "failed")


def _is_ours(ti: Any) -> bool:
    """Return whether a task of a cycle runs here; a row of a table is one that a person marked."""
    return ti.dag_id == DAG_ID and not hasattr(ti, "__table__")


def _leave_outcome(ti: Any) -> None:
    from pipelines.contracts.judgement import Judgement
    from pipelines.orchestration.shown.words import told_of
    from pipelines.stages.runner import read_artifact

    resolved = ti.xcom_pull(task_ids="resolve_run")
    judged = read_artifact(resolved["run_uri"], ti.task_id, Judgement)
    if judged.outcome is not None:
        ti.xcom_push(NOTE_KEY, told_of(judged.outcome))


def _leave_failure(ti: Any) -> None:
    from pipelines.alerts.compose import alert_about_failure, compose_unresolved
    from pipelines.contracts.judged.alert import NextStep
    from pipelines.orchestration.shown.words import told_of_failure

    if ti.task_id != "resolve_run":
        resolved = ti.xcom_pull(task_ids="resolve_run")
        where, since = resolved["run_uri"], ti.start_date
        alert = alert_about_failure(where, Settings(), ti.task_id, "task_failure", since)
    elif left := ti.xcom_pull(task_ids="resolve_run", key=FAILURE_KEY):
        step = NextStep.model_validate(left["next_step"])
        alert = compose_unresolved(ti.run_id, left["message"], step, Settings(), at=broke_at(left))
    else:
        return
    if alert is not None:
        ti.xcom_push(NOTE_KEY, told_of_failure(alert))


def _write_when_committed(dag_run: Any, failed_by: str) -> None:
    """Write the note of a run as soon as the transaction that ends the run is through.

    Whatever may go wrong with a note, such as a person who writes one at the same instant, must not
    undo that transaction: it is the scheduler's, about all runs.

    Args:
        dag_run: The run, in the session in which its state was changed.
        failed_by: Airflow's word for the failure; '' for a run that ended well.
    """
    from sqlalchemy import event, inspect

    session = inspect(dag_run).session
    if dag_run.dag_id != DAG_ID or session is None:
        return
    write = functools.partial(_write, dag_run.id, failed_by)
    event.listen(session, "after_commit", lambda _: _harmless(write)(), once=True)


def _write(run: int, failed_by: str) -> None:
    from airflow.models.dagrun import DagRun, DagRunNote
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from pipelines.orchestration.shown.words import merged

    with create_session(scoped=False) as session:
        told = _told(session, run, failed_by)
        found = select(DagRunNote).where(DagRunNote.dag_run_id == run).with_for_update()
        note = session.scalar(found)
        before = (note.content or "") if note is not None else ""
        text = merged(before, told)
        if text == before:
            return
        if note is not None:
            note.content = text
        elif (row := session.get(DagRun, run)) is not None:
            row.note = text


def _told(session: Any, run: int, failed_by: str) -> Sequence[str]:
    """Return the paragraphs of a run's note: what broke, then the outcome, as far as is known."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    left = select(XComModel).where(XComModel.dag_run_id == run, XComModel.key == NOTE_KEY)
    words = {each.task_id: _paragraphs(each.value) for each in session.scalars(left)}
    outcome = [*words.get(ASKING, []), *words.get(JUDGING, [])]
    if not failed_by:
        return outcome
    tasks = select(TaskInstance).where(
        TaskInstance.dag_run.has(id=run), TaskInstance.state == TaskInstanceState.FAILED
    )
    failed = [each.task_id for each in session.scalars(tasks.order_by(TaskInstance.end_date))]
    broken = [
        text
        for name in failed
        for text in words.get(name) or [f"**BROKEN**: {name} left no reason; its log shows more."]
    ]
    return [*(broken or [f"**BROKEN**: the run failed: {failed_by}."]), *outcome]


def _paragraphs(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
