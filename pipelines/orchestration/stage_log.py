"""What a stage prints, in its task's log: each line with its own level, and nothing of the shell's.

Airflow logs whatever a command prints as information, so that the error of a stage would look like
its progress. Progress stands in groups that Airflow's page folds; what went wrong and what became
of the cycle stand outside of them. Not for what a stage prints: `pipelines.cli`. Tested in
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
_VERDICT = re.compile(_OURS.pattern + r"pipelines\.stages\.compare_with_champion: ")
"""How the outcome of a cycle begins: the only thing that this stage's own module logs."""
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
        self._log = log
        self._is_error, self._is_told, self._is_folded = False, False, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def info(self, message: str, *values: Any) -> None:
        """Write a line of the command, or of the hook itself."""
        if message != "%s":
            if not message.startswith(_OF_THE_SHELL):
                self._fold(False)
                self._log.info(message, *values)
            return
        # A line that was drawn again and again ends with what it showed last.
        text = str(values[0]).rpartition("\r")[2]
        if not _BAR.search(text):
            level = self._level_of(text)
            self._fold(not (self._is_error or self._is_told))
            getattr(self._log, level)("%s", text)

    def _fold(self, is_folded: bool) -> None:
        """Begin or end a group, where the next line is not to stand where the last one does."""
        if is_folded != self._is_folded:
            self._log.info("::group::Progress of the stage" if is_folded else "::endgroup::")
            self._is_folded = is_folded

    def _level_of(self, text: str) -> str:
        """Return a line's level. What follows an error, such as a traceback, belongs to it.

        So does what follows the first line of the outcome.
        """
        if ours := _OURS.match(text):
            self._is_error = ours[1] in ("ERROR", "CRITICAL")
            self._is_told = _VERDICT.match(text) is not None
            return ours[1].lower()
        self._is_error |= _COMPLAINT.match(text) is not None
        return "error" if self._is_error else "info"
