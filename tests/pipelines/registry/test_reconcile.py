"""Alias and history held against each other, and mended."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    RunInProgressError,
    TrackingEntryMissingError,
)
from pipelines.preconditions.cycle import require_record
from pipelines.registry import history, reconcile
from pipelines.registry.reconcile import State, require_agreement
from support.desk import Desk


@pytest.fixture
def two(desk: Desk) -> Desk:
    """A model of which two cycles have promoted a version each; v2 serves."""
    desk.promote_two()
    return desk


def asked(desk: Desk, **more: bool) -> State:
    """Return what a cycle that begins finds."""
    return require_record(desk.client, *desk.where, **more)


def test_nothing_is_to_be_mended_where_they_agree(two: Desk) -> None:
    require_agreement(two.state)
    assert two.steps() == two.steps(restores=True) == []
    assert two.mend() is None and len(two.history.placed) == 2
    assert two.mend(to="1") is not None
    for to in ("1", None):  # The same repair given again writes nothing.
        assert two.mend(to=to) is None
    assert len(two.history.placed) == 3


@pytest.mark.parametrize("restores", [False, True])
def test_an_alias_that_was_moved_by_hand(two: Desk, restores: bool) -> None:
    two.point_at("1")
    with pytest.raises(RecordDisagreesError, match=r"v1 serves.* v2 does.*homefeed history repair"):
        require_agreement(two.state)
    [step] = two.steps(restores)
    assert ("point the alias at" in step, "record that" in step) == (restores, not restores)
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        two.mend(restores, why=" ")
    entry = two.mend(restores)
    assert entry is not None and entry.kind == "outside"
    require_agreement(two.state)
    assert two.state.serves == two.state.recorded == ("2" if restores else "1")
    assert len(two.history.entries) == 3


def test_an_alias_that_was_deleted(two: Desk) -> None:
    two.point_at("")
    with pytest.raises(RecordDisagreesError, match="that no model serves"):
        require_agreement(two.state)
    with pytest.raises(ConfigurationError, match="--restore-alias"):
        two.mend()
    two.mend(restores=True)
    assert asked(two).serves == "2"


def test_a_damaged_entry_is_named_and_acknowledged_once(two: Desk) -> None:
    path = storage.local_path(two.history.placed[1].uri)
    path.write_text("{")
    require_agreement(two.state)  # The damage explains why the history does not know what serves.
    assert [path.name in step for step in two.steps()] == [False, True]
    two.mend()
    assert two.history.damaged == () and two.state.recorded == "2"
    assert two.steps() == []


def test_two_workspaces_do_not_move_one_registered_model(two: Desk, tmp_path: Path) -> None:
    """The other one has no history, so it would find no champion to go back to."""
    first, elsewhere = two.where[0], storage.to_uri(tmp_path / "elsewhere")
    run_uri = storage.join(elsewhere, "runs", "other")
    run = two.cycle(2, workspace_uri=elsewhere, run_uri=run_uri, champion=None)
    with pytest.raises(RecordDisagreesError, match=f"is kept by workspace {first}"):
        two.promote(run)
    two.where = (elsewhere, two.name)
    assert len(two.steps()) == 2
    two.mend()
    require_agreement(two.state)
    two.where = (first, two.name)
    with pytest.raises(RecordDisagreesError, match="is kept by workspace .*elsewhere"):
        require_agreement(two.state)


def test_a_champion_that_was_deleted_is_replaced_by_a_version_that_is_there(two: Desk) -> None:
    two.client.delete_model_version(two.name, "2")
    with pytest.raises(TrackingEntryMissingError, match="--to-version N"):
        two.mend(restores=True)
    assert len(two.history.placed) == 2
    entry = two.mend(to="1")
    assert entry is not None and entry.model.version == "1"
    require_agreement(two.state)


@pytest.mark.parametrize("is_ours", [False, True])
def test_what_a_hand_had_put_behind_the_alias_is_put_away_and_never_gone_back_to(
    two: Desk, is_ours: bool
) -> None:
    if is_ours:
        two.register(two.cycle(2))
    else:
        first = two.client.get_model_version(two.name, "1")
        two.client.create_model_version(two.name, first.source, run_id=first.run_id)
    two.point_at("3")
    with pytest.raises(RecordDisagreesError, match="v3 serves"):
        asked(two)
    two.mend(restores=True)
    assert asked(two).serves == "2"
    assert two.rollback(days=40).model.version == "1"


def test_a_newest_entry_that_is_damaged_makes_no_rollback_a_success(two: Desk) -> None:
    two.rollback()
    two.rollback("2", days=10, why="it was not it")
    storage.local_path(two.history.placed[-1].uri).write_text("{")
    assert two.rollback(days=11).model.version == "1" == two.state.serves


def test_a_move_that_ends_between_two_reads_is_no_disagreement(
    two: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, num_reads = history.load, itertools.count(1)

    def load(workspace_uri: str, name: str) -> history.History:
        """Let a rollback happen before the history is read; the alias was read already."""
        if next(num_reads) == 1:
            monkeypatch.setattr(history, "load", read)
            two.rollback()
        return read(workspace_uri, name)

    monkeypatch.setattr(history, "load", load)
    assert asked(two).serves == "1"


@pytest.mark.parametrize("comes_to_rest", [True, False])
def test_what_the_last_of_many_looks_finds_counts(
    two: Desk, monkeypatch: pytest.MonkeyPatch, comes_to_rest: bool
) -> None:
    """At each look but perhaps the last the alias has been moved once more."""
    rest = two.state
    assert rest.served is not None
    served = (rest.served.model_copy(update={"version": str(n)}) for n in itertools.count(70))
    looks = [replace(rest, served=next(served)) for _ in range(reconcile._MAX_LOOKS)]
    looks.append(rest if comes_to_rest else replace(rest, served=next(served)))
    monkeypatch.setattr(reconcile, "look", lambda *_: looks.pop(0))
    if comes_to_rest:
        assert reconcile.look_between_moves(two.client, *two.where) == rest
    else:
        with pytest.raises(RunInProgressError, match="was moved between"):
            reconcile.look_between_moves(two.client, *two.where)
    assert looks == []


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_new_cycle_does_not_begin_where_the_newest_entry_is_damaged(
    two: Desk, is_deleted: bool
) -> None:
    """Nothing else vouches for the alias: without one, this would be taken for a first cycle."""
    storage.local_path(two.history.placed[-1].uri).write_text("{")
    if is_deleted:
        two.point_at("")
    champion, message = two.champion, "newest entry of the history is damaged"
    with pytest.raises(DataContractError, match=message):
        asked(two)
    with pytest.raises(DataContractError, match=message):
        two.promote(two.cycle(2))
    assert two.champion == champion
    if champion is not None:
        two.mend()
        asked(two)


@pytest.mark.parametrize(
    ("tag", "digest", "message"),
    [
        ("model_digest", "", "have digest .none., and"),
        ("model_digest", "f" * 64, "have digest ffffffffffff, and"),
        ("bundle_digest", "f" * 64, "they belong to two registries"),
    ],
)
def test_a_champion_that_is_another_model_by_now_is_noticed(
    two: Desk, tag: str, digest: str, message: str
) -> None:
    """Who appends a line to its serving code alters or deletes the tag too."""
    two.client.delete_model_version_tag(two.name, "2", tag)
    if digest:
        two.client.set_model_version_tag(two.name, "2", tag, digest)
    with pytest.raises(RecordDisagreesError, match=message):
        asked(two)
    with pytest.raises(ConfigurationError, match="the alias names what the history does.*--to-ver"):
        two.mend(restores=True)
    two.mend()
    asked(two)


@pytest.mark.parametrize("is_followed", [False, True])
def test_a_hand_that_moves_the_alias_to_the_version_before(two: Desk, is_followed: bool) -> None:
    """Before the move was marked it cannot be told from a lost write; then it is set forward."""
    if not is_followed:
        deletion.remove(storage.join(two.where[0], "history", two.name, "00000002.followed.json"))
        history.begin_attempt(*two.where, 2)
    two.point_at("1")
    if is_followed:
        with pytest.raises(RecordDisagreesError, match=r"v1 serves.* v2 does"):
            asked(two)
        assert two.state.serves == "1"
    else:
        assert asked(two, may_settle=False).serves == "1"
        assert asked(two).serves == two.state.serves == "2"
        assert history.was_set_again(*two.where, 2)


def test_an_alias_that_is_moved_while_a_promotion_is_half_done_stops_it(
    two: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(history, "begin_attempt", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            two.promote(two.cycle(2))
    two.point_at("1")
    with pytest.raises(RecordDisagreesError, match=r"v1 serves.* v3 does"):
        asked(two)
    assert "point the alias at" in two.steps(restores=True)[0]
    two.mend(restores=True)
    assert asked(two).serves == "3"
