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
NAMES = ("event_log", "operations", "recipes", "gate", "runbook", "samples")
PAGES = ("README.md", *(f"docs/{name}.md" for name in NAMES))


def messages(path: Path) -> list[str]:
    """Return a module's strings but its docstrings, with a word for each value put in."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    left_out = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in ast.walk(node) if part is not node}
    found = (node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant))
    return [fill(node) for node in found if id(node) not in left_out]


def fill(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(fill, node.values))
    if isinstance(node, ast.FormattedValue):
        # what makes commands is tested beside `pipelines.alerts.commands`
        return "homefeed history" if "command(" in ast.unparse(node.value) else "something"
    assert isinstance(node, ast.Constant)
    return str(node.value)


def options(command: Any) -> set[str]:
    """Return the options of a command and of all that it holds."""
    found = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return found.union(*map(options, getattr(command, "commands", {}).values()))


def in_pages() -> list[str]:
    text = "".join((REPOSITORY / page).read_text() for page in PAGES).replace("\\\n", " ")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = "\n".join(block for language, block in found if not language)
    typed = re.findall(r"(?:(?:^|\.venv/bin/)(homefeed .*)|^(make \w+))$", blocks, re.MULTILINE)
    return [one or other for one, other in typed]


FOLDERS = ("dags", "pipelines", "training", "validation")
PATHS = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
MESSAGES = [(path.name, text) for path in PATHS for text in messages(path)]
ADVISED = [(name, command) for name, text in MESSAGES for command in COMMAND.findall(text)]
EXAMPLE = REPOSITORY / "pipelines" / "log_check" / "templates" / "README.md.txt"
ADVISED += [(EXAMPLE.name, command) for command in COMMAND.findall(EXAMPLE.read_text())]
TYPED = in_pages()


def test_the_collection_sees_what_there_is() -> None:
    seen = {"make ui", "homefeed history", "homefeed rollback --to-version N"}
    assert seen <= {command for _, command in ADVISED}
    assert "make retrain" in TYPED and len(TYPED) > 8


@pytest.mark.parametrize(("place", "command"), [*ADVISED, *(("a page", each) for each in TYPED)])
def test_what_is_named_is_understood(place: str, command: str) -> None:
    if command.startswith("make "):
        target = rf"^{command.split()[1]}:"
        assert re.search(target, (REPOSITORY / "Makefile").read_text(), re.M), place
    elif not command.endswith("--help"):  # which ends the parsing, and is there everywhere
        command = re.sub(r" (RUN|something)\b", r" ./\1", command)  # a run, by its folder's path
        command = command.partition(" > ")[0]  # the shell's
        assert parse(command).info_name in command


def test_every_option_that_a_message_names_is_there() -> None:
    named = {option for _, text in MESSAGES for option in OPTION.findall(text)}
    # A value is put into the name of `--promote` or `--no-promote` (test_commands.py parses it),
    # and options may follow `--apply` (test_champion.py runs it); pip has an option of its own.
    known = options(typer.main.get_command(app)) | {"--help"}
    assert named - known == {"--somethingpromote", "--applysomething", "--constraint"}
    assert "--to-version" in named
