"""The log of moves: order without a clock, damage that is noticed, and no second writer."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts import files
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RunInProgressError,
)
from pipelines.registry import history
from pipelines.registry.history import (
    History,
    HistoryEntry,
    LostTheNumberError,
    RecipeChange,
    Recipes,
)
from support.judgements import CHAMPION

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAME = CHAMPION.name
PLACES = pytest.mark.parametrize("where", ["disk", "store"])


def model(version: int) -> ModelRef:
    return CHAMPION.model_copy(update={"version": str(version)})


def move(version: int, moved_at: datetime = NOW) -> HistoryEntry:
    fields = {"moved_at": moved_at, "kind": "promotion", "previous": None, "reason": "A test."}
    return HistoryEntry(**fields, model=model(version), run_uri=f"file:///runs/{version}")


def add(place: str, version: int, moved_at: datetime = NOW) -> History:
    known = history.load(place, NAME)
    known = history.create(place, NAME, known, move(version, moved_at), Recipes())
    assert history.load(place, NAME) == known
    history.mark_followed(place, NAME, known.moves[-1], was_set_again=False)
    return history.load(place, NAME)


def versions(known: History) -> list[str]:
    return [entry.model.version for _, entry in known.entries]


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A workspace with four moves, one a day."""
    where = storage.to_uri(tmp_path / "workspace")
    for version in range(1, 5):
        add(where, version, NOW + timedelta(days=version))
    return where


@pytest.fixture
def empty(where: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A workspace without a history, on a disk and in a bucket."""
    if where == "store":
        return str(request.getfixturevalue("s3_uri"))
    return storage.to_uri(tmp_path / "workspace")


def log_file(place: str, name: str) -> Path:
    return storage.local_path(storage.join(place, "history", NAME, name))


@pytest.mark.parametrize(
    ("stamp", "instant", "served"),
    [
        (timedelta(days=-300), timedelta(days=4), "5"),  # A clock was set back.
        (timedelta(days=-300), timedelta(days=3, hours=1), "3"),
        (timedelta(days=3650), timedelta(days=4), "5"),  # It lies in the future.
        (timedelta(days=3650), timedelta(days=3, hours=1), "3"),
    ],
)
def test_numbers_order_and_no_clock(
    place: str, stamp: timedelta, instant: timedelta, served: str
) -> None:
    known = add(place, 5, NOW + stamp)
    assert versions(known) == ["1", "2", "3", "4", "5"]
    assert known.last is not None and known.last.model.version == "5"
    assert history.serving_at(known, NAME, NOW + instant).model.version == served
    with pytest.raises(ConfigurationError, match="nothing of .* was serving"):
        history.serving_at(known, NAME, NOW)
    known = add(place, 6, NOW + timedelta(days=6))  # One clock that is wrong hides no later move.
    at = history.serving_at(known, NAME, NOW + timedelta(days=6, hours=1))
    assert at.model.version == "6"


@pytest.mark.parametrize("content", [b"{", None, "altered"])
@pytest.mark.parametrize("number", [2, 4])
def test_one_file_that_cannot_be_used_costs_one_entry_and_is_named(
    place: str, number: int, content: bytes | str | None
) -> None:
    path = log_file(place, f"{number:08d}.json")
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(path.read_text().replace("A test.", "A joke."))
    known = history.load(place, NAME)
    left = [str(each) for each in range(1, 5) if each != number]
    assert versions(known) == left
    assert [history.name_of(uri) for uri in known.damaged] == [path.name]
    assert known.is_newest_damaged == (number == 4)
    assert versions(add(place, 9, NOW + timedelta(days=9))) == [*left, "9"]
    known = history.load(place, NAME)
    assert [history.name_of(uri) for uri in known.damaged] == [path.name]
    history.create(place, NAME, known, move(4), Recipes(), (path.name,))  # A person has seen it.
    assert history.load(place, NAME).damaged == ()


def test_a_record_of_another_schema_version_is_refused_with_what_to_do(place: str) -> None:
    path = log_file(place, "00000003.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(DataContractError, match="schema version 2; expected 1, .* use that one"):
        history.load(place, NAME)


@PLACES
def test_of_many_at_once_one_succeeds_for_each_number(empty: str) -> None:
    won: list[tuple[int, int]] = []

    def write(number: int) -> None:
        for turn in range(3):
            known = history.load(empty, NAME)
            try:
                made = history.create(empty, NAME, known, move(10 * number + turn), Recipes())
            except LostTheNumberError as error:
                assert "created by somebody else" in str(error)
                continue
            won.append((made.newest.number, 10 * number + turn))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    known = history.load(empty, NAME)
    assert sorted(won) == [
        (each.entry.number, int(each.entry.event.model.version)) for each in known.placed
    ]
    assert known.damaged == () and len({number for number, _ in won}) == len(won) >= 3


def test_an_entry_that_is_there_and_has_my_mark_is_mine(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first request was lost, and the request is made again."""
    write = storage.write_new

    def written_before(uri: str, content: bytes) -> None:
        write(uri, content)
        write(uri, content)

    monkeypatch.setattr(storage, "write_new", written_before)
    known = history.create(place, NAME, history.load(place, NAME), move(5), Recipes())
    assert versions(history.load(place, NAME)) == versions(known)[:-1] + ["5"]


def test_a_move_is_pending_until_the_alias_was_seen_to_follow(place: str) -> None:
    known = history.create(place, NAME, history.load(place, NAME), move(5), Recipes())
    assert known.pending == known.last == move(5)
    mark = history.begin_attempt(place, NAME, 5)
    assert history.load(place, NAME).attempts == ((5, mark),)
    history.mark_followed(place, NAME, known.moves[-1], was_set_again=True)
    history.mark_followed(place, NAME, known.moves[-1], was_set_again=False)  # The first stands.
    history.end_attempt(place, NAME, 5, mark)
    found = history.load(place, NAME)
    assert (found.pending, found.attempts) == (None, ())
    assert history.was_set_again(place, NAME, 5) and not history.was_set_again(place, NAME, 4)
    change = RecipeChange(set_at=NOW, kind="by_hand", reason="agreed on")  # It is no move.
    after = history.create(place, NAME, found, change, Recipes())
    assert after.newest.number == 6 and after.entries == found.entries and after.pending is None


def test_an_entry_appears_whole_and_survives_a_loss_of_power(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for owner, name in ((files.os, "fsync"), (files.os, "link"), (files, "sync_folder")):
        original = getattr(owner, name)

        def observed(*arguments: object, name: str = name, original: object = original) -> None:
            calls.append(name)
            original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, observed)
    history.create(place, NAME, history.load(place, NAME), move(5), Recipes())
    assert calls[:3] == ["fsync", "link", "sync_folder"]


def test_one_command_at_a_time_acts_on_a_disk(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = log_file(place, f".00000004.json.{'0123456789abcdef' * 2}")
    left.write_bytes(b"{}")  # A killed writer's.
    before = history.load(place, NAME)
    monkeypatch.setattr(history, "LOCK_WAIT_S", 0.1)
    with history.promotion_lock(place):
        assert history.load(place, NAME) == before and not left.exists()
        with (
            pytest.raises(RunInProgressError, match="a move of the champion .* is already running"),
            history.promotion_lock(place),
        ):
            pass
