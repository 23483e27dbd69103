"""One way for every command to print its result: as lines for people, or as JSON for programs.

A group of commands is a `Commands`, which gives each of them the option --json. A command says its
lines as it goes and returns its value. With --json the lines are not printed, and the value is: one
JSON value on standard output, and nothing else. An error is one JSON value on standard error
(`complain_as_json`), after the value of a command that found something before it failed. Tested in
tests/pipelines/cli/look/test_printing.py and test_every_command.py.
"""

import functools
import inspect
import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from pipelines.cli.say import PRINTS_JSON, say, say_indented
from pipelines.contracts.errors import HomefeedError

OPTION = "--json"
AsJson = Annotated[bool, typer.Option(OPTION, help="Print JSON, for programs.")]
_NAME = "as_json"


class Commands(typer.Typer):
    """A group of commands that print lines, and with --json what they return."""

    def command(  # type: ignore[override]  # Typer's options are handed on as they are.
        self, *arguments: Any, lasts: bool = False, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a command, as in Typer.

        Args:
            arguments: Typer's.
            lasts: Whether it shows how it goes on until it is ended, and so knows no --json.
            options: Typer's.
        """
        register = super().command(*arguments, **options)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(function if lasts else _with_json(function))
            return function

        return add


def _with_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that knows --json, unless it does already."""
    own = inspect.signature(function)
    if _NAME in own.parameters:
        return function

    @functools.wraps(function)
    def run(*arguments: Any, as_json: bool = False, **options: Any) -> None:
        before = PRINTS_JSON.set(as_json)
        try:
            value = function(*arguments, **options)
            if value is not None:
                say_value(value)
        finally:
            PRINTS_JSON.reset(before)

    option = inspect.Parameter(
        _NAME, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson
    )
    parameters = [*own.parameters.values(), option]
    # Typer reads both.
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, _NAME: AsJson}
    return run


def say_value(value: Any) -> None:
    """Print what a command found where JSON is asked for, and nothing otherwise.

    A command that fails because of what it found calls this before it raises; others return it.
    """
    if PRINTS_JSON.get():
        typer.echo(to_json(value))


def say_result(value: Any, as_json: bool, lines: Callable[[], Iterable[str]]) -> None:
    """Print what a command found.

    Args:
        value: A pydantic model, a dataclass, or a list, tuple or dictionary of such.
        as_json: Whether JSON is wanted.
        lines: Makes the lines for people; one that begins with a space belongs to the one before.
    """
    if as_json:
        typer.echo(to_json(value))
        return
    for line in lines():
        (say_indented if line.startswith(" ") else say)(line)


def to_json(value: Any) -> str:
    """Return a value as JSON.

    It is ASCII, so that nothing in it steers a terminal; a number that JSON does not know, such as
    NaN, is null.
    """
    jsonable = to_jsonable_python(value, inf_nan_mode="null", fallback=_plain)
    return json.dumps(jsonable, indent=2, allow_nan=False)


def complain_as_json(error: Exception) -> None:
    """Print an error as JSON on standard error, with the code that the command ends with.

    Args:
        error: One of ours, or an unforeseen one, whose traceback is in the log above.
    """
    code = error.exit_code if isinstance(error, HomefeedError) else HomefeedError.exit_code
    said = {"class": type(error).__name__, "message": str(error), "exit_code": code}
    typer.echo(to_json({"error": said}), err=True)


def _plain(value: Any) -> Any:
    """Return a number or an array of NumPy as Python's own; other foreign values as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
