"""Replays past cycles by several settings of the gate at once: `homefeed backtest`.

Trigger it with the days to replay and with recipe files that change `model_gate` alone. It says,
cycle by cycle, what each gate would have promoted and what came of that; the task's log has it in
words, `<workspace>/decay/<recipe>/backtest.json` in numbers. No registry hears of it, and it never
moves the champion. **Red** means that it ended before: clear the task, and it goes on from the
models and scores that were made. It has no schedule.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.settings import Settings

SETTINGS = Settings()
DAY: dict[str, Any] = {"type": ["null", "string"], "format": "date"}
PARAMS = {
    "start": Param(None, **DAY, title="First day", description="Empty: the log's first."),
    "end": Param(None, **DAY, title="Last day", description="Empty: the newest with labels."),
    "every": Param(14, type="integer", minimum=1, maximum=366, title="Days between cycles"),
    "gates": Param(
        [],
        type="array",
        items={"type": "string", "pattern": r"^\S+\.ya?ml$"},  # A file is data, and runs nothing.
        title="Gates",
        description="Recipe files (.yaml) that extend the deployment's recipe, one in each line.",
    ),
}

with DAG(
    dag_id="homefeed_backtest",
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=2),
    params=PARAMS,
    doc_md=__doc__,
    tags=["homefeed"],
) as homefeed_backtest:
    BashOperator(
        task_id="backtest",
        # What a person gives comes by the environment, so that no shell reads it as a command.
        bash_command=f'exec {SETTINGS.command} backtest --from "$FROM" --to "$TO" --every "$EVERY"',
        env={
            "FROM": "{{ params.start or '' }}",
            "TO": "{{ params.end or '' }}",
            "EVERY": "{{ params.every }}",
            "HOMEFEED_GATES": "{{ params.gates | join(' ') }}",
        },
        append_env=True,
        skip_on_exit_code=None,
        retries=2,
        retry_policy=StageRetryPolicy(),
        execution_timeout=timedelta(hours=15),
    )
