"""Every command that a message of ours or the README names is understood as it stands."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.cli.main import app
from support.commands import parse

REPOSITORY = Path(__file__).resolve().parents[3]
COMMAND = re.compile(r"`((?:homefeed|make) [^`]+)`")
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]+(?=[\s,;.)`])")


def messages(path: Path) -> list[str]:
    """Return a module's strings but its docstrings, with a word for each value put in."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    return [
        fill(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant)
        and id(node) not in docstrings | inside
        and isinstance(getattr(node, "value", ""), str)
    ]


def fill(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(fill, node.values))
    assert isinstance(node, ast.FormattedValue)
    text = ast.unparse(node.value)
    # what makes commands is tested beside `pipelines.alerts.commands`
    return "homefeed history" if "command(" in text else "something"


def advised() -> list[tuple[str, str]]:
    found = []
    for folder in ("dags", "pipelines", "training", "validation"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for text in messages(path):
                found += [(path.name, command) for command in COMMAND.findall(text)]
    return found


def options(command: Any) -> set[str]:
    """Return the options of a command and of all that it holds."""
    found = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    for inner in getattr(command, "commands", {}).values():
        found |= options(inner)
    return found


PAGES = ("README.md", *(f"docs/{n}.md" for n in ("operations", "recipes", "gate", "samples")))


def in_readme() -> list[str]:
    text = "".join((REPOSITORY / page).read_text() for page in PAGES).replace("\\\n", " ")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = "\n".join(block for language, block in found if not language)
    return re.findall(r"(?:\.venv/bin/(homefeed .*)|^(make \w+))$", blocks, re.MULTILINE)


NAMED_OPTIONS = sorted(
    {
        option
        for folder in ("dags", "pipelines", "training", "validation")
        for path in (REPOSITORY / folder).rglob("*.py")
        for text in messages(path)
        for option in OPTION.findall(text)
    }
)
ADVISED = advised()
IN_README = [one or other for one, other in in_readme()]


def test_the_collection_sees_what_there_is() -> None:
    commands = {command for _, command in ADVISED}
    assert {"make ui", "homefeed history"} <= commands
    assert "homefeed rollback --to-version N" in commands
    assert "make retrain" in IN_README and len(IN_README) > 8


@pytest.mark.parametrize(("module", "command"), ADVISED)
def test_what_a_message_names_is_understood(module: str, command: str) -> None:
    assert is_understood(command)


def test_every_option_that_a_message_names_is_there() -> None:
    assert "--to-version" in NAMED_OPTIONS
    known = options(typer.main.get_command(app)) | {"--help"}
    # A value is put into the name of `--promote` or `--no-promote` (test_next_step.py parses it),
    # and options may follow `--apply` (test_history.py runs it).
    assert set(NAMED_OPTIONS) - known == {"--somethingpromote", "--applysomethingsomething"}


@pytest.mark.parametrize("command", IN_README)
def test_what_the_readme_names_is_understood(command: str) -> None:
    assert is_understood(command)


def is_understood(command: str) -> bool:
    """Return whether make or the command line knows it; a usage error says what it does not."""
    if command.startswith("make "):
        target = rf"^{command.split()[1]}:"
        return re.search(target, (REPOSITORY / "Makefile").read_text(), re.M) is not None
    if command.endswith("--help"):  # which ends the parsing, and is there everywhere
        return True
    return parse(command).info_name in command
