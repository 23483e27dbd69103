"""A server that is up is named with what it serves; one that died is not for long."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.overview.status import lines_of, read_status
from pipelines.serving.server import Server
from pipelines.serving.servers import read_servers
from pipelines.settings import Settings
from support.judgements import CHAMPION


@pytest.fixture
def settings(tmp_path: Path, unused_url: str) -> Settings:
    return Settings(home=str(tmp_path), tracking_uri=unused_url)


def test_status_names_each_server_until_its_note_is_old(settings: Settings, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    for port in (8500, 8501):
        server = Server(settings, tmp_path / "cache", 5.0, address=f"here:{port}")
        server.champion.trouble = "the history of it has no move" if port == 8501 else ""
        server._looked()
    uri, later = settings.workspace_uri, before + timedelta(seconds=90)
    one, other = read_servers(uri, before)
    assert (one.address, one.model, one.troubles) == ("here:8500", None, ())
    assert other.troubles == ("the history of it has no move",)
    told = "\n".join(lines_of(read_status(settings, before, 5)[0]))
    assert f"\nserver here:8500: no model yet, up since {one.since:%Y-%m-%d %H:%M} UTC\n" in told
    assert "\n  the history of it has no move\n" in told
    assert read_servers(uri, before + timedelta(seconds=60)) == (one, other)
    assert read_servers(uri, later) == ()
    assert storage.list_names(storage.join(uri, "servers")) == []


def test_a_note_says_which_model_answers(settings: Settings, tmp_path: Path) -> None:
    server = Server(settings, tmp_path / "cache", 5.0, address="here:1")
    server.champion.current = type("Served", (), {"model": CHAMPION})()
    server._looked()
    [note] = read_servers(settings.workspace_uri, datetime.now(UTC))
    assert note.model == CHAMPION
    told = "\n".join(lines_of(read_status(settings, datetime.now(UTC), 5)[0]))
    assert f"server here:1: {CHAMPION.label}, up since" in told


def test_a_workspace_that_cannot_be_written_is_told_in_the_log_and_ends_nothing(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "workspace").write_text("a file")
    server = Server(settings, tmp_path / "cache", 5.0, address="here:1")
    server._looked()
    assert "the server's note or alert: " in caplog.text
    (tmp_path / "workspace").unlink()
    server._looked()
    assert read_servers(settings.workspace_uri, datetime.now(UTC))
