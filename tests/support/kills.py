"""Finds and kills (SIGKILL) what runs for a task of a DAG run: the stage, or Airflow's process."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psutil

from pipelines import storage
from pipelines.cycles.reading import find_cycle
from pipelines.settings import Settings
from support.lab import Lab
from support.serving import wait_until

PATIENCE_S = 400.0
"""A machine whose disks and cores are lent out may work at a quarter of its speed."""


def wait_for_run_uri(lab: Lab, trigger: str) -> str:
    """Return the run folder of a DAG run, once `resolve_run` has made it."""
    asked = (str(lab.home.path / "workspace"), trigger, Settings())
    return wait_until(lambda: find_cycle(*asked), PATIENCE_S, lambda: f"resolve {trigger}").run_uri


def wait_for_stage(stage: str, run_uri: str, timeout_s: float = PATIENCE_S) -> psutil.Process:
    """Return the process of a stage's command, once it works on that run."""
    lock, words = storage.local_path(run_uri) / stage / "stage.lock", {"stage", stage, run_uri}

    def find() -> psutil.Process | None:
        return _find(lambda found: words <= set(found)) if lock.exists() else None

    return wait_until(find, timeout_s, lambda: f"{stage} of {run_uri} starts")


def kill_tasks(lab: Lab, trigger: str, *task_ids: str) -> None:
    """Kill, once each, the processes in which Airflow runs the first tries of these tasks."""
    found = {task["task_id"]: task["id"] for task in lab.api.tasks(trigger)}
    waiting = {f"airflow worker -- {found[task_id]}" for task_id in task_ids}

    def are_killed() -> bool:
        for title in sorted(waiting):
            if process := _find(lambda words, title=title: " ".join(words).strip() == title):
                process.kill()
                waiting.remove(title)
        return not waiting

    wait_until(are_killed, PATIENCE_S, lambda: f"{task_ids} start")


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
