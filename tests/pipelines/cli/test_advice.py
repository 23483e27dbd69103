"""Every command that a message of ours or the README names is understood as it stands."""

import ast
import re
from pathlib import Path

import pytest

from support.commands import parse

REPOSITORY = Path(__file__).resolve().parents[3]
PLACEHOLDERS = {"as_of": "2017-03-02", "num_devices": "1", "max_devices": "1"}
COMMAND = re.compile(r"`((?:homefeed|make) [^`]+)`")
OPTION = re.compile(r"`(--[^`]+)`")


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


def in_readme() -> list[str]:
    text = (REPOSITORY / "README.md").read_text().replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    return re.findall(r"(?:\.venv/bin/(homefeed .*)|^(make \w+))$", blocks, re.MULTILINE)


ADVISED = advised()
IN_README = [one or other for one, other in in_readme()]


def test_the_collection_sees_what_there_is() -> None:
    commands = {command for _, command in ADVISED}
    assert {"homefeed serving", "make ui", "homefeed history"} <= commands
    assert "homefeed rollback --to-version N" in commands
    assert "make retrain" in IN_README and len(IN_README) > 8


@pytest.mark.parametrize(("module", "command"), ADVISED)
def test_what_a_message_names_is_understood(module: str, command: str) -> None:
    understand(command)


@pytest.mark.parametrize("command", IN_README)
def test_what_the_readme_names_is_understood(command: str) -> None:
    understand(command)


def understand(command: str) -> None:
    if command.startswith("make "):
        assert re.search(rf"^{command.split()[1]}:", (REPOSITORY / "Makefile").read_text(), re.M)
    elif not command.endswith("--help"):  # which ends the parsing, and is there everywhere
        parse(command)
