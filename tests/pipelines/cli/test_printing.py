"""A result is one JSON value for programs, and lines for people."""

import ast
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import storage
from pipelines.cli import main
from pipelines.cli.printing import (
    Commands,
    SafeFormatter,
    complain_as_json,
    say,
    say_value,
    to_json,
)
from pipelines.contracts.errors import DataContractError
from pipelines.recipes import make_recipe
from pipelines.registry.history import HeldRecipe, Recipe, RecipeChange, Recipes
from support.moves import record_move


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


def test_what_was_found_before_an_error_is_printed() -> None:
    done = CliRunner().invoke(group(), ["count", "--json", "--", "-1"])
    assert json.loads(done.stdout) == {"number": -1}
    assert isinstance(done.exception, DataContractError)


@pytest.mark.parametrize(("kind", "code"), [(DataContractError, 65), (KeyError, 70)])
def test_an_error_is_json_on_standard_error(
    capsys: pytest.CaptureFixture, kind: type[Exception], code: int
) -> None:
    complain_as_json(raised := kind("\x1b[31mred"))
    said = capsys.readouterr()
    assert said.out == "" and "\x1b" not in said.err
    error = {"class": kind.__name__, "message": str(raised), "exit_code": code}
    assert json.loads(said.err) == {"error": error}


@pytest.mark.parametrize("option", [["--json"], []])
def test_an_unforeseen_error_is_told_too_after_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture, option: list[str],
) -> None:  # fmt: skip
    def break_down(standalone_mode: bool) -> None:
        raise KeyError("no such shard")

    monkeypatch.setattr(main, "app", break_down)
    monkeypatch.setattr(main.signal, "signal", lambda *about: None)
    monkeypatch.setattr("sys.argv", ["homefeed", "status", *option])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 70 and "KeyError: 'no such shard'" in caplog.text
    said = capsys.readouterr().err
    assert json.loads(said)["error"]["class"] == "KeyError" if option else said == ""


FORGED = "late\n2026-01-05T00:00:00Z  promotion  smoke  forged\x1b[2J"


def test_a_line_break_in_a_reason_forges_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    recipe = Recipe(
        config=make_recipe("smoke").model_dump(mode="json"), code_digest="", run_uri=None
    )
    recipes = Recipes(accepted=recipe, held=(HeldRecipe(recipe=recipe, reason=FORGED),))
    change = RecipeChange(set_at=datetime(2026, 1, 4, tzinfo=UTC), kind="by_hand", reason=FORGED)
    workspace = storage.to_uri(tmp_path / "workspace")
    record_move(workspace, change, "homefeed_ranker", recipes)
    shown = CliRunner().invoke(main.app, ["anchor", "show"])
    assert shown.exit_code == 0, shown.output
    one, two = shown.output.splitlines()
    assert one.startswith("2026-01-04T00:00:00Z  by_hand    smoke  late 2026-01-05T")
    assert two.startswith("on hold: ") and two.endswith("forged\\x1b[2J")
    assert "\x1b" not in shown.output


def test_an_error_s_message_keeps_its_lines_and_steers_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(standalone_mode: bool) -> None:
        raise DataContractError("refused:\n- \x1b]0;owned\x07row \u202e1")

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    monkeypatch.setattr(main, "_log_to_stderr", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 65
    told = capsys.readouterr().err
    assert "refused:\n- \\x1b]0;owned\\x07row \\u{202e}1" in told
    assert "\x07" not in told and "\u202e" not in told


def test_a_log_line_steers_nothing() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "read %s", ("a\x1b[2Jb\rc",), None)
    assert SafeFormatter("%(message)s").format(record) == "read a\\x1b[2Jb c"


def test_every_module_prints_through_one_door() -> None:
    for path in Path(main.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        called |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert path.name == "printing.py" or not called & {"echo", "secho", "print"}, path
