"""Scores the champion every day, and tells people what is wrong: `homefeed monitor`.

    monitor -> early_retrain -> retrain

It is **paused** until somebody unpauses it. What is wrong is told once, and once when it is mended
(`docs/runbook.md`, `monitor`). **Red** means that something could not be looked at; the rest was
told. A champion that regressed triggers `homefeed_retrain`, once, if `HOMEFEED_EARLY_RETRAINS` is
above 0; else the last task is skipped.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, task

from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.settings import DAG_ID, Settings


@task.short_circuit(task_id="early_retrain")
def early_retrain_task() -> str | None:
    """Return the id of the run that a regression triggers, if the month has one left."""
    from pipelines.monitor.watching import early_retrain

    return early_retrain(Settings())


with DAG(
    dag_id="homefeed_monitor",
    schedule="0 8 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    dagrun_timeout=timedelta(hours=20),
    default_args={"retries": 2, "retry_policy": StageRetryPolicy()},
    doc_md=__doc__,
    tags=["homefeed"],
) as homefeed_monitor:
    monitor = BashOperator(
        task_id="monitor",
        bash_command=f"exec {Settings().command} monitor",
        append_env=True,
        skip_on_exit_code=None,
        execution_timeout=timedelta(hours=4),
    )
    early: Any = early_retrain_task()
    retrain = TriggerDagRunOperator(
        task_id="retrain",
        trigger_dag_id=DAG_ID,
        trigger_run_id=early,
        logical_date=None,
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,  # The cycle refuses a conf that it does not know.
    )
    monitor >> early >> retrain
