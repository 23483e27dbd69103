"""`homefeed status` prints what there is, as lines or JSON; its code says what was silent."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.errors import TrackingUnavailableError
from support.runs import make_run, save_run


@pytest.fixture(autouse=True)
def places(tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)


def test_what_is_there_is_printed_and_the_code_says_that_mlflow_was_silent(tmp_path: Path) -> None:
    save_run(make_run(tmp_path))
    shown = CliRunner().invoke(app, ["status"])
    assert "2017-03-02  not ended: build_snapshot has not ended." in shown.output
    assert isinstance(shown.exception, TrackingUnavailableError)
    assert shown.exception.exit_code == 75


def test_json_holds_the_same(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path))
    shown = CliRunner().invoke(app, ["status", "--json"])
    read = json.loads(shown.stdout)
    assert [cycle["run_uri"] for cycle in read["cycles"]] == [run.run_uri]
    assert read["champion"]["is_confirmed"] is False
    assert "MLflow at" in read["problems"][0]


@pytest.mark.services
def test_the_code_is_0_where_all_answers(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", f"status_{tmp_path.name}")
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("champion: none yet\ncycles: none yet; there is no workspace")
