"""Finds and kills (SIGKILL) what runs for a task of a DAG run: the stage, or Airflow's process."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from pipelines import storage
from pipelines.cycles.reading import find_cycle
from pipelines.settings import Settings
from support.lab import Lab

PATIENCE_S = 400.0
"""A machine whose disks and cores are lent out may work at a quarter of its speed."""


def wait_for_run_uri(lab: Lab, trigger: str) -> str:
    """Return the run folder of a DAG run, once `resolve_run` has made it."""
    for _ in _tries(f"{trigger} to be resolved"):
        if found := find_cycle(str(lab.home.path / "workspace"), trigger, Settings()):
            break
    return found.run_uri


def wait_for_stage(stage: str, run_uri: str, timeout_s: float = PATIENCE_S) -> psutil.Process:
    """Return the process of a stage's command, once it works on that run."""
    lock = storage.local_path(run_uri) / stage / "stage.lock"
    for _ in _tries(f"{stage} of {run_uri} to start", timeout_s):
        process = _find(lambda words: {"stage", stage, run_uri} <= set(words))
        if process and lock.exists():
            break
    return process


def kill_tasks(lab: Lab, trigger: str, *task_ids: str) -> None:
    """Kill, once each, the processes in which Airflow runs the first tries of these tasks."""
    found = {task["task_id"]: task["id"] for task in lab.api.tasks(trigger)}
    waiting = {f"airflow worker -- {found[task_id]}" for task_id in task_ids}
    for _ in _tries(f"{task_ids} to start"):
        for title in sorted(waiting):
            if process := _find(lambda words, title=title: " ".join(words).strip() == title):
                process.kill()
                waiting.remove(title)
        if not waiting:
            break


def move_start_back(lab: Lab, trigger: str, days: int) -> None:
    """Let a DAG run look as if it had begun days earlier: the clock is all that is faked."""
    change = "UPDATE dag_run SET start_date = datetime(start_date, ?) WHERE run_id = ?"
    database = lab.home.path / "airflow" / "airflow.db"
    with contextlib.closing(sqlite3.connect(Path(database), timeout=30)) as connection:
        changed = connection.execute(change, (f"-{days} days", trigger)).rowcount
        connection.commit()
    assert changed == 1, f"{trigger} is not in {database}"


def _find(is_wanted: Callable[[list[str]], bool]) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        if is_wanted(process.info["cmdline"] or []):
            return process
    return None


def _tries(what: str, timeout_s: float = PATIENCE_S) -> Iterator[None]:
    """Give turns until the deadline; the caller breaks out when it has what it waits for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s:g} s for {what}")
