"""`homefeed status`, `doctor` and `open`: what is printed, what is opened, which code ends them."""

import json
import webbrowser
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner, Result

from pipelines import storage
from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError, TrackingUnavailableError
from pipelines.contracts.judgement import Decision
from pipelines.overview.status import addresses_of
from pipelines.settings import Settings
from support.kept_cycles import begin, judge


@pytest.fixture(autouse=True)
def opened(tmp_path: Path, unused_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that a browser was given."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    monkeypatch.setenv("DISPLAY", ":0")
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: found.append(uri) or True)
    return found


def homefeed(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_status_is_printed_and_the_code_says_that_mlflow_was_silent(tmp_path: Path) -> None:
    run = begin(tmp_path)
    shown = homefeed("status")
    assert "2017-03-02  not ended: build_snapshot has not ended." in shown.output
    assert isinstance(shown.exception, TrackingUnavailableError)
    assert shown.exception.exit_code == 75
    read = json.loads(homefeed("status", "--json").stdout)
    assert [cycle["run_uri"] for cycle in read["cycles"]] == [run.run_uri]
    assert read["champion"]["is_confirmed"] is False
    assert "MLflow at" in read["problems"][0]


@pytest.mark.services
def test_the_code_of_status_is_0_where_all_answers(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", f"status_{tmp_path.name}")
    shown = homefeed("status")
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("champion: none yet\ncycles: none yet; there is no workspace")


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--json"]])
def test_doctor_prints_what_is_wrong_before_it_fails(words: list[str]) -> None:
    shown = homefeed(*words)
    assert isinstance(shown.exception, ConfigurationError)
    assert "2 thing(s) are wrong here" in str(shown.exception)
    if "--json" in words:
        assert len(json.loads(shown.stdout)["wrong"]) == 2
    else:
        assert shown.stdout.count("\nwrong: ") == 2


def test_the_newest_page_that_is_there_is_opened(tmp_path: Path, opened: list[str]) -> None:
    judge(begin(tmp_path, 0), Decision.REJECT, has_page=True)
    page = judge(begin(tmp_path, 1), Decision.REJECT, has_page=True).report_uri
    judge(begin(tmp_path, 2), Decision.REJECT)
    begin(tmp_path, 3)
    shown = homefeed("open")
    assert (shown.exit_code, shown.output, opened) == (0, f"{page}\n", [page])


def test_the_index_of_all_cycles_is_written_anew_and_opened(
    tmp_path: Path, opened: list[str]
) -> None:
    refused = homefeed("open", "cycles")
    assert isinstance(refused.exception, ConfigurationError)
    assert "no workspace" in str(refused.exception)
    judge(begin(tmp_path), Decision.REJECT)
    shown = homefeed("open", "cycles")
    index = storage.to_uri(tmp_path / "workspace" / "cycles.html")
    assert (shown.exit_code, shown.output, opened) == (0, f"{index}\n", [index])
    assert "void" in storage.read_bytes(index).decode()


def test_print_opens_nothing(opened: list[str]) -> None:
    for what, address in (
        ("airflow", "http://127.0.0.1:8080/dags/homefeed_retrain"),
        ("mlflow", addresses_of(Settings())["MLflow"]),
    ):
        assert homefeed("open", what, "--print").output == f"{address}\n"
    assert opened == []


def test_without_a_display_or_a_browser_the_address_is_printed(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = addresses_of(Settings())["MLflow"]
    for fail in ({"return_value": False}, {"side_effect": webbrowser.Error("none")}):
        monkeypatch.setattr(webbrowser, "open", Mock(**fail))
        shown = homefeed("open", "mlflow")
        assert (shown.exit_code, shown.stdout) == (0, f"{address}\n")
        assert "no browser could be started" in shown.stderr
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    shown = homefeed("open", "mlflow")
    assert (shown.exit_code, shown.output, opened) == (0, f"{address}\n", [])


def test_where_nothing_was_judged_that_is_said() -> None:
    shown = homefeed("open")
    assert isinstance(shown.exception, ConfigurationError)
    assert "has a verdict page; expected one that was judged" in str(shown.exception)
