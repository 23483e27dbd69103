"""The history on a real S3 server: it has one writer, and who lost its lease is none."""

import pytest

from pipelines import storage
from pipelines.places import store_lease
from pipelines.registry import history
from support.holders import TTL_S, Holder
from support.judgements import CHAMPION

NAME = CHAMPION.name
MOVE = """
from datetime import UTC, datetime
from pipelines.registry import history
from support.judgements import CHAMPION

NOW = datetime(2026, 3, 1, tzinfo=UTC)
fields = dict(moved_at=NOW, kind="promotion", model=CHAMPION, previous=None, reason="A test.")
entry = history.HistoryEntry(**fields, run_uri={run_uri!r})
try:
    with history.promotion_lock({workspace_uri!r}) as lease:
        known = history.load({workspace_uri!r}, CHAMPION.name)
        if {begins_first}:
            move = history.begin({workspace_uri!r}, known, entry)
        print(lease.number, flush=True)
        sys.stdin.readline()
        {unaware}
        if not {begins_first}:
            move = history.begin({workspace_uri!r}, known, entry)
        history.settle(move, True, NOW)
    print("moved", flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""
UNAWARE = "storage.require_held_leases = lambda: None"
"""As if the process had been stopped after it had looked at its lease, and before it wrote."""


def mover(workspace_uri: str, name: str, begins_first: bool = False, unaware: str = "") -> Holder:
    """Return a process that moves the champion in the history, in two parts."""
    parts = {"begins_first": begins_first, "unaware": unaware or "pass"}
    return Holder(MOVE.format(workspace_uri=workspace_uri, run_uri=f"s3://runs/{name}", **parts))


@pytest.fixture(autouse=True)
def short_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lease, "TTL_S", TTL_S)


def runs_on_record(workspace_uri: str) -> list[tuple[str | None, int, int]]:
    """Return who moved the champion, and the leases of intent and outcome."""
    known = history.load(workspace_uri, NAME)
    assert known.damaged == () and known.pending is None
    found = []
    for move in known.moves:
        assert move.outcome is not None
        found.append((move.intent.entry.run_uri, move.intent.lease, move.outcome.lease))
    return found


@pytest.mark.parametrize("unaware", ["", UNAWARE])
def test_a_stopped_writer_that_wakes_up_writes_no_history(s3_uri: str, unaware: str) -> None:
    with mover(s3_uri, "first", unaware=unaware) as first:
        assert first.says() == "1"
        first.stop()
        with mover(s3_uri, "second") as second:
            assert second.says() == "2"
            second.tell()
            assert second.says() == "moved"
        first.wake()
        first.tell()
        assert first.says().startswith("RunInProgressError")
    assert runs_on_record(s3_uri) == [("s3://runs/second", 2, 2)]


def test_a_stopped_writer_settles_nothing_that_its_successor_has_settled(s3_uri: str) -> None:
    with mover(s3_uri, "first", begins_first=True, unaware=UNAWARE) as first:
        assert first.says() == "1"
        first.stop()
        with history.promotion_lock(s3_uri):
            pending = history.load(s3_uri, NAME).pending
            assert pending is not None
            history.settle(pending, False, pending.intent.entry.moved_at, "Another came.")
        first.wake()
        first.tell()
        assert "was written by another process at the same time" in first.says()
    [move] = history.load(s3_uri, NAME).moves
    assert move.outcome is not None and not move.outcome.is_made
    assert (move.intent.lease, move.outcome.lease) == (1, 2)


def test_history_of_before_there_were_leases_is_read(s3_uri: str) -> None:
    with mover(s3_uri, "first") as first:
        first.says()
        first.tell()
        assert first.says() == "moved"
    [move] = history.load(s3_uri, NAME).moves
    assert move.outcome is not None
    intent = move.intent.model_dump(mode="json", exclude={"lease"})
    outcome = move.outcome.model_dump(mode="json", exclude={"lease"})
    assert history.Intent.model_validate(intent).lease == 0
    assert history.Outcome.model_validate(outcome).lease == 0
    assert storage.exists(move.uri)
