"""Which failures Airflow tries again: the error's class or the stage's exit code decides."""

import re
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from pipelines.contracts.errors import PERMANENT_EXIT_CODES, HomefeedError

_EXIT_CODE = re.compile(r"(?:exit[ _]code|StatusCode)\W{0,4}(\d+)", re.IGNORECASE)
"""How the three operators name a command's exit code in the message of their exception."""


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
        if exit_code in PERMANENT_EXIT_CODES:
            return RetryDecision.fail(f"exit code {exit_code}: trying again cannot help")
        return RetryDecision.default()


def exit_code_of(exception: BaseException) -> int | None:
    """Return the exit code that a stage's exception stands for, or None if it carries none."""
    if isinstance(exception, HomefeedError):
        return exception.exit_code
    found = _EXIT_CODE.search(str(exception))
    return int(found.group(1)) if found else None
