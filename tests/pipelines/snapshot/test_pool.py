"""The pools: a worker process that is killed is told as such, and none outlives its parent."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.contracts.errors import ProcessKilledError
from pipelines.snapshot.pool import keeping_freed_memory, run_all, run_in_threads

SLEEP = """
import time
from pipelines.snapshot.pool import run_all
if __name__ == "__main__":
    print("ready", flush=True)
    list(run_all(time.sleep, [60, 60], 2, "naps"))
"""


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.mark.parametrize("run", [run_all, run_in_threads])
def test_results_come_in_the_order_of_the_tasks(run) -> None:
    assert list(run(die_at_three, [0, 1, 2], 2, "numbers")) == [0, 1, 4]


def test_a_killed_worker_may_be_tried_again_and_is_told_as_such() -> None:
    with pytest.raises(ProcessKilledError, match="one of 2 worker processes was killed") as caught:
        list(run_all(die_at_three, [0, 3, 1, 2], 2, "numbers"))
    assert (caught.value.exit_code, caught.value.is_retryable) == (75, True)


def test_worker_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text(SLEEP)
    command = [sys.executable, str(tmp_path / "sleep.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    children: list[int] = []
    deadline = time.monotonic() + 60
    while len(children) < 2 and time.monotonic() < deadline:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children = [int(child) for child in listed.split()]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert children
    while any(_is_running(child) for child in children):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_threads_work_side_by_side_and_the_first_error_ends_them() -> None:
    """Two tasks wait for each other, so one thread would wait in vain; the last ones never run."""
    both, ran = threading.Barrier(2, timeout=60), []

    def work(number: int) -> int:
        ran.append(number)
        if number < 2:
            both.wait()
        if number == 2:
            raise ValueError("the third")
        time.sleep(0.01)
        return number

    results = run_in_threads(work, range(40), 2, "numbers")
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        list(results)
    assert len(ran) < 20


def test_threads_begin_a_few_tasks_ahead_of_whoever_reads_the_results() -> None:
    """All results at once would be in memory where reading one takes longer than making it."""
    begun: list[int] = []

    def work(task: int) -> int:
        begun.append(task)
        return task

    results = run_in_threads(work, range(100), num_workers=2)
    for number in range(100):
        assert next(results) == number
        assert len(begun) <= number + 1 + 4
    assert sorted(begun) == list(range(100))


def test_the_allocators_are_as_before_after_builds_side_by_side() -> None:
    usual = pa.default_memory_pool().backend_name
    one, two = keeping_freed_memory(1 << 20), keeping_freed_memory(1 << 20)
    one.__enter__()
    two.__enter__()
    if platform.libc_ver()[0] == "glibc":
        assert pa.default_memory_pool().backend_name == "system"
    one.__exit__(None, None, None)
    two.__exit__(None, None, None)
    assert pa.default_memory_pool().backend_name == usual != "system"
