"""One way for every command to print its result: as lines for people, or as JSON for programs.

Tested in tests/pipelines/cli/look/test_printing.py.
"""

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from pipelines.cli.say import say, say_indented

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def say_result(value: Any, as_json: bool, lines: Callable[[], Iterable[str]]) -> None:
    """Print what a command found.

    JSON is ASCII, so that nothing in it steers a terminal; a number that JSON does not know, such
    as NaN, is null.

    Args:
        value: A pydantic model, a dataclass, or a list, tuple or dictionary of such.
        as_json: Whether JSON is wanted.
        lines: Makes the lines for people; one that begins with a space belongs to the one before.
    """
    if as_json:
        jsonable = to_jsonable_python(value, inf_nan_mode="null", fallback=_plain)
        typer.echo(json.dumps(jsonable, indent=2, allow_nan=False))
        return
    for line in lines():
        (say_indented if line.startswith(" ") else say)(line)


def _plain(value: Any) -> Any:
    """Return a number or an array of NumPy as Python's own; other foreign values as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
