"""How the command line prints: one line for each call, whatever the text holds.

What people and data have put into a text so neither begins a line of its own nor steers the
terminal. Every module beside this one prints through here.
"""

import logging

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


class SafeFormatter(logging.Formatter):
    """Formats log lines and tracebacks so that no character in them steers the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return safe_lines(super().format(record))
