"""Run trainings side by side, one thread each: no processor waits for another."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_all(function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Return function(*job) of every job, in order; as many at once as there are processors."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes, and those that they start, inherit it
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
            waiting = [pool.submit(function, *job) for job in jobs]
            return [future.result() for future in waiting]
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
