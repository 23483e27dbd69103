"""A result is one JSON value for programs, and lines for people."""

import ast
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import main
from pipelines.cli.printing import (
    Commands,
    SafeFormatter,
    say,
    say_value,
    to_json,
)
from pipelines.contracts.errors import DataContractError


@dataclass(frozen=True)
class Found:
    at: datetime
    share: float
    where: Path
    title: str


FOUND = Found(datetime(2026, 1, 5, tzinfo=UTC), float("nan"), Path("/a"), "\x1b[31mred")


def test_json_knows_no_nan_and_steers_no_terminal() -> None:
    out = to_json([FOUND])
    assert "\x1b" not in out and "NaN" not in out
    [read] = json.loads(out)
    assert read == {
        "at": "2026-01-05T00:00:00Z",
        "share": None,
        "where": "/a",
        "title": "\x1b[31mred",
    }


def test_a_line_that_belongs_to_another_stays_indented(capsys: pytest.CaptureFixture) -> None:
    say("a title")
    say("  of\nit")
    assert capsys.readouterr().out == "a title\n  of it\n"


def group() -> Commands:
    made = Commands()

    @made.command()
    def count(number: int) -> dict[str, int]:
        """Count."""
        say(f"counting to {number}")
        if number < 0:
            say_value({"number": number})
            raise DataContractError("below 0")
        return {"number": number}

    @made.command(lasts=True)
    def last() -> None:
        """Last."""

    return made


def test_a_command_says_its_lines_or_prints_what_it_returns() -> None:
    runner = CliRunner()
    assert runner.invoke(group(), ["count", "3"]).stdout == "counting to 3\n"
    assert json.loads(runner.invoke(group(), ["count", "3", "--json"]).stdout) == {"number": 3}
    assert runner.invoke(group(), ["count", "4"]).stdout == "counting to 4\n"  # nothing is left on
    assert runner.invoke(group(), ["last", "--json"]).exit_code == 2


def test_what_was_found_before_an_error_is_printed(capsys: pytest.CaptureFixture) -> None:
    done = CliRunner().invoke(group(), ["count", "--json", "--", "-1"])
    assert json.loads(done.stdout) == {"number": -1}
    say("nothing is left on")
    assert capsys.readouterr().out == "nothing is left on\n"
    assert isinstance(done.exception, DataContractError)


STEERING = "refused:\n- \x1b]0;owned\x07row \u202e1"


@pytest.mark.parametrize("option", [["--json"], []])
@pytest.mark.parametrize("kind", [KeyError, DataContractError])
def test_an_error_keeps_its_lines_and_steers_nothing_and_an_unforeseen_one_has_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture, kind: type[Exception], option: list[str],
) -> None:  # fmt: skip
    def fail(standalone_mode: bool) -> None:
        raise kind(STEERING)

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(main.signal, "signal", lambda *about: None)
    monkeypatch.setattr("sys.argv", ["homefeed", "status", *option])
    with pytest.raises(SystemExit) as end:
        main.main()
    said, is_ours = capsys.readouterr().err, kind is DataContractError
    assert end.value.code == (65 if is_ours else 70)
    assert ("Traceback" in caplog.text) is not is_ours
    assert "\x07" not in said and "\u202e" not in said
    if option:
        assert json.loads(said)["error"]["class"] == kind.__name__
    elif is_ours:
        assert "refused:\n- \\x1b]0;owned\\x07row \\u{202e}1" in said
    else:
        assert said == ""


def test_a_log_line_steers_nothing() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "read %s", ("a\x1b[2Jb\rc",), None)
    assert SafeFormatter("%(message)s").format(record) == "read a\\x1b[2Jb c"


def test_every_module_prints_through_one_door() -> None:
    for path in Path(main.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        called |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert path.name == "printing.py" or not called & {"echo", "secho", "print"}, path
