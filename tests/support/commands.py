"""Reads a command that a person is told to run, as the real command line would, or runs it."""

import shlex
from typing import Any

import typer
from typer.core import TyperGroup

from pipelines.cli.main import app


def parse(command: str) -> Any:
    """Return the parsed command's context: `info_name` and `params`.

    Raises a usage error for an unknown command, option or value, and for one that is missing.
    """
    program, *words = shlex.split(command)
    assert program == "homefeed", command
    found: Any = typer.main.get_command(app)
    while isinstance(found, TyperGroup):  # groups have no options of their own
        name, *words = words
        assert name in found.commands, command
        found = found.commands[name]
    return found.make_context(name, words)


def run(command: str) -> None:
    """Run the command in this process; an error of ours is raised as it is."""
    app(shlex.split(command)[1:], standalone_mode=False)
