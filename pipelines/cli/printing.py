"""How the command line prints: lines for people, whatever the text holds, or JSON for programs.

A group of commands is a `Commands`, which gives each of them the option --json. A command says its
lines as it goes and returns its value. With --json the lines are not printed, and the value is: one
JSON value on standard output, and nothing else. An error is one JSON value on standard error
(`complain`), after the value of a command that found something before it failed. What
people and data have put into a text neither begins a line of its own nor steers the terminal.
Tested in tests/pipelines/cli/test_printing.py and test_every_command.py.
"""

import contextlib
import functools
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.plain_text import one_line, safe_lines
from pipelines.recipes.built_in import RECIPES
from pipelines.settings import Settings

OPTION = "--json"
_AS_JSON = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option(OPTION, help="Print JSON, for programs.")],
)
COLOURS = {"PROMOTE": "green", "INCONCLUSIVE": "yellow", "REJECT": "red", "void": "yellow"}
COLOURS |= {"broken": "red", "wrong": "red", "refused": "red", "critical": "red", "error": "red"}
COLOURS |= {"warning": "yellow", "warned": "yellow", "equal": "green", "differs": "red"}
_LOUD = re.compile(rf"\b(?:{'|'.join(COLOURS)})\b")
_PRINTS_JSON: ContextVar[bool] = ContextVar("_PRINTS_JSON", default=False)
"""Whether the command that runs was asked for JSON."""


def _run_of(text: str) -> str:
    """Return the URI of a run's folder: as it is, or by its name, or the beginning of one.

    Raises:
        ConfigurationError: the workspace has no such run, or several.
    """
    from pipelines.cycles.reading import run_names

    if "/" in text or Path(text).is_dir():
        return storage.to_uri(text)
    workspace_uri = Settings().workspace_uri
    names = run_names(workspace_uri)
    found = [text] if text in names else [name for name in names if name.startswith(text)]
    if len(found) != 1:
        raise ConfigurationError(
            f"{text!r} is the beginning of {len(found) or 'no'} names of runs of {workspace_uri}; "
            f"expected one, or a folder's path or URI; found {', '.join((found or names)[:5])}"
        )
    return storage.join(workspace_uri, "runs", found[0])


def _runs_like(incomplete: str) -> list[str]:
    """Return names of runs for a shell's completion; none where they cannot be listed."""
    from pipelines.cycles.reading import run_names

    with contextlib.suppress(Exception):
        names = run_names(Settings().workspace_uri)
        return [name for name in names if name.startswith(incomplete)]
    return []


def recipes_like(incomplete: str) -> list[str]:
    """Return names of recipes, and files that may hold one, for a shell's completion."""
    return [*(n for n in sorted(RECIPES) if n.startswith(incomplete)), *glob(f"{incomplete}*.y*ml")]


Run = Annotated[
    str,
    typer.Argument(
        help="A run: its name or the beginning of that, or its folder's path or URI.",
        parser=_run_of,
        metavar="RUN",
        autocompletion=_runs_like,
    ),
]
"""A run as every command takes it, and hands it on as a URI."""


class Commands(typer.Typer):
    """A group of commands that print lines, and with --json what they return."""

    def command(  # type: ignore[override]  # Typer's options are handed on as they are.
        self, *arguments: Any, lasts: bool = False, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a command, as in Typer.

        One that `lasts` shows how it goes on until it is ended, and so knows no --json.
        """
        register = super().command(*arguments, **options)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(function if lasts else with_json(function))
            return function

        return add


def with_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that knows --json, and prints what the function returns if it is given."""

    @functools.wraps(function)
    def run(*arguments: Any, as_json: bool = False, **options: Any) -> None:
        before = _PRINTS_JSON.set(as_json)
        try:
            value = function(*arguments, **options)
            if value is not None:
                say_value(value)
        finally:
            _PRINTS_JSON.reset(before)

    own = inspect.signature(function)
    # Typer reads both.
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), _AS_JSON]
    )
    run.__annotations__ = {**function.__annotations__, _AS_JSON.name: _AS_JSON.annotation}
    return run


def say(text: str) -> None:
    """Print one line; one that begins with a space belongs to the one before it.

    On a terminal the words of `COLOURS` stand out.
    """
    if not _PRINTS_JSON.get():
        shown = _LOUD.sub(lambda word: typer.style(word[0], fg=COLOURS[word[0]]), one_line(text))
        typer.echo(f"{'  ' if text.startswith(' ') else ''}{shown}")


def say_all(lines: Iterable[str]) -> None:
    """Print lines, each as it is made."""
    for line in lines:
        say(line)


def say_text(text: str) -> None:
    """Print a text of several lines with its indentation; nothing in it steers a terminal."""
    if not _PRINTS_JSON.get():
        typer.echo(safe_lines(text).rstrip("\n"))


def say_value(value: Any) -> None:
    """Print what a command found where JSON is asked for, and nothing otherwise.

    A command that fails because of what it found calls this before it raises; others return it. The
    value is a pydantic model, a dataclass, or a list, tuple or dictionary of such.
    """
    if _PRINTS_JSON.get():
        typer.echo(to_json(value))


def to_json(value: Any) -> str:
    """Return a value as JSON.

    It is ASCII, so that nothing in it steers a terminal; a number that JSON does not know, such as
    NaN, is null.
    """

    def plain(foreign: Any) -> Any:
        """Return a number or an array of NumPy as Python's own; other values as text."""
        return foreign.tolist() if hasattr(foreign, "tolist") else str(foreign)

    jsonable = to_jsonable_python(value, inf_nan_mode="null", fallback=plain)
    return json.dumps(jsonable, indent=2, allow_nan=False)


def complain(error: Exception, exit_code: int, as_json: bool) -> None:
    """Print an error on standard error: in red, with the line breaks that it has, or as JSON."""
    name, message = type(error).__name__, str(error)
    said = {"class": name, "message": message, "exit_code": exit_code}
    text = to_json({"error": said}) if as_json else safe_lines(f"{name}: {message}")
    typer.secho(text, fg=None if as_json else "red", err=True)


class SafeFormatter(logging.Formatter):
    """Formats log lines and tracebacks so that no character in them steers the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return safe_lines(super().format(record))
