"""Writes into a run's note what became of the cycle: the verdict's words, or what broke.

Airflow has no call by which a task could write a note. So the task that knows the words leaves them
in an XCom, and the scheduler, which hears of the run's end, writes them. Tested in
tests/pipelines/orchestration/test_run_note.py, and in a browser in
tests/pipelines/local/test_real_browser.py.
"""

import functools
import logging
import re
from collections.abc import Callable, Sequence
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
_TITLE, _MESSAGE = 300, 500
"""Characters that a title and the message of a failure may take."""
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

    def as_link(label: str) -> str:
        """Return a link of Markdown, or both as text where the address may not be one."""
        uri = shown[label]
        if link_target(uri) and "<" not in uri and ">" not in uri:
            return f"[{as_markdown(label)}](<{uri}>)"
        return f"{as_markdown(label)}: {as_markdown(uri)}"

    shown = dict(outcome.links)
    labels = [label for label in (PAGE_IN_MLFLOW, IN_MLFLOW) if label in shown]
    if not labels and "Verdict page" in shown:
        labels = ["Verdict page"]
    page, others = labels[:1], labels[1:]
    said = (outcome.done, outcome.next_step.sentence, outcome.most_hurt, *outcome.warnings)
    return [
        f"**{outcome.decision}**: {as_markdown(_cut(outcome.title, _TITLE))}",
        f"**{as_markdown(outcome.serves)}**",
        *map(as_link, page),
        *(as_markdown(text) for text in (outcome.number, outcome.why)),
        *map(as_link, others),
        *(as_markdown(text) for text in said if text),
    ]


def told_of_failure(alert: "Alert") -> list[str]:
    """Return what is told of a broken run as paragraphs of Markdown, what broke first."""
    from pipelines.plain_text import as_markdown

    said = (_cut(alert.happened, _MESSAGE), alert.done, alert.next_step.sentence)
    return [
        f"**BROKEN**: {as_markdown(_cut(alert.title, _TITLE))}",
        *(as_markdown(text) for text in said if text),
    ]


def _cut(text: str, most: int) -> str:
    from pipelines.plain_text import one_line

    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


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
            break
    parts = [kept] if kept else []
    return "\n\n".join([*parts, *fitting, SIGNATURE] if fitting else parts)


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
        if not _is_ours(task_instance) or task_instance.task_id != JUDGING:
            return
        from pipelines.contracts.judgement import Judgement
        from pipelines.stages.runner import read_artifact

        resolved = task_instance.xcom_pull(task_ids="resolve_run")
        judged = read_artifact(resolved["run_uri"], JUDGING, Judgement)
        if judged.outcome is not None:
            task_instance.xcom_push(NOTE_KEY, told_of(judged.outcome))

    @hookimpl
    @_harmless
    def on_task_instance_failed(self, task_instance: Any) -> None:
        """Leave what broke, in the worker whose task has failed."""
        ti, alert = task_instance, None
        if not _is_ours(ti):
            return
        from pipelines.alerts.compose import Ended, alert_about_failure, compose_unresolved
        from pipelines.orchestration.resolving import unresolved_of

        if ti.task_id != "resolve_run":
            resolved = ti.xcom_pull(task_ids="resolve_run")
            ended = Ended(ti.task_id, "task_failure", ti.start_date)
            alert = alert_about_failure(resolved["run_uri"], Settings(), ended)
        elif left := unresolved_of(ti):
            alert = compose_unresolved(ti.run_id, left, Settings())
        if alert is not None:
            ti.xcom_push(NOTE_KEY, told_of_failure(alert))

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
