"""`homefeed doctor` prints all it found, then ends with 78 where something is wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"]])
def test_what_is_wrong_is_printed_before_the_command_fails(
    tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    shown = CliRunner().invoke(app, words)
    assert isinstance(shown.exception, ConfigurationError)
    assert "2 thing(s) are wrong here" in str(shown.exception)
    if "--json" in words:
        assert len(json.loads(shown.stdout)["wrong"]) == 2
    else:
        assert shown.stdout.count("\nwrong: ") == 2
