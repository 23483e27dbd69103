"""`homefeed status`, `doctor` and `open`: what is printed, what is opened, which code ends them."""

import webbrowser
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipelines import storage
from pipelines.contracts.judgement import Decision
from support.commands import as_json, homefeed, lines, refusal
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


def test_status_is_printed_and_the_code_says_that_mlflow_was_silent(tmp_path: Path) -> None:
    run = begin(tmp_path)
    shown = homefeed("status")
    assert "2017-03-02  not ended: build_snapshot has not ended." in shown.output
    assert shown.exception.exit_code == 75  # type: ignore[union-attr]
    read = as_json("status")
    assert [cycle["run_uri"] for cycle in read["cycles"]] == [run.run_uri]
    assert read["champion"]["is_confirmed"] is False
    assert "MLflow at" in read["problems"][0]


def test_an_alert_is_sent_through_every_transport_to_try_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert as_json("alert", "test")["delivered_to"] == ["outbox"]
    monkeypatch.setenv("HOMEFEED_ALERT_TRANSPORTS", '["smtp", "slack"]')
    said = str(refusal("alert", "test"))  # HOMEFEED_ALERT_EMAIL_TO is empty, Slack has no address
    assert "smtp: HOMEFEED_ALERT_EMAIL_TO is empty" in said and "slack: " in said


def test_doctor_prints_what_is_wrong_before_it_fails() -> None:
    shown = homefeed("doctor")
    assert shown.exception.exit_code == 78  # type: ignore[union-attr]
    assert "2 thing(s) are wrong here" in str(shown.exception)
    assert shown.stdout.count("\nwrong: ") == len(as_json("doctor")["wrong"]) == 2


def test_the_newest_page_and_the_index_are_opened_where_there_are_any(
    tmp_path: Path, opened: list[str]
) -> None:
    for words, said in (
        (("open",), "has a verdict page; expected one that was judged"),
        (("open", "cycles"), "no workspace"),
    ):
        error = refusal(*words)
        assert error.exit_code == 78 and said in str(error)
    judge(begin(tmp_path, 0), Decision.REJECT, has_page=True)
    page = judge(begin(tmp_path, 1), Decision.REJECT, has_page=True).report_uri
    judge(begin(tmp_path, 2), Decision.REJECT)
    begin(tmp_path, 3)
    index = storage.to_uri(tmp_path / "workspace" / "cycles.html")
    assert lines("open") == [page]
    assert lines("open", "cycles") == [index]
    assert "void" in storage.read_bytes(index).decode()
    assert opened == [page, index]


def test_where_nothing_can_be_opened_the_address_is_printed(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(begin(tmp_path), Decision.REJECT, has_page=True)
    [page] = lines("open", "--print")
    with monkeypatch.context() as failing:
        failing.setattr(webbrowser, "open", Mock(side_effect=webbrowser.Error("none")))
        assert lines("open") == [page]
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert lines("open") == [page] and opened == []
