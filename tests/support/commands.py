"""Reads a command that a person is told to run, as the real command line would, or runs it."""

import contextlib
import io
import json
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from pipelines.cli.main import app, main
from pipelines.contracts import mlflow_errors
from pipelines.contracts.errors import HomefeedError

EXECUTABLE = Path(sys.executable).with_name("homefeed")


def parse(command: str) -> Any:
    """Return the parsed command's context: `info_name` and `params`.

    Raises a usage error for an unknown command, option or value, and for one that is missing.
    """
    _, words = split(command)
    found: Any = typer.main.get_command(app)
    while isinstance(found, TyperGroup) and words:  # groups have no options of their own
        name, *words = words
        assert name in found.commands, command
        found = found.commands[name]
    return found.make_context(name, words)


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """Return the environment that stands before `homefeed`, and the words after it.

    The executable may stand with its path, as where a person is told what to run next.
    """
    words = shlex.split(command)
    start = next(place for place, word in enumerate(words) if not word.startswith("HOMEFEED_"))
    assert words[start] == "homefeed" or words[start] == str(EXECUTABLE), command
    environment = dict(word.split("=", 1) for word in words[:start])
    assert all(name.startswith("HOMEFEED_") for name in environment), command
    return environment, words[start + 1 :]


def run(command: str) -> None:
    """Run the command in this process; an error of ours is raised as it is."""
    environment, words = split(command)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app(words, standalone_mode=False)


def homefeed(*words: str) -> Result:
    """Type `homefeed WORDS` in this process; the result has the error that `main` would code."""
    return CliRunner().invoke(app, words)


def lines(*words: str) -> list[str]:
    """Return the lines that a command prints which ends well; not what a training logs."""
    done = homefeed(*words)
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    return done.stdout.splitlines()


def as_json(*words: str) -> Any:
    """Return what a command prints for programs, whether or not it fails after that."""
    return json.loads(homefeed(*words, "--json").stdout)


def refusal(*words: str) -> HomefeedError:
    """Return the error of ours that a command ends with."""
    error = homefeed(*words).exception
    assert isinstance(error, HomefeedError), repr(error)
    return error


class Typed(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def typed(home: Path, *words: str) -> Typed:
    """Run all of `homefeed WORDS` in this process, and in a folder.

    Of the settings it has only `home`, and an MLflow that does not answer, for which it waits no
    time. It has no terminal.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HOMEFEED_")]:
            patch.delenv(name)
        patch.setenv("HOMEFEED_HOME", str(home))
        patch.setenv("HOMEFEED_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        patch.chdir(home)
        patch.setattr(mlflow_errors, "WAITS_S", (0.0, 0.0))
        patch.setattr(signal, "signal", lambda *_: None)
        patch.setattr(os, "umask", lambda mask: mask)
        patch.setattr(logging, "basicConfig", lambda **_: None)
        patch.setattr(logging.Logger, "setLevel", lambda *_: None)
        patch.setattr(sys, "argv", ["homefeed", *words])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            with pytest.raises(SystemExit) as end:
                main()
    return Typed(int(end.value.code or 0), out.getvalue(), err.getvalue())
