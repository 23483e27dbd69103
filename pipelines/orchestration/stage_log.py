"""What a stage prints, in its task's log: each line with its own level, and nothing of the shell's.

Airflow logs whatever a command prints as information, so that the error of a stage would look like
its progress. Not for what a stage prints: `pipelines.cli`. Tested in
tests/pipelines/orchestration/test_stage_log.py.
"""

import re
from functools import cached_property
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.bash import BashOperator

_OURS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
"""How a line of our log begins; see `pipelines.cli.main`."""
_COMPLAINT = re.compile(r"[A-Z]\w*Error: ")
"""How the command line says why it ends: the class of the error and its message."""
_BAR = re.compile(r"\d+%\|")
"""A progress bar of a library's, which a log does not redraw."""
_OF_THE_SHELL = ("Tmp dir root location", "Running command", "Output:")


class StageOperator(BashOperator):
    """Airflow's BashOperator, with the stage's levels in the log."""

    @cached_property
    def subprocess_hook(self) -> "StageHook":
        """The hook that runs the command."""
        return StageHook()


class StageHook(SubprocessHook):
    """Airflow's hook, whose log is told the levels."""

    @cached_property
    def log(self) -> Any:
        """The task's log."""
        return _Leveled(super().log)


class _Leveled:
    """A log that takes every line as information, and writes it with the level that it tells."""

    def __init__(self, log: Any) -> None:
        self._log, self._is_error = log, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def info(self, message: str, *values: Any) -> None:
        """Write a line of the command, or of the hook itself."""
        if message != "%s":
            if not message.startswith(_OF_THE_SHELL):
                self._log.info(message, *values)
            return
        # A line that was drawn again and again ends with what it showed last.
        text = str(values[0]).rpartition("\r")[2]
        if not _BAR.search(text):
            getattr(self._log, self._level_of(text))("%s", text)

    def _level_of(self, text: str) -> str:
        """Return a line's level. What follows an error, such as a traceback, belongs to it."""
        if ours := _OURS.match(text):
            self._is_error = ours[1] in ("ERROR", "CRITICAL")
            return ours[1].lower()
        self._is_error |= _COMPLAINT.match(text) is not None
        return "error" if self._is_error else "info"
