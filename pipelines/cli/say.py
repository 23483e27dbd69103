"""How the command line prints: one line for each call, whatever the text holds.

What people and data have put into a text so neither begins a line of its own nor steers the
terminal. Every module beside this one prints through here.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

import typer

from pipelines.plain_text import one_line, safe_lines


def say(text: str) -> None:
    """Print one line."""
    typer.echo(one_line(text))


def say_indented(text: str) -> None:
    """Print one line that belongs to the one before it."""
    typer.echo(f"  {one_line(text)}")


def say_lines(text: str) -> None:
    """Print a text of several lines with its indentation; nothing in it steers a terminal."""
    typer.echo(safe_lines(text).rstrip("\n"))


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
    is_set = name in os.environ
    os.environ.setdefault(name, "true")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow(\.|$)")
            yield
    finally:
        if not is_set:
            os.environ.pop(name, None)


class SafeFormatter(logging.Formatter):
    """Formats log lines and tracebacks so that no character in them steers the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return safe_lines(super().format(record))
