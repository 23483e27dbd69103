"""The pool of processes: a worker that is killed is told as such."""

import os
import signal

import pytest

from pipelines.contracts.errors import ProcessKilledError
from pipelines.snapshot.pool import run_all


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_results_come_in_the_order_of_the_tasks() -> None:
    assert list(run_all(die_at_three, [0, 1, 2], 2, "numbers")) == [0, 1, 4]


def test_a_killed_worker_may_be_tried_again_and_is_told_as_such() -> None:
    with pytest.raises(ProcessKilledError, match="one of 2 worker processes was killed") as caught:
        list(run_all(die_at_three, [0, 3, 1, 2], 2, "numbers"))
    assert (caught.value.exit_code, caught.value.is_retryable) == (75, True)
