"""Threads that work side by side, and the memory that they may take."""

import platform
import threading
import time

import pyarrow as pa
import pytest

from pipelines.snapshot.pool import (
    keeping_freed_memory,
    memory_budget_bytes,
    run_in_threads,
    workers_that_fit,
)


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
    results = run_in_threads(lambda task: begun.append(task) or task, range(100), num_workers=2)
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


@pytest.mark.parametrize(
    ("free", "task", "expected"), [(100, 10, 4), (39, 10, 3), (10, 10, 1), (9, 10, 1), (0, 0, 1)]
)
def test_as_many_work_as_have_room(free: int, task: int, expected: int) -> None:
    assert workers_that_fit(4, free, task) == expected


def test_the_budget_is_the_settings_without_what_the_process_takes_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = '{"build_snapshot": {"cpus": 1, "memory_gib": %s}}'
    monkeypatch.setenv("HOMEFEED_STAGE_RESOURCES", told % 6.0)
    assert 1 << 30 < memory_budget_bytes() < 3 << 30
    monkeypatch.setenv("HOMEFEED_STAGE_RESOURCES", told % 0.002)
    assert memory_budget_bytes() == 0
    monkeypatch.delenv("HOMEFEED_STAGE_RESOURCES")
    monkeypatch.setattr("pipelines.metrics.usage.memory_limit_bytes", lambda: 10 << 30)
    assert 3 << 30 < memory_budget_bytes() < 5 << 30
