"""A result is one JSON value for programs, and lines for people."""

import ast
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import main
from pipelines.cli.printing import Commands, SafeFormatter, say, say_value, to_json
from pipelines.contracts.errors import DataContractError

STEERING = "refused:\n- \x1b]0;owned\x07row \u202e1"


def test_json_knows_no_nan_and_steers_no_terminal() -> None:
    found = {"at": datetime(2026, 1, 5, tzinfo=UTC), "share": float("nan")}
    found |= {"where": Path("/a"), "title": "\x1b[31mred"}
    told = {"at": "2026-01-05T00:00:00Z", "share": None, "where": "/a", "title": "\x1b[31mred"}
    assert json.loads(to_json([found])) == [told]
    assert "\x1b" not in to_json([found])


def count(number: int) -> dict[str, int]:
    """Count."""
    say(f"counting to {number}")
    say("  of\nit")
    if number < 0:
        say_value({"number": number})
        raise DataContractError("below 0")
    return {"number": number}


def last() -> None:
    """Last."""


def loud() -> None:
    """Loud."""
    say("2017-06-26  PROMOTED, PROMOTE")


def test_words_that_matter_have_colours_on_a_terminal_alone() -> None:
    group, runner = Commands(), CliRunner()
    group.command()(loud)
    group.command()(last)
    shown = runner.invoke(group, ["loud"], color=True).stdout
    assert shown == "2017-06-26  PROMOTED, \x1b[32mPROMOTE\x1b[0m\n"
    assert runner.invoke(group, ["loud"]).stdout == "2017-06-26  PROMOTED, PROMOTE\n"


def test_a_command_says_its_lines_or_prints_what_it_returns_or_found_before_an_error() -> None:
    group, runner = Commands(), CliRunner()
    group.command()(count)
    group.command(lasts=True)(last)
    assert json.loads(runner.invoke(group, ["count", "3", "--json"]).stdout) == {"number": 3}
    failed = runner.invoke(group, ["count", "--json", "--", "-1"])
    assert json.loads(failed.stdout) == {"number": -1}
    assert isinstance(failed.exception, DataContractError)
    # Nothing is left on, and a line that belongs to another stays indented.
    assert runner.invoke(group, ["count", "3"]).stdout == "counting to 3\n  of it\n"
    assert runner.invoke(group, ["last", "--json"]).exit_code == 2


@pytest.mark.parametrize("option", [["--json"], []])
@pytest.mark.parametrize("kind", [KeyError, DataContractError])
def test_an_error_keeps_its_lines_and_steers_nothing_and_an_unforeseen_one_has_its_traceback(
    monkeypatch, caplog, capsys, kind: type[Exception], option: list[str]
) -> None:
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
        nodes = list(ast.walk(ast.parse(path.read_text())))
        called = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        called |= {node.id for node in nodes if isinstance(node, ast.Name)}
        assert path.name == "printing.py" or not called & {"echo", "secho", "print"}, path
