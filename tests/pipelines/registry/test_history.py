"""The log of moves: order without a clock, damage that is noticed, and no second writer."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.registry import history
from pipelines.registry.history import Entry, History, LostTheNumberError, Move
from support.desk import record_move
from support.disk import events_on_disk
from support.judgements import CHAMPION

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAME = CHAMPION.name


def move(version: int, days: float = 0) -> Move:
    model = CHAMPION.model_copy(update={"version": str(version)})
    when = NOW + timedelta(days=days)
    return Move(moved_at=when, kind="promotion", model=model, previous=None, reason="A test.")


def versions(known: History) -> list[str]:
    return [each.model.version for each in known.moves]


@pytest.fixture
def known(tmp_path: Path) -> History:
    """Four moves, one a day."""
    place = storage.to_uri(tmp_path / "workspace")
    return [record_move(place, move(version, version), NAME) for version in range(1, 5)][-1]


def load(known: History) -> History:
    return history.load(known.workspace_uri, known.name)


def path_of(known: History, number: int, kind: str = "json") -> Path:
    return storage.local_path(known.uri_of(number, kind))


@pytest.mark.parametrize("stamp", [-300, 3650])  # A clock was set back; it lies in the future.
def test_numbers_order_and_no_clock(known: History, stamp: float) -> None:
    def serving(days: float) -> str:
        return history.serving_at(known, NOW + timedelta(days=days)).model.version

    known = record_move(known.workspace_uri, move(5, stamp), NAME)
    assert versions(known) == ["1", "2", "3", "4", "5"]
    assert known.last is not None and known.last.model.version == "5"
    assert (serving(4), serving(3.1)) == ("5", "3")
    with pytest.raises(ConfigurationError, match="nothing of .* was serving"):
        serving(0)
    known = record_move(known.workspace_uri, move(6, 6), NAME)
    assert serving(6.1) == "6"  # One clock that is wrong hides no later move.
    record_move(known.workspace_uri, move(1, 3650), "another")
    known = record_move(known.workspace_uri, move(2), "another")
    assert serving(1) == "2"  # Nor does that of the first move.


@pytest.mark.parametrize("damage", ["{", "", "altered", "another's"])
@pytest.mark.parametrize("number", [2, 4])
def test_one_file_that_cannot_be_used_costs_one_entry_and_is_named(
    known: History, number: int, damage: str
) -> None:
    path = path_of(known, number)
    altered = path.read_text().replace("A test.", "A joke.")
    kept = {"altered": altered, "another's": path_of(known, 1).read_text()}
    path.write_text(kept.get(damage, damage)) if damage else path.unlink()
    found = load(known)
    left = [str(each) for each in range(1, 5) if each != number]
    assert versions(found) == left
    assert found.damaged == (known.uri_of(number),)
    assert found.is_newest_damaged == (number == 4)
    found = record_move(known.workspace_uri, move(9, 9), NAME)
    assert versions(found) == [*left, "9"] and found.damaged == (known.uri_of(number),)
    history.create(found, move(4).model_copy(update={"acknowledged": (path.name,)}))
    assert load(known).damaged == ()  # A person has seen it.


def test_a_damaged_mark_vouches_for_nothing_and_another_schema_version_is_refused(
    known: History,
) -> None:
    path_of(known, 4, "followed.json").write_text("{")
    assert load(known).is_newest_damaged
    path = path_of(known, 3)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 4}))
    with pytest.raises(DataContractError, match="version 4; expected at most 3, .* use that one"):
        load(known)


@pytest.mark.parametrize("where", ["disk", "store"])
def test_of_many_at_once_one_succeeds_for_each_number(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = storage.to_uri(tmp_path) if where == "disk" else request.getfixturevalue("s3_uri")
    won: list[tuple[int, str]] = []

    def write(number: int) -> None:
        for turn in range(3):
            known, mine = history.load(place, NAME), 10 * number + turn
            try:
                won.append((history.create(known, move(mine)).newest.number, str(mine)))
            except LostTheNumberError as error:
                assert "created by somebody else" in str(error)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(write, range(1, 6)))
    known = history.load(place, NAME)
    assert sorted(won) == [(each.number, each.model.version) for each in known.moves]
    assert known.damaged == () and len({number for number, _ in won}) == len(won) >= 3


def test_an_entry_that_is_there_and_has_my_mark_is_mine_and_a_write_under_way_is_not(
    known: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first request was lost, and the request is made again."""
    write = storage.write_new
    monkeypatch.setattr(storage, "write_new", lambda *what: [write(*what) for _ in range(2)])
    made = history.create(known, move(5))
    assert load(known) == made and versions(made)[-1] == "5"

    def conflict(*_: object) -> None:
        raise RunInProgressError("409")

    monkeypatch.setattr(storage, "write_new", conflict)
    with pytest.raises(RunInProgressError, match="409"):
        history.create(made, move(6))


def test_a_move_is_pending_until_the_alias_was_seen_to_follow(known: History) -> None:
    made = history.create(known, move(5))
    last = made.moves[-1]
    assert made.pending == made.last == last and last.model == move(5).model
    attempt = history.begin_attempt(made, 5)
    assert load(known).attempts == {5}
    for was_set_again in (True, False):  # The first stands.
        history.mark_followed(made, last, was_set_again)
    deletion.remove(attempt)
    found = load(known)
    assert (found.pending, found.attempts) == (None, frozenset())
    assert [history.was_set_again(found, each) for each in found.moves[3:]] == [False, True]
    change = Entry(moved_at=NOW, kind="by_hand", reason="agreed on")  # It is no move.
    after = history.create(found, change)
    assert load(known) == after
    assert after.newest.number == 6 and after.moves == found.moves and after.pending is None


def test_an_entry_appears_whole_and_survives_a_loss_of_power(
    known: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = events_on_disk(monkeypatch)
    history.create(known, move(5))
    begun, *rest = written
    assert begun.startswith("sync .00000005.json.")
    assert rest == ["name 00000005.json", f"sync {NAME}"]


def test_one_command_at_a_time_acts_on_a_disk(
    known: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = path_of(known, 4).with_name(f".00000004.json.{'0123456789abcdef' * 2}")
    left.write_bytes(b"{}")  # A killed writer's.
    monkeypatch.setattr(history, "LOCK_WAIT_S", 0.1)
    lock, busy = history.promotion_lock, "a move of the champion .* is already running"
    with lock(known.workspace_uri):
        assert load(known) == known and not left.exists()
        with pytest.raises(RunInProgressError, match=busy), lock(known.workspace_uri):
            pass
