"""`homefeed serving`, `history`, and the moves that a person makes, with a real registry."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.alerts import transports
from pipelines.alerts.transports import read_outbox
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    TrackingUnavailableError,
    TransientStorageError,
)
from pipelines.plain_text import one_line
from pipelines.registry import history, moves, tracking
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support import commands
from support.commands import as_json, homefeed, lines, refusal
from support.damage import flip_a_byte
from support.desk import record_move
from support.judgements import CHALLENGER, CHAMPION
from support.registered import NOW, challenger_of, promote_bundle
from support.runs import make_run, save_artifact, save_run

pytestmark = pytest.mark.services
DAY = datetime(2017, 6, 12, tzinfo=UTC)
FORGED = "hides rose\n2026-03-09T00:00:00Z  promotion  forged v9"
REPAIR = ("history", "repair")
KINDS = ["promotion", "promotion", "rollback"]


@pytest.fixture
def run(home: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    """The second of two cycles; its model was rolled back."""
    name = f"listed_{home.name}"
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", name)
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    client = tracking.connect(tracking_uri)
    first = promote_bundle(client, make_run(home, as_of=DAY, **places), home, NOW)
    later = make_run(home, as_of=DAY + timedelta(days=14), champion=first, **places)
    promote_bundle(client, later, home, NOW + timedelta(days=7))
    moves.rollback(client, Settings(), None, NOW + timedelta(days=8), FORGED)
    return later


def point_at(run: ResolvedRun, version: str) -> None:
    """Move the alias by hand; '' deletes it."""
    client, place = tracking.connect(run.tracking_uri), (run.registered_model, "champion")
    if version:
        client.set_registered_model_alias(*place, version)
    else:
        client.delete_registered_model_alias(*place)


def serving(*words: str) -> str:
    """Return what `homefeed serving` says after the workspace, whether or not it fails then."""
    return homefeed("serving", *words).output.partition("\n")[2]


def test_it_compares_the_files_of_what_serves_with_what_was_registered(
    run: ResolvedRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert lines("serving", "--verify")[-1] == "its files are those that were registered"
    client = tracking.connect(run.tracking_uri)
    number = client.get_model_version(run.registered_model, "1").source.split("/")[-3]
    of_server = tmp_path_factory.getbasetemp().glob(f"mlflow*/**/{number}/**/*.safetensors")
    flip_a_byte(next(of_server))
    assert "bundle" in str(refusal("serving", "--verify"))
    assert lines("serving")  # which reads the record alone


def test_it_says_what_serves_and_served_and_all_moves(run: ResolvedRun) -> None:
    label, recipe = run.registered_model, run.config.recipe_ref
    place, line = lines("serving")
    assert place == f"workspace: {run.workspace_uri}"
    serves = f"{label} v1 (as_of 2017-06-12, recipe {recipe.label})"
    assert line == f"{serves}, since 2026-03-09 00:00:00 UTC"
    then = serving("--at", "2026-03-08T12:00")
    assert then.startswith(f"{label} v2 (as_of 2017-06-26, recipe {recipe.label})")
    early = str(refusal("serving", "--at", "2016-01-01"))
    assert "was serving at 2016-01-01 00:00:00 UTC; expected a time after the first" in early
    read = as_json("serving")
    assert (read["serving"]["model"]["version"], read["serving"]["kind"]) == ("1", "rollback")
    _, *shown = lines("history")  # in which a reason forges no move
    assert [line.split("  ")[1].strip() for line in shown] == KINDS
    read = as_json("history")
    assert read["workspace_uri"] == run.workspace_uri and read["moves"][2]["reason"] == FORGED
    assert [move["kind"] for move in read["moves"]] == KINDS


def test_a_history_that_is_gone_is_not_taken_for_no_champion_yet(run: ResolvedRun) -> None:
    deletion.remove(f"{run.workspace_uri}/history")
    for words in (("serving",), ("serving", "--at", "2026-03-08T12:00"), ("history",)):
        error = refusal(*words)
        assert isinstance(error, RecordDisagreesError), words
        assert f"{run.registered_model} v1 serves, and the history that no" in str(error)


def test_a_moved_alias_is_told_after_the_answer_and_mended(run: ResolvedRun) -> None:
    name = run.registered_model
    point_at(run, "2")
    for command in ("serving", "history"):
        shown = homefeed(command)
        assert f"{name} v1" in shown.output
        assert isinstance(shown.exception, RecordDisagreesError)
    pasted = lines(*REPAIR, "--to-version", "1")[-1].removeprefix("do it: ")
    assert f"{commands.EXECUTABLE} history repair" in pasted
    commands.run(pasted)
    assert serving().startswith(f"{name} v1")
    point_at(run, "2")
    dry, read = lines(*REPAIR), as_json(*REPAIR)
    assert f"would record that {name} v2 serves" in "\n".join(dry)
    assert f"would {read['steps'][0]}" in dry and not read["is_done"]
    assert f"do it: {read['command']}" == dry[-1]
    lines(*REPAIR, "--apply", "--reason", "seen")
    assert serving().startswith(f"{name} v2")
    for flags in ((), ("--apply", "--reason", "again")):
        assert lines(*REPAIR, *flags)[-1] == "nothing: history and registry agree"
    point_at(run, "")
    assert "`homefeed history repair --to-version N`" in str(refusal(*REPAIR))
    assert f"would point the alias at {name} v2" in lines(*REPAIR, "--to-version", "2")[1]


def test_a_move_that_the_alias_has_not_followed_is_told_as_such(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    """Whoever decided it was killed before the alias was set, or before that was marked."""
    name, place = run.registered_model, run.workspace_uri
    entries = history.load(place, name).moves
    began_at = NOW + timedelta(days=9)
    back = {"model": entries[1].model, "previous": entries[0].model, "moved_at": began_at}
    record_move(place, entries[-1].model_copy(update=back), name, is_followed=False)
    first, second, *_ = serving().splitlines()
    assert first.startswith(f"{name} v1")
    assert second.startswith(f"decided, and the alias is to follow: rollback of {name} v2 ")
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    assert f"{name} v1" in serving()
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", run.tracking_uri)
    point_at(run, "2")
    [line] = serving().splitlines()
    assert line.startswith(f"{name} v2 (as_of 2017-06-26") and f"{began_at:%Y-%m-%d}" in line
    assert serving("--at", "2026-03-09T12:00").startswith(f"{name} v1")


def test_what_is_damaged_or_away_stops_no_answer_that_can_be_given(
    run: ResolvedRun, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    known = history.load(run.workspace_uri, run.registered_model)
    storage.local_path(known.uri_of(2)).write_text("{")
    assert homefeed("serving").exit_code == 0
    shown = homefeed("history")
    assert isinstance(shown.exception, DataContractError)
    assert known.uri_of(2) in str(shown.exception) and len(shown.output.splitlines()) == 3
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    assert serving().startswith(f"{run.registered_model} v1")
    assert isinstance(refusal("serving"), TrackingUnavailableError)
    monkeypatch.setenv("HOMEFEED_HOME", str(Path("typo").absolute()))
    for command in ("serving", "history"):
        error = refusal(command)
        assert isinstance(error, ConfigurationError) and "typo/workspace" in str(error)


def test_a_rollback_that_is_given_twice_says_that_it_is_done(run: ResolvedRun) -> None:
    words = ("rollback", "--from-version", "2")
    shown, read = "\n".join(lines(*words)), as_json(*words)
    assert (read["is_made_now"], read["move"]["model"]["version"]) == (False, "1")
    assert "taken back already at 2026-03-09T00:00:00Z" in shown
    assert f"champion: {run.registered_model} v1" in shown
    [told] = [alert for _, alert in read_outbox(Settings()) if alert.kind == "champion_moved"]
    assert told.happened == f"Somebody went back: {one_line(FORGED)}" and "v1" in told.serves
    # The index of all cycles tells who serves after a move by hand too.
    index = storage.read_bytes(storage.join(run.workspace_uri, "cycles.html")).decode()
    assert f'<p class="word">{run.registered_model} v1</p>' in index


def test_a_move_that_was_made_is_printed_before_a_transport_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save_run(make_run(home, champion=CHAMPION))
    save_artifact(run, "train_challenger", challenger_of(CHALLENGER))
    told = {"kind": "forced", "reason": "The log was late.", "run_uri": run.run_uri}
    made = Move(moved_at=NOW, model=CHALLENGER, previous=CHAMPION, **told)

    def refuse(*about: object) -> None:
        raise TransientStorageError("nobody takes the alert")

    monkeypatch.setattr(tracking, "connect", lambda uri: None)
    monkeypatch.setattr(moves, "force", lambda *about: made)
    monkeypatch.setattr(transports, "deliver", refuse)
    words = ("promote", run.run_uri, "--reason", made.reason, "--force")
    assert isinstance(refusal(*words), TransientStorageError)
    assert as_json(*words)["move"]["reason"] == made.reason
    monkeypatch.setattr(transports, "deliver", lambda *about: None)
    assert as_json(*words)["move"]["kind"] == "forced"
    assert lines(*words) == [f"champion: {CHALLENGER.label} (was {CHAMPION.label})"]
