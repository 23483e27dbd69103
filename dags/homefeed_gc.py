"""Deletes, once a week, what is old and needed by nobody: `homefeed gc`.

It is **paused** until somebody unpauses it. Look first at what it would delete:
`homefeed gc --dry-run`, in the environment of a worker. How old is old say the settings
`HOMEFEED_KEEP_DAYS` and `HOMEFEED_ROLLBACK_MODELS`; what the champion, its predecessors, the
accepted recipe and running cycles need stays, and so does the record.

**Red** means that nothing, or nothing more, was deleted: MLflow did not answer, the record is
damaged or disagrees with the registry, or the champion moved meanwhile. Clear the task, or wait for
the next week. It is safe beside a cycle, a promotion or a rollback, and after a kill.
`docs/runbook.md` has a section for each exit code.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.settings import Settings

SETTINGS = Settings()

with DAG(
    dag_id="homefeed_gc",
    # Thursday night: a cycle begins on Monday morning by default, and a snapshot stays while any
    # stage is at work.
    schedule="0 2 * * 4",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    dagrun_timeout=timedelta(hours=12),
    doc_md=__doc__,
    tags=["homefeed"],
) as homefeed_gc:
    BashOperator(
        task_id="gc",
        # With exec it takes the shell's place: a signal reaches it, its exit code is the task's.
        bash_command=f"exec {SETTINGS.command} gc",
        append_env=True,
        skip_on_exit_code=None,
        retries=2,
        retry_policy=StageRetryPolicy(),
        execution_timeout=timedelta(hours=3),
    )
