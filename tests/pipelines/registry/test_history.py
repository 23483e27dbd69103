"""The chain of the history: order without a clock, damage that is noticed, and no second writer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.registry import history
from pipelines.registry.history import History, HistoryEntry
from support.judgements import CHAMPION
from support.registered import write_former_entry
from support.runs import make_run

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAME = CHAMPION.name


def model(version: int) -> ModelRef:
    return CHAMPION.model_copy(update={"version": str(version)})


def add(
    workspace_uri: str, version: int, moved_at: datetime = NOW, is_made: bool = True
) -> history.Move:
    entry = HistoryEntry(
        moved_at=moved_at,
        kind="promotion",
        model=model(version),
        previous=None,
        run_uri=f"file:///runs/{version}",
        reason="A test.",
    )
    known = history.load(workspace_uri, NAME)
    return history.settle(history.begin(workspace_uri, known, entry), is_made, moved_at)


def versions(known: History) -> list[str]:
    return [entry.model.version for _, entry in known.entries]


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    return make_run(tmp_path, registered_model=NAME)


@pytest.fixture
def place(run: ResolvedRun) -> str:
    for version in range(1, 5):
        add(run.workspace_uri, version, NOW + timedelta(days=version))
    return run.workspace_uri


def chain_file(place: str, name: str) -> Path:
    return storage.local_path(storage.join(place, "history", NAME, name))


def test_a_clock_that_was_set_back_changes_no_order(place: str) -> None:
    add(place, 5, NOW - timedelta(days=300))
    known = history.load(place, NAME)
    assert versions(known) == ["1", "2", "3", "4", "5"]
    assert known.last is not None and known.last.model.version == "5"
    at = history.serving_at(known, NAME, NOW + timedelta(days=4))
    assert at.model.version == "5"
    before = history.serving_at(known, NAME, NOW + timedelta(days=3, hours=1))
    assert before.model.version == "3"
    with pytest.raises(ConfigurationError, match="nothing of .* was serving"):
        history.serving_at(known, NAME, NOW)


def test_what_was_given_up_served_nobody(place: str) -> None:
    add(place, 5, NOW + timedelta(days=5), is_made=False)
    known = history.load(place, NAME)
    assert versions(known) == ["1", "2", "3", "4"] and known.damaged == ()
    assert known.of_run("file:///runs/5").outcome.is_made is False


def test_entries_of_the_former_form_come_first(run: ResolvedRun) -> None:
    uri = write_former_entry(run, model(1), NOW - timedelta(days=9))
    write_former_entry(run, model(7).model_copy(update={"name": "another"}), NOW)
    add(run.workspace_uri, 2)
    known = history.load(run.workspace_uri, NAME)
    assert versions(known) == ["1", "2"]
    assert known.entries[0][0] == uri
    storage.local_path(uri).write_text("{")
    known = history.load(run.workspace_uri, NAME)
    assert (versions(known), known.damaged) == (["2"], (uri,))


@pytest.mark.parametrize(
    ("name", "content", "left"),
    [
        ("00000002.intent.json", b"{", ["1", "3", "4"]),
        ("00000002.outcome.json", b"{", ["1", "3", "4"]),
        ("00000002.intent.json", None, ["1", "3", "4"]),
        ("00000002.outcome.json", None, ["1", "3", "4"]),
        ("00000004.intent.json", b"{", ["1", "2", "3"]),
        ("00000004.outcome.json", b"{", ["1", "2", "3"]),
        ("00000004.intent.json", None, ["1", "2", "3"]),
    ],
)
def test_one_file_that_cannot_be_read_costs_one_entry_and_is_named(
    place: str, name: str, content: bytes | None, left: list[str]
) -> None:
    path = chain_file(place, name)
    path.unlink() if content is None else path.write_bytes(content)
    known = history.load(place, NAME)
    assert versions(known) == left
    assert [history.name_of(uri) for uri in known.damaged] == [name]
    assert known.is_newest_damaged == name.startswith("00000004")
    assert known.pending is None
    add(place, 9, NOW + timedelta(days=9))
    assert versions(history.load(place, NAME)) == [*left, "9"]


@pytest.mark.parametrize("part", ["intent", "outcome"])
def test_a_file_that_still_reads_well_and_was_altered_is_noticed(place: str, part: str) -> None:
    path = chain_file(place, f"00000002.{part}.json")
    path.write_text(path.read_text().replace("2026-03-03", "2026-03-02"))
    known = history.load(place, NAME)
    assert [history.name_of(uri) for uri in known.damaged] == [path.name]
    assert versions(known) == ["1", "3", "4"]


def test_a_place_of_the_chain_that_is_gone_altogether_is_noticed(place: str) -> None:
    for part in ("intent", "outcome"):
        chain_file(place, f"00000003.{part}.json").unlink()
    known = history.load(place, NAME)
    assert versions(known) == ["1", "2", "4"]
    assert len(known.damaged) == 2 and not known.is_newest_damaged


def test_two_writers_never_take_the_same_place(place: str) -> None:
    known = history.load(place, NAME)
    entry = known.entries[-1][1]
    first = history.begin(place, known, entry)
    with pytest.raises(RunInProgressError, match="written by another process at the same time"):
        history.begin(place, known, entry.model_copy(update={"reason": "Another."}))
    history.settle(first, True, NOW)
    with pytest.raises(RunInProgressError):
        history.settle(first, False, NOW, "The other way round.")
    assert history.load(place, NAME).damaged == ()


def test_an_intent_without_an_outcome_is_pending_and_not_yet_history(place: str) -> None:
    known = history.load(place, NAME)
    move = history.begin(place, known, known.entries[-1][1])
    pending = history.load(place, NAME).pending
    assert pending is not None and pending.uri == move.uri
    assert versions(history.load(place, NAME)) == ["1", "2", "3", "4"]


def test_what_a_killed_writer_left_is_gone_though_all_was_written(place: str) -> None:
    """It was killed after its file had its name: the next one finds nothing that it must write."""
    left = chain_file(place, f".00000004.outcome.json.{'0123456789abcdef' * 2}")
    left.write_bytes(b"{}")
    before = history.load(place, NAME)
    with history.promotion_lock(place):
        assert history.load(place, NAME) == before
    assert not left.exists()
    assert chain_file(place, "00000004.outcome.json").exists()
