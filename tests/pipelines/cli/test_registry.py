"""A promotion by hand tells its move, whatever fails after it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.alerts import transports
from pipelines.cli.main import app
from pipelines.contracts.errors import TransientStorageError
from pipelines.registry import by_hand, tracking
from pipelines.registry.history import HistoryEntry
from support.judgements import CHALLENGER, CHAMPION
from support.registered import NOW, challenger_of
from support.runs import make_run, save_artifact, save_run


def test_a_move_that_was_made_is_printed_before_a_transport_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    run = save_run(make_run(tmp_path, champion=CHAMPION))
    save_artifact(run, "train_challenger", challenger_of(CHALLENGER))
    made = HistoryEntry(
        moved_at=NOW,
        kind="forced",
        model=CHALLENGER,
        previous=CHAMPION,
        run_uri=run.run_uri,
        reason="The log was late.",
    )

    def refuse(*about: object) -> None:
        raise TransientStorageError("nobody takes the alert")

    monkeypatch.setattr(tracking, "connect", lambda uri: None)
    monkeypatch.setattr(by_hand, "force", lambda *about: made)
    monkeypatch.setattr(transports, "deliver", refuse)
    words = ["promote", "--run", run.run_uri, "--reason", made.reason, "--force", "--json"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, TransientStorageError)
    assert json.loads(done.stdout)["move"]["reason"] == made.reason
    monkeypatch.setattr(transports, "deliver", lambda *about: None)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["move"]["kind"]) == (0, "forced")
