"""How the command line prints: one line for each call, whatever the text holds.

What people and data have put into a text so neither begins a line of its own nor steers the
terminal. Every module beside this one prints through here. Where a command prints JSON
(`pipelines.cli.look.printing`), these lines are for nobody, and are not printed.
"""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import typer

from pipelines.plain_text import one_line, safe_lines

PRINTS_JSON: ContextVar[bool] = ContextVar("PRINTS_JSON", default=False)
"""Whether the command that runs was asked for JSON."""


def say(text: str) -> None:
    """Print one line."""
    _print(one_line(text))


def say_indented(text: str) -> None:
    """Print one line that belongs to the one before it."""
    _print(f"  {one_line(text)}")


def say_lines(text: str) -> None:
    """Print a text of several lines with its indentation; nothing in it steers a terminal."""
    _print(safe_lines(text).rstrip("\n"))


def _print(text: str) -> None:
    if not PRINTS_JSON.get():
        typer.echo(text)


def complain(message: str) -> None:
    """Print an error's message in red, with the line breaks that it has."""
    typer.secho(safe_lines(message), fg="red", err=True)


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's hints and the links to its runs from coming between what a command prints.

    The hints are warnings to whoever writes a model by hand, in colours. MLflow's errors and its
    log lines remain, and so do all warnings of others. A link that a person has set to be shown or
    hidden stays as it was set.
    """
    name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    is_set, show = name in os.environ, warnings.showwarning
    os.environ.setdefault(name, "true")
    # A filter would not do: MLflow puts one of its own before it where it saves a model.
    warnings.showwarning = _without_hints(show)
    try:
        yield
    finally:
        warnings.showwarning = show
        if not is_set:
            os.environ.pop(name, None)


def _without_hints(show: Callable[..., None]) -> Callable[..., None]:
    """Return what shows each warning except those to users from a file of MLflow."""
    found = importlib.util.find_spec("mlflow")  # which does not import it
    places = (found.submodule_search_locations if found else None) or ()
    folders = tuple(f"{place}{os.sep}" for place in places)

    def show_others(message: object, category: type[Warning], filename: str, *more: Any) -> None:
        if not (issubclass(category, UserWarning) and filename.startswith(folders)):
            show(message, category, filename, *more)

    return show_others


class SafeFormatter(logging.Formatter):
    """Formats log lines and tracebacks so that no character in them steers the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return safe_lines(super().format(record))
