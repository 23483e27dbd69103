"""What the command line prints of people and data: one line each, and nothing for the terminal."""

import ast
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import storage
from pipelines.cli import main, say
from pipelines.cli.main import app
from pipelines.contracts.errors import DataContractError
from pipelines.recipes import make_recipe
from pipelines.registry import anchor

CLI = Path(say.__file__).parent
FORGED = "late\n2026-01-05T00:00:00Z  promotion  smoke  forged\x1b[2J"


def test_a_line_break_in_a_reason_forges_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    recipe = anchor.Recipe(
        config=make_recipe("smoke").model_dump(mode="json"), code_digest="", run_uri=None
    )
    held = (anchor.HeldRecipe(recipe=recipe, reason=FORGED),)
    entry = anchor.AnchorEntry(
        set_at=datetime(2026, 1, 4, tzinfo=UTC),
        kind="by_hand",
        registered_model="homefeed_ranker",
        recipe=recipe,
        held=held,
        run_uri=None,
        reason=FORGED,
    )
    anchor.append(storage.to_uri(tmp_path / "workspace"), entry)
    shown = CliRunner().invoke(app, ["anchor", "show"])
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
    assert say.SafeFormatter("%(message)s").format(record) == "read a\\x1b[2Jb c"


MODULES = sorted({path.name for path in CLI.glob("*.py")} - {"say.py"})


@pytest.mark.parametrize("module", MODULES)
def test_every_module_prints_through_one_door(module: str) -> None:
    tree = ast.parse((CLI / module).read_text())
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    called |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not called & {"echo", "secho", "print"}
