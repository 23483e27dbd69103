"""`homefeed open` prints the address in any case, and opens it where a window can be shown."""

import os
import webbrowser
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines import storage
from pipelines.alerts.outcomes import kept_outcome
from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import Decision
from pipelines.overview.addresses import experiments_address
from pipelines.settings import Settings
from support.judgements import CHAMPION, make_judgement
from support.runs import PLANTED_AS_OF, make_run, save_artifact, save_run


@pytest.fixture(autouse=True)
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that a browser was given."""
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":0")
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: found.append(uri) or True)
    return found


def homefeed(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def judge(tmp_path: Path, days: int, has_page: bool = True) -> str:
    as_of = PLANTED_AS_OF + timedelta(days=days)
    run = save_run(make_run(tmp_path, as_of=as_of, champion=CHAMPION))
    page = storage.join(run.run_uri, "compare_with_champion", "report.html")
    judgement = make_judgement(Decision.REJECT).model_copy(update={"report_uri": page})
    kept = kept_outcome(run, judgement, Settings())
    save_artifact(run, "compare_with_champion", judgement.model_copy(update={"outcome": kept}))
    if has_page:
        storage.write_bytes(page, b"<p>")
    return page


def test_the_newest_page_that_is_there_is_opened(tmp_path: Path, opened: list[str]) -> None:
    judge(tmp_path, 0)
    page = judge(tmp_path, 14)
    judge(tmp_path, 28, has_page=False)
    save_run(make_run(tmp_path, as_of=PLANTED_AS_OF + timedelta(days=42)))
    shown = homefeed("open")
    assert (shown.exit_code, shown.output, opened) == (0, f"{page}\n", [page])


def test_the_index_of_all_cycles_is_written_anew_and_opened(
    tmp_path: Path, opened: list[str]
) -> None:
    refused = homefeed("open", "cycles")
    assert isinstance(refused.exception, ConfigurationError)
    assert "no workspace" in str(refused.exception)
    judge(tmp_path, 0)
    shown = homefeed("open", "cycles")
    index = storage.to_uri(tmp_path / "workspace" / "cycles.html")
    assert (shown.exit_code, shown.output, opened) == (0, f"{index}\n", [index])
    assert (
        "REJECT" in storage.read_bytes(index).decode()
        or "void" in storage.read_bytes(index).decode()
    )


def test_print_opens_nothing(opened: list[str]) -> None:
    for what, address in (
        ("airflow", "http://127.0.0.1:8080/dags/homefeed_retrain"),
        ("mlflow", experiments_address(Settings())),
    ):
        assert homefeed("open", what, "--print").output == f"{address}\n"
    assert opened == []


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there is always a display")
def test_without_a_display_the_address_is_printed(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    shown = homefeed("open", "mlflow")
    address = experiments_address(Settings())
    assert (shown.exit_code, shown.output, opened) == (0, f"{address}\n", [])


@pytest.mark.parametrize("error", [None, webbrowser.Error("none")])
def test_without_a_browser_the_address_is_printed(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(uri: str) -> bool:
        if error:
            raise error
        return False

    monkeypatch.setattr(webbrowser, "open", start)
    shown = homefeed("open", "airflow")
    assert shown.exit_code == 0
    assert shown.stdout == "http://127.0.0.1:8080/dags/homefeed_retrain\n"
    assert "no browser could be started" in shown.stderr


def test_where_nothing_was_judged_that_is_said() -> None:
    shown = homefeed("open")
    assert isinstance(shown.exception, ConfigurationError)
    assert "has a verdict page; expected one that was judged" in str(shown.exception)
