"""Whatever is asked wrongly, of whichever command, is said without colours or a traceback."""

import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.cli.main import app
from support.commands import typed

FOREIGN = "no/such\nplace"
TAKEN = "taken/by\na file"
"""A place that nothing can be written to: what it should lie in is a file."""
WRONG = (64, 65, 75, 77, 78)
CONSTANT = {"local ui", "local retrain", "serve"}
"""Commands that start services whatever they are given; they have tests of their own."""


def leaves(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    if not inner or getattr(command, "invoke_without_command", False):
        yield " ".join(words), command
    for name, each in inner.items():
        yield from leaves(each, *words, name)


LEAVES = dict(leaves(typer.main.get_command(app)))


def value_of(annotation: Any) -> str:
    """Return a value that the parser takes, and that names nothing."""
    if typing.get_origin(annotation) is typing.Literal:
        return str(typing.get_args(annotation)[0])
    return "7" if annotation in (int, float) else FOREIGN


def foreign(name: str) -> list[str]:
    """Return a command with such a value for each argument and each needed option."""
    kinds = typing.get_type_hints(inspect.unwrap(LEAVES[name].callback))
    words = name.split()
    for parameter in LEAVES[name].params:
        is_argument = parameter.param_type_name == "argument"
        if is_argument or parameter.required or parameter.name in ("recipe", "as_of", "at"):
            words += [] if is_argument else [parameter.opts[0]]
            is_written = parameter.name == "to"
            words.append(TAKEN if is_written else value_of(kinds.get(parameter.name)))
    return words


def test_all_commands_are_seen_and_only_what_lasts_knows_no_json(repository: Path) -> None:
    assert {"status", "monitor", "alert test", "history repair", "gate accept"} < {*LEAVES}
    assert {*LEAVES} > CONSTANT
    options = {name: {o for p in each.params for o in p.opts} for name, each in LEAVES.items()}
    without = {name for name, known in options.items() if "--json" not in known}
    assert without == CONSTANT
    page = (repository / "docs" / "command_line.md").read_text()
    assert {name for name in LEAVES if f"\n| `{name}` | " not in page} == without


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in CONSTANT])
def test_a_wrong_place_is_said_as_json_without_a_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / TAKEN.split("/", maxsplit=1)[0]).touch()
    done = typed(tmp_path, *foreign(name), "--json")
    assert "\x1b" not in done.out + done.err
    assert done.code in WRONG or (done.code == 0 and name != "open"), done
    assert done.out or done.code
    if done.out:
        json.loads(done.out)
    if done.code:
        [error] = json.loads(done.err).values()
        assert error.keys() == {"class", "message", "exit_code"}
        assert error["exit_code"] == done.code
