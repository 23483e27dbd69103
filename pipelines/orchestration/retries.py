"""Which failures Airflow tries again: the error's class or the stage's exit code decides."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowRescheduleException

from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import PERMANENT_EXIT_CODES, HomefeedError, RunInProgressError
from pipelines.contracts.run_layout import stage_lock_uri

_EXIT_CODE = re.compile(r"(?:exit[ _]code|StatusCode)[^\w-]{0,4}(-?\d+)", re.IGNORECASE)
"""How the three operators name a command's exit code in the message of their exception. Bash's
operator names the signal that ended the command as a number below zero."""

_PERMANENT_END_OF_A_JOB = "PodFailurePolicy"
"""Why a training's Job failed where a pod ended with an exit code that is not tried again: see
`pipelines.orchestration.kubernetes_stages`. The operator says no more of it."""


class StageRetryPolicy(RetryPolicy):
    """Fails a task at once when trying again cannot help; leaves everything else to `retries`.

    A light stage's own exception says so itself; a heavy stage says it by its exit code.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        """Return FAIL for bad data (65), a refusal (77), bad configuration (78), bad usage (64)."""
        exit_code = exit_code_of(exception)
        if exit_code in PERMANENT_EXIT_CODES or _PERMANENT_END_OF_A_JOB in str(exception):
            return RetryDecision.fail("its exit code says that trying again cannot help")
        return RetryDecision.default()


def exit_code_of(exception: BaseException) -> int | None:
    """Return the exit code that a stage's exception stands for, or None if it carries none."""
    if isinstance(exception, HomefeedError):
        return exception.exit_code
    found = _EXIT_CODE.search(str(exception))
    return int(found.group(1)) if found else None


def put_off(context: Any) -> None:
    """Put a task off while another attempt is at work on this disk, which costs none of its tries.

    After as long as an attempt may take, the stage waits itself and then says who is at work.
    """
    from pipelines import storage

    ti = context["ti"]
    if ti.task_id in STAGES and (resolved := ti.xcom_pull(task_ids="resolve_run")):
        try:
            with storage.exclusive_lock(stage_lock_uri(resolved["run_uri"], ti.task_id), "a look"):
                pass
        except RunInProgressError:
            now, first = datetime.now(UTC), ti.get_first_reschedule_date(context)
            if first is None or now - first < ti.task.execution_timeout:
                raise AirflowRescheduleException(now + timedelta(minutes=1)) from None
