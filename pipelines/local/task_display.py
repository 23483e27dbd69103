"""Shows a run's tasks: in a live table on a terminal, elsewhere with a line for each change.

Not for asking Airflow about the tasks. Tested in tests/pipelines/local/test_real_airflow.py.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.contracts.artifacts import STAGES

_COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "bold red",
    "up_for_retry": "yellow",
    "upstream_failed": "red",
    "skipped": "dim",
}

_ORDER = (*STAGES[:-2], "approve_promotion", *STAGES[-2:])
"""Of a run's tasks: the stages, and the question to people before a promotion."""
_TRAININGS = ("train_challenger", "train_anchor")
NOTE_EVERY_S = 15.0
"""Seconds between two lines about training where there is no live table."""


def training_progress(workspace: Path) -> str:
    """Return the newest progress line that a training below the workspace has written, or ''."""
    logs = list(workspace.glob("runs/*/train_*/training/training.log"))
    if not logs:
        return ""
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    lines = newest.read_text(errors="replace").splitlines()
    steps = [line for line in lines if "] step " in line]
    return steps[-1][steps[-1].index("[") :] if steps else ""


class TaskDisplay:
    """The state of one run's tasks, kept up to date on a terminal."""

    def __init__(self, console: Console, run_id: str) -> None:
        self._console = console
        self._run_id = run_id
        self._shown: dict[str, str] = {}
        self._note, self._noted_at = "", 0.0
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> "TaskDisplay":
        """Begin to show."""
        self._console.rule(self._run_id)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        if self._live:
            self._live.stop()

    def show(self, tasks: list[dict[str, Any]], training: str = "") -> None:
        """Show these task instances, as Airflow's REST API gives them, and how training goes on."""
        tasks = sorted(tasks, key=lambda task: _ORDER.index(task["task_id"]))
        is_training = any(t["task_id"] in _TRAININGS and t["state"] == "running" for t in tasks)
        note = training if is_training else ""
        if self._live:
            self._live.update(Group(_table(tasks), Text(note, style="dim")))
            return
        for task in tasks:
            name, state = task["task_id"], task["state"] or "waiting"
            if state != self._shown.get(name, "waiting") and state not in ("scheduled", "queued"):
                self._shown[name] = state
                self._console.print(f"  {name:22} {state:12} {_duration(task)}")
        if note != self._note and time.monotonic() - self._noted_at > NOTE_EVERY_S:
            self._note, self._noted_at = note, time.monotonic()
            if note:
                self._console.print(f"    {note}", markup=False, highlight=False, soft_wrap=True)


def _table(tasks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="dim")
    for heading in ("stage", "state", "seconds", "attempt"):
        table.add_column(heading, justify="right" if heading in ("seconds", "attempt") else "left")
    for task in tasks:
        state = task["state"] or "waiting"
        colour = _COLOURS.get(state, "dim")
        attempt = str(task["try_number"] or "")
        table.add_row(task["task_id"], f"[{colour}]{state}[/]", _duration(task), attempt)
    return table


def _duration(task: dict[str, Any]) -> str:
    """Return the seconds that the present attempt has taken, or '' before it started."""
    if not task["start_date"]:
        return ""
    start = datetime.fromisoformat(task["start_date"])
    end = datetime.fromisoformat(task["end_date"]) if task["end_date"] else datetime.now(UTC)
    return f"{(end - start).total_seconds():.1f}"
