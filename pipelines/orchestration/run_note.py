"""Writes into a run's note what became of the cycle: the outcome's words, or what broke.

Airflow has no call by which a task could write a note. So the task that knows the words leaves them
in an XCom, and the scheduler, which hears of the run's end, writes them above what people wrote. An
exception in one of these hooks is logged by Airflow and harms no run.
"""

from typing import Any

from airflow.listeners import hookimpl

from pipelines.alerts.links import HOME, IN_MLFLOW
from pipelines.alerts.rendering import to_markdown
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Judgement, Outcome
from pipelines.orchestration.runs import LIMIT, NOTE_KEY, unresolved_of
from pipelines.plain_text import as_markdown, first_lines, one_line, shortened
from pipelines.settings import DAG_ID, Settings

JUDGING, ASKING, MOVING = "compare_with_champion", "approve_promotion", "promote_challenger"
LEAST = 100
"""Characters of a note; fewer are not worth it beside what a person wrote."""
SIGNATURE = "— homefeed_retrain"
"""Ends what is ours, which stands first: below it is a person's."""


def words_of(run: ResolvedRun) -> str:
    """Return what a judged cycle's note says by now: its day, then the outcome's words."""
    from pipelines.cycles.reading import outcome_now
    from pipelines.stages.runner import read_artifact

    judgement = read_artifact(run.run_uri, JUDGING, Judgement)
    told = told_of(outcome_now(run, judgement, Settings(), serves=""))
    return f"**{run.as_of:%Y-%m-%d}** {told}"


def told_of(outcome: Outcome) -> str:
    """Return a cycle's outcome as Markdown, without commands, what matters most first.

    Of the first paragraph Airflow's page shows the beginning, of the others nothing before a click.
    """
    shown = (each for each in outcome.links[1:] if each[0] in (IN_MLFLOW, HOME))
    links = (outcome.links[0], *shown)
    return to_markdown(outcome.model_copy(update={"links": links}), has_commands=False)


def merged(before: str, told: str) -> str:
    """Return a run's note: what is told of the run, and below it what people wrote.

    Args:
        before: The note as it is; '' for none. What is ours in it is replaced.
        told: Markdown, the most important first; lines that find no room are left out. Where a
            person's note leaves no room, it stays alone.
    """
    kept = before.rpartition(SIGNATURE)[2].strip()
    room = LIMIT - len(SIGNATURE) - len(kept) - 4
    ours = f"{first_lines(told, room, 'see the pages')}\n\n{SIGNATURE}" if told else ""
    return "\n\n".join(filter(None, [ours if room > LEAST else "", kept]))


class RunNotes:
    """Airflow's listener: its tasks leave words, its scheduler writes them into the note."""

    @hookimpl
    def on_task_instance_success(self, task_instance: Any) -> None:
        """Leave the outcome's words, in the worker whose task has judged or promoted."""
        from pipelines.stages.runner import read_artifact

        ti = task_instance
        # A row of a table is a task that a person has marked.
        if ti.dag_id == DAG_ID and ti.task_id in (JUDGING, MOVING) and not hasattr(ti, "__table__"):
            run_uri = ti.xcom_pull(task_ids="resolve_run")["run_uri"]
            ti.xcom_push(NOTE_KEY, words_of(read_artifact(run_uri, "resolve_run", ResolvedRun)))

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any) -> None:
        """Leave what broke, in the worker whose task has failed: the words of its alert."""
        from pipelines.alerts.compose import Ended, alert_about_failure, compose_unresolved
        from pipelines.stages.runner import read_artifact

        ti, alert = task_instance, None
        if ti.dag_id != DAG_ID or hasattr(ti, "__table__"):
            return
        if ti.task_id != "resolve_run":
            run_uri = ti.xcom_pull(task_ids="resolve_run")["run_uri"]
            run = read_artifact(run_uri, "resolve_run", ResolvedRun)
            ended = Ended(ti.task_id, "task_failure", ti.start_date)
            alert = alert_about_failure(run, Settings(), ended)
        elif left := unresolved_of(ti):
            alert = compose_unresolved(ti.run_id, left, Settings())
        if alert is not None:
            title, happened = map(as_markdown, (alert.title, one_line(alert.happened)))
            day = f"**{alert.cycle.day}** " if alert.cycle else ""
            told = f"{day}**BROKEN**: {title}\n\n{shortened(happened, LIMIT // 2)}"
            ti.xcom_push(NOTE_KEY, told)

    @hookimpl
    def on_dag_run_success(self, dag_run: Any) -> None:
        """Write the note of a run that has ended well."""
        _write(dag_run, "")

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """Write the note of a run that has failed; `msg` is Airflow's word for how."""
        _write(dag_run, msg or "failed")


def _write(dag_run: Any, failed_by: str) -> None:
    """Write what broke or was refused, then the outcome by the last task that knew more of it.

    Args:
        dag_run: The run, in the session in which its state was changed.
        failed_by: Airflow's word for the failure; '' for a run that ended well.
    """
    from airflow.models.dagrun import DagRunNote as Note
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, inspect, select, update

    session, run = inspect(dag_run).session, dag_run.id
    if dag_run.dag_id != DAG_ID or session is None:
        return
    connection = session.connection()
    # Whatever may go wrong with a note, such as a person who writes one at the same instant, must
    # not undo the transaction around it: it is the scheduler's, about all runs.
    with connection.begin_nested():
        left = select(XComModel.task_id, XComModel.value).where(
            XComModel.dag_run_id == run, XComModel.key == NOTE_KEY
        )
        words = {name: value for name, value in connection.execute(left)}
        failed = select(TaskInstance.task_id).where(
            TaskInstance.dag_run.has(id=run), TaskInstance.state == "failed"
        )
        broken = [words.pop(name, "") for name in connection.scalars(failed)]
        if failed_by and not any(broken):
            broken = [f"**BROKEN**: the run failed: {failed_by}. The logs of its tasks say more."]
        newest = next((words[each] for each in (MOVING, ASKING, JUDGING) if each in words), "")
        told = "\n\n".join(filter(None, [*broken, words.get("resolve_run"), newest]))
        before = connection.scalar(select(Note.content).where(Note.dag_run_id == run))
        text = merged(before or "", told)
        if before is not None:
            connection.execute(update(Note).where(Note.dag_run_id == run).values(content=text))
        elif text:
            connection.execute(insert(Note).values(dag_run_id=run, content=text))
