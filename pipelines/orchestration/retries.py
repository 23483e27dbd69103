"""Which failures Airflow tries again: the error's class or the stage's exit code decides."""

import re
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from pipelines.contracts.errors import PERMANENT_EXIT_CODES, HomefeedError

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
