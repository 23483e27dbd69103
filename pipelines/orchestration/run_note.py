"""Writes into a run's note what became of the cycle: the verdict's words, or what broke.

Airflow has no call by which a task could write a note. So the task that knows the words leaves them
in an XCom, and the scheduler, which hears of the run's end, writes them. An exception in one of
these hooks is logged by Airflow and harms no run.
"""

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from pipelines.settings import DAG_ID, Settings

if TYPE_CHECKING:
    from pipelines.contracts.alert import Alert
    from pipelines.contracts.judgement import Outcome

log = logging.getLogger(__name__)
NOTE_KEY = "run_note"
"""XCom key under which a task leaves its part of the run's note: paragraphs of Markdown."""
JUDGING, ASKING = "compare_with_champion", "approve_promotion"
LIMIT = 1000
"""Characters of a note that Airflow keeps."""
SIGNATURE = "— homefeed_retrain"
"""Ends what is ours: the rest of a note is a person's."""
_OURS = re.compile(
    r"^\*\*(?:PROMOTE|REJECT|INCONCLUSIVE|BROKEN|APPROVED|NOT APPROVED)\*\*: .*?"
    rf"^{re.escape(SIGNATURE)}$\n*",
    re.DOTALL | re.MULTILINE,
)


def told_of(outcome: "Outcome") -> list[str]:
    """Return a cycle's outcome as paragraphs of Markdown, what matters most first.

    Of the first one Airflow's page shows the beginning, of the others nothing before a click.
    """
    from pipelines.alerts.links import IN_MLFLOW, PAGE_IN_MLFLOW
    from pipelines.plain_text import as_markdown, link_target

    def linked(label: str) -> str:
        """Return a link of Markdown, or both as text where the address may not be one."""
        if not (uri := shown.get(label, "")):
            return ""
        if link_target(uri) and "<" not in uri and ">" not in uri:
            return f"[{as_markdown(label)}](<{uri}>)"
        return f"{as_markdown(label)}: {as_markdown(uri)}"

    shown = dict(outcome.links)
    page = linked(PAGE_IN_MLFLOW) or linked(IN_MLFLOW) or linked("Verdict page")
    comparison = linked(IN_MLFLOW) if PAGE_IN_MLFLOW in shown else ""
    said = (outcome.done, outcome.next_step.sentence, outcome.most_hurt, *outcome.warnings)
    paragraphs = (
        f"**{outcome.decision}**: {_line(outcome.title, 300)}",
        f"**{as_markdown(outcome.serves)}**",
        page,
        *map(as_markdown, (outcome.number, outcome.why)),
        comparison,
        *map(as_markdown, said),
    )
    return [each for each in paragraphs if each]


def told_of_failure(alert: "Alert") -> list[str]:
    """Return what is told of a broken run as paragraphs of Markdown, what broke first."""
    from pipelines.plain_text import as_markdown

    said = (as_markdown(alert.done), as_markdown(alert.next_step.sentence))
    first = (f"**BROKEN**: {_line(alert.title, 300)}", _line(alert.happened, 500))
    return [each for each in (*first, *said) if each]


def _line(text: str, most: int) -> str:
    """Return a text as one line of Markdown, cut after so many characters."""
    from pipelines.plain_text import as_markdown, one_line

    line = one_line(text)
    return as_markdown(line if len(line) <= most else f"{line[: most - 1]}…")


def merged(before: str, told: Sequence[str]) -> str:
    """Return a run's note with what is told of the run, and all that people wrote into it.

    What an earlier end of the same run left is replaced.

    Args:
        before: The note as it is; '' for none.
        told: Paragraphs of Markdown, the most important first; those that find no room are left
            out. Where the first finds none, a person's note stays alone.
    """
    kept = _OURS.sub("", before).strip()
    room = LIMIT - len(SIGNATURE) - (len(kept) + 2 if kept else 0)
    fitting: list[str] = []
    for paragraph in told:
        if len(paragraph) + 2 <= room:
            fitting.append(paragraph)
            room -= len(paragraph) + 2
        elif not fitting:
            return kept
    return "\n\n".join([*([kept] if kept else []), *fitting, *([SIGNATURE] if fitting else [])])


class RunNotes:
    """Airflow's listener: its tasks leave words, its scheduler writes them into the note."""

    @hookimpl
    def on_task_instance_success(self, task_instance: Any) -> None:
        """Leave the outcome's words, in the worker whose task has judged the cycle."""
        from pipelines.contracts.judgement import Judgement
        from pipelines.stages.runner import read_artifact

        ti = task_instance
        if _is_ours(ti) and ti.task_id == JUDGING:
            run_uri = ti.xcom_pull(task_ids="resolve_run")["run_uri"]
            if outcome := read_artifact(run_uri, JUDGING, Judgement).outcome:
                ti.xcom_push(NOTE_KEY, told_of(outcome))

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any) -> None:
        """Leave what broke, in the worker whose task has failed."""
        from pipelines.alerts.compose import Ended, alert_about_failure, compose_unresolved
        from pipelines.orchestration.resolving import unresolved_of

        ti, alert = task_instance, None
        if not _is_ours(ti):
            return
        if ti.task_id != "resolve_run":
            run_uri = ti.xcom_pull(task_ids="resolve_run")["run_uri"]
            ended = Ended(ti.task_id, "task_failure", ti.start_date)
            alert = alert_about_failure(run_uri, Settings(), ended)
        elif left := unresolved_of(ti):
            alert = compose_unresolved(ti.run_id, left, Settings())
        if alert is not None:
            ti.xcom_push(NOTE_KEY, told_of_failure(alert))

    @hookimpl
    def on_dag_run_success(self, dag_run: Any) -> None:
        """Write the note of a run that has ended well."""
        _write_when_committed(dag_run, "")

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """Write the note of a run that has failed; `msg` is Airflow's word for how."""
        _write_when_committed(dag_run, msg or "failed")


def _is_ours(ti: Any) -> bool:
    """Return whether a task of a cycle runs here; a row of a table is one that a person marked."""
    return ti.dag_id == DAG_ID and not hasattr(ti, "__table__")


def _write_when_committed(dag_run: Any, failed_by: str) -> None:
    """Write the note of a run as soon as the transaction that ends the run is through.

    Whatever may go wrong with a note, such as a person who writes one at the same instant, must not
    undo that transaction: it is the scheduler's, about all runs.

    Args:
        dag_run: The run, in the session in which its state was changed.
        failed_by: Airflow's word for the failure; '' for a run that ended well.
    """
    from sqlalchemy import event, inspect

    session, run = inspect(dag_run).session, dag_run.id

    def write(_: Any) -> None:
        try:
            _write(run, failed_by)
        except Exception:  # A note is worth neither a cycle nor the scheduler, which runs this.
            log.warning("the run's note is not written", exc_info=True)

    if dag_run.dag_id == DAG_ID and session is not None:
        event.listen(session, "after_commit", write, once=True)


def _write(run: int, failed_by: str) -> None:
    """Write what broke, in the order of time, then the outcome, as far as is known."""
    from airflow.models.dagrun import DagRun, DagRunNote
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        left = select(XComModel).where(XComModel.dag_run_id == run, XComModel.key == NOTE_KEY)
        words = {each.task_id: each.value for each in session.scalars(left)}
        told: list[str] = []
        if failed_by:
            tasks = select(TaskInstance.task_id).where(
                TaskInstance.dag_run.has(id=run), TaskInstance.state == TaskInstanceState.FAILED
            )
            for name in session.scalars(tasks.order_by(TaskInstance.end_date)):
                unknown = [f"**BROKEN**: {name} left no reason; its log shows more."]
                told += words.get(name) or unknown
            told = told or [f"**BROKEN**: the run failed: {failed_by}."]
        told += [*words.get(ASKING, []), *words.get(JUDGING, [])]
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
