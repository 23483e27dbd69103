"""`homefeed serving`, `history`, and the moves that a person makes, with a real registry."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines import deletion, storage
from pipelines.alerts import transports
from pipelines.cli.main import app
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    TrackingUnavailableError,
    TransientStorageError,
)
from pipelines.registry import history, moves, tracking
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support import commands
from support.judgements import CHALLENGER, CHAMPION
from support.moves import record_move
from support.registered import NOW, challenger_of, promote_bundle
from support.runs import make_run, save_artifact, save_run

pytestmark = pytest.mark.services
DAY = datetime(2017, 6, 12, tzinfo=UTC)
FORGED = "hides rose\n2026-03-09T00:00:00Z  promotion  forged v9"


@pytest.fixture
def run(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    """The second of two cycles; its model was rolled back."""
    name = f"listed_{tmp_path.name}"
    for variable, value in (
        ("HOME", str(tmp_path)),
        ("TRACKING_URI", tracking_uri),
        ("REGISTERED_MODEL", name),
    ):
        monkeypatch.setenv(f"HOMEFEED_{variable}", value)
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    client = tracking.connect(tracking_uri)
    first = promote_bundle(client, make_run(tmp_path, as_of=DAY, **places), tmp_path, NOW)
    later = make_run(tmp_path, as_of=DAY + timedelta(days=14), champion=first, **places)
    promote_bundle(client, later, tmp_path, NOW + timedelta(days=7))
    moves.rollback(client, Settings(), None, NOW + timedelta(days=8), FORGED)
    return later


def homefeed(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_it_says_what_serves_and_served_and_in_which_workspace(run: ResolvedRun) -> None:
    label, recipe = run.registered_model, run.config.recipe_ref
    assert recipe.label == f"smoke ({recipe.digest[:12]})"
    shown = homefeed("serving")
    assert shown.exit_code == 0, shown.output
    place, line = shown.output.splitlines()
    assert place == f"workspace: {run.workspace_uri}"
    serves = f"{label} v1 (as_of 2017-06-12, recipe {recipe.label})"
    assert line == f"{serves}, since 2026-03-09 00:00:00 UTC"
    [_, then] = homefeed("serving", "--at", "2026-03-08T12:00").output.splitlines()
    assert then.startswith(f"{label} v2 (as_of 2017-06-26, recipe {recipe.label})")
    early = str(homefeed("serving", "--at", "2016-01-01").exception)
    assert "was serving at 2016-01-01 00:00:00 UTC; the first champion came 2026-03-0" in early
    assert early.endswith(":00 UTC")


def test_a_history_that_is_gone_is_not_taken_for_no_champion_yet(run: ResolvedRun) -> None:
    deletion.remove(f"{run.workspace_uri}/history")
    for words in (("serving",), ("serving", "--at", "2026-03-08T12:00"), ("history",)):
        shown = homefeed(*words)
        assert isinstance(shown.exception, RecordDisagreesError), words
        assert f"{run.registered_model} v1 serves, and the history that no" in str(shown.exception)


def test_a_moved_alias_is_told_after_the_answer_and_mended(run: ResolvedRun) -> None:
    name = run.registered_model
    client = tracking.connect(run.tracking_uri)
    client.set_registered_model_alias(name, "champion", "2")
    for command in (("serving",), ("history",)):
        shown = homefeed(*command)
        assert f"{name} v1" in shown.output
        assert isinstance(shown.exception, RecordDisagreesError)
        assert "`homefeed history repair`" in str(shown.exception)
    [pasted] = [
        line.removeprefix("do it: ")
        for line in homefeed("history", "repair", "--restore-alias").output.splitlines()
        if line.startswith("do it: ")
    ]
    assert f"{commands.EXECUTABLE} history repair" in pasted
    commands.run(pasted)
    assert homefeed("serving").output.splitlines()[1].startswith(f"{name} v1")
    client.set_registered_model_alias(name, "champion", "2")
    dry = homefeed("history", "repair")
    assert dry.exit_code == 0 and f"would record that {name} v2 serves" in dry.output
    assert "homefeed history repair --apply --reason" in dry.output
    read = json.loads(homefeed("history", "repair", "--json").stdout)
    assert not read["is_done"] and f"do it: {read['command']}" in dry.output
    assert f"would {read['steps'][0]}" in dry.output
    assert isinstance(homefeed("serving").exception, RecordDisagreesError)
    assert homefeed("history", "repair", "--apply", "--reason", "seen").exit_code == 0
    assert homefeed("serving").output.splitlines()[1].startswith(f"{name} v2")
    assert "nothing: history and registry agree" in homefeed("history", "repair").output
    client.delete_registered_model_alias(name, "champion")
    refused = homefeed("history", "repair")
    assert isinstance(refused.exception, ConfigurationError)
    assert "`homefeed history repair --restore-alias`" in str(refused.exception)
    shown = homefeed("history", "repair", "--restore-alias")
    assert f"would point the alias at {name} v2" in shown.output


def test_a_move_that_the_alias_has_not_followed_is_told_as_such(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    """Whoever decided it was killed before the alias was set, or before that was marked."""
    name, place = run.registered_model, run.workspace_uri
    entries = history.load(place, name).moves
    began_at = NOW + timedelta(days=9)
    back = {"model": entries[1].model, "previous": entries[0].model, "moved_at": began_at}
    record_move(place, entries[-1].model_copy(update=back), name, is_followed=False)
    said = f"decided, and the alias is to follow: rollback of {name} v2 "
    shown = homefeed("serving").output.splitlines()
    assert shown[1].startswith(f"{name} v1") and shown[2].startswith(said)
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    assert f"{name} v1" in homefeed("serving").output
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", run.tracking_uri)
    tracking.connect(run.tracking_uri).set_registered_model_alias(name, "champion", "2")
    [_, line] = homefeed("serving").output.splitlines()
    assert line.startswith(f"{name} v2 (as_of 2017-06-26") and f"{began_at:%Y-%m-%d}" in line
    [_, then] = homefeed("serving", "--at", "2026-03-09T12:00").output.splitlines()
    assert then.startswith(f"{name} v1")


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=3650)])
def test_what_serves_now_is_the_newest_move_whatever_its_clock_said(
    run: ResolvedRun, ahead: timedelta
) -> None:
    when = datetime.now(UTC) + ahead
    moves.rollback(tracking.connect(run.tracking_uri), Settings(), "2", when, "a clock ahead")
    assert homefeed("serving").output.splitlines()[1].startswith(f"{run.registered_model} v2")
    moves.rollback(tracking.connect(run.tracking_uri), Settings(), "1", NOW, "a clock behind")
    assert homefeed("serving").output.splitlines()[1].startswith(f"{run.registered_model} v1")


def test_a_damaged_entry_stops_neither_serving_nor_the_list(run: ResolvedRun) -> None:
    known = history.load(run.workspace_uri, run.registered_model)
    storage.local_path(known.uri_of(2)).write_text("{")
    assert homefeed("serving").exit_code == 0
    shown = homefeed("history")
    assert isinstance(shown.exception, DataContractError)
    assert known.uri_of(2) in str(shown.exception) and len(shown.output.splitlines()) == 3


def test_without_a_registry_the_history_still_answers(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    shown = homefeed("serving")
    assert f"{run.registered_model} v1" in shown.output
    assert isinstance(shown.exception, TrackingUnavailableError)
    monkeypatch.setenv("HOMEFEED_HOME", str(Path("typo").absolute()))
    for command in ("serving", "history"):
        error = homefeed(command).exception
        assert isinstance(error, ConfigurationError) and "typo/workspace" in str(error)


def test_a_rollback_that_is_given_twice_says_that_it_is_done(run: ResolvedRun) -> None:
    shown = homefeed("rollback", "--from-version", "2")
    assert shown.exit_code == 0, shown.output
    read = json.loads(homefeed("rollback", "--from-version", "2", "--json").stdout)
    assert (read["is_made_now"], read["move"]["model"]["version"]) == (False, "1")
    assert "taken back already at 2026-03-09T00:00:00Z" in shown.output
    # The index of all cycles tells who serves after a move by hand too.
    index = storage.read_bytes(storage.join(run.workspace_uri, "cycles.html")).decode()
    assert f'<p class="word">{run.registered_model} v1</p>' in index
    assert f"champion: {run.registered_model} v1" in shown.output


def test_json_holds_moves_and_what_serves(run: ResolvedRun) -> None:
    read = json.loads(homefeed("serving", "--json").stdout)
    assert (read["serving"]["model"]["version"], read["serving"]["kind"]) == ("1", "rollback")
    assert read["recipe"]["digest"] == run.config.recipe_digest
    _, *lines = homefeed("history").output.splitlines()  # in which a reason forges no move
    assert [line.split("  ")[1].strip() for line in lines] == ["promotion", "promotion", "rollback"]
    read = json.loads(homefeed("history", "--json").stdout)
    assert read["workspace_uri"] == run.workspace_uri
    assert [move["kind"] for move in read["moves"]] == ["promotion", "promotion", "rollback"]
    assert read["moves"][2]["reason"] == FORGED
    client = tracking.connect(run.tracking_uri)
    client.set_registered_model_alias(run.registered_model, "champion", "2")
    shown = homefeed("serving", "--json")
    assert json.loads(shown.stdout)["serving"]["model"]["version"] == "1"
    assert isinstance(shown.exception, RecordDisagreesError)


def test_a_move_that_was_made_is_printed_before_a_transport_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    run = save_run(make_run(tmp_path, champion=CHAMPION))
    save_artifact(run, "train_challenger", challenger_of(CHALLENGER))
    made = Move(
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
    monkeypatch.setattr(moves, "force", lambda *about: made)
    monkeypatch.setattr(transports, "deliver", refuse)
    words = ["promote", "--run", run.run_uri, "--reason", made.reason, "--force", "--json"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, TransientStorageError)
    assert json.loads(done.stdout)["move"]["reason"] == made.reason
    monkeypatch.setattr(transports, "deliver", lambda *about: None)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["move"]["kind"]) == (0, "forced")
