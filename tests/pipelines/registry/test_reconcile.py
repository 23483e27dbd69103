"""Alias and history held against each other, and mended."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RecordDisagreesError,
    TrackingEntryMissingError,
)
from pipelines.preconditions.cycle import require_record
from pipelines.registry import history, reconcile, registry
from pipelines.registry.reconcile import State, require_agreement
from support.desk import Desk


def asked(desk: Desk, **more: bool) -> State:
    """Return what a cycle that begins finds."""
    return require_record(desk.client, *desk.where, **more)


def damage_newest(desk: Desk, version: str = "2") -> None:
    storage.local_path(desk.history.uri_of(desk.history.newest.number)).write_text("{")
    require_agreement(desk.state)  # The damage explains why the history does not know what serves.
    desk.point_at(version)


def alter(desk: Desk, tag: str, value: str = "") -> None:
    """Alter a tag of what serves: who appends a line to its serving code alters the tag too."""
    desk.client.delete_model_version_tag(desk.name, "2", tag)
    if value:
        desk.client.set_model_version_tag(desk.name, "2", tag, value)


def put_behind(desk: Desk, is_ours: bool) -> None:
    first = desk.client.get_model_version(desk.name, "1")
    if is_ours:
        desk.register(desk.cycle(2))
    else:
        desk.client.create_model_version(desk.name, first.source, run_id=first.run_id)
    desk.point_at("3")


def half_done(desk: Desk) -> None:
    """Decide a promotion, kill it, and move the alias elsewhere."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(history, "begin_attempt", lambda *_: 1 / 0)
        desk.promote(desk.cycle(2))
    desk.point_at("1")


MODEL, BUNDLE, TWO = "model_digest", "bundle_digest", "has bundle_digest ffff.* two registries"
OTHER, DAMAGED = RecordDisagreesError, DataContractError
NO_VERSION = "expected a version to point the alias at.*repair --to-version N"
FOUND: dict[str, tuple[Callable[[Desk], object], type[HomefeedError], str, str, str]] = {
    # what was done, what a cycle is told, and what serves once the alias, or the history, is right
    "a hand": (lambda d: d.point_at("1"), OTHER, "v1 serves.* v2 does.*history repair", "1", "2"),
    "deleted": (lambda d: d.point_at(""), OTHER, "no model serves", NO_VERSION, "2"),
    "newest damaged": (damage_newest, DAMAGED, "newest entry of the history is", "2", "1"),
    # Nothing else vouches for the alias: this would be taken for a first cycle.
    "both": (lambda d: damage_newest(d, ""), DAMAGED, "newest entry of the h", NO_VERSION, "1"),
    "another of ours": (lambda d: put_behind(d, True), OTHER, "v3 serves", "3", "2"),
    "a stranger's": (lambda d: put_behind(d, False), OTHER, "v3 serves", "lineage tags {}", "2"),
    "half done": (half_done, OTHER, r"v1 serves.* v3 does", "1", "3"),
    "a tag gone": (lambda d: alter(d, MODEL), OTHER, "has model_digest .none. in the", "2", "2"),
    "other files": (lambda d: alter(d, MODEL, "f" * 64), OTHER, "model_digest ffff", "2", "2"),
    "another registry": (lambda d: alter(d, BUNDLE, "f" * 64), OTHER, TWO, "2", "2"),
}


@pytest.mark.parametrize("restores", [False, True])
@pytest.mark.parametrize("found", FOUND)
def test_what_does_not_agree_stops_cycles_until_a_person_says_which_is_right(
    two: Desk, found: str, restores: bool
) -> None:
    spoil, error, message, *expected = FOUND[found]
    next_cycle = two.cycle(3)
    spoil(two)
    served, num_entries = two.state.serves, len(two.history.entries)
    recorded = two.state.recorded
    for act in (lambda: asked(two), lambda: two.promote(next_cycle)):
        with pytest.raises(error, match=message):
            act()
    assert two.state.serves == served
    if not expected[restores].isdecimal():
        with pytest.raises((ConfigurationError, DataContractError), match=expected[restores]):
            two.mend(restores)
        assert len(two.history.entries) == num_entries
        return
    [step, *more] = two.steps(restores)
    assert step.startswith("record" if served == expected[restores] else "point the alias at")
    assert ["is damaged or gone" in each for each in more] == [True] * len(two.history.damaged)
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        two.mend(restores, why=" ")
    entry = two.mend(restores)
    assert entry is not None and entry.kind == "outside"
    # Whoever is told reads which model gave way: the history's, or what the hand had put there.
    before = recorded if served == expected[restores] else served
    assert (entry.previous and entry.previous.version) == before
    assert asked(two).serves == two.state.recorded == expected[restores]
    assert two.history.damaged == () and two.steps() == [] and two.mend() is None
    if found in ("another of ours", "a stranger's") and restores:  # It never served.
        assert two.rollback(days=40).model.version == "1"


def test_a_repair_of_old_damage_carries_out_what_was_decided(two: Desk) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(history, "begin_attempt", lambda *_: 1 / 0)
        two.promote(two.cycle(2))
    storage.local_path(two.history.uri_of(1)).write_text("{")
    entry = two.mend()
    assert entry is not None and entry.model.version == "3"
    assert two.state.serves == two.state.recorded == "3" and two.history.damaged == ()


def test_nothing_is_to_be_mended_where_they_agree(two: Desk) -> None:
    assert two.steps() == two.steps(restores=True) == []
    assert two.mend() is None and len(two.history.entries) == 2
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(history, "begin_attempt", lambda *_: 1 / 0)
        two.mend(to="1")  # A kill, after which the command is given again.
    assert two.mend(to="1") is None and two.history.attempts == frozenset()
    assert two.state.serves == two.state.recorded == "1"
    for to in ("1", None):  # The same repair given again writes nothing.
        assert two.mend(to=to) is None
    assert len(two.history.entries) == 3


def test_a_newest_entry_that_is_damaged_stops_no_rollback(two: Desk) -> None:
    two.rollback()
    two.rollback("2", days=10, why="it was not it")
    damage_newest(two)
    assert two.rollback(days=11).model.version == "1" == two.state.serves


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
    asked(two)
    two.where = (first, two.name)
    with pytest.raises(RecordDisagreesError, match="is kept by workspace .*elsewhere"):
        asked(two)
    two.client.delete_registered_model_tag(two.name, registry.KEEPER)
    with pytest.raises(RecordDisagreesError, match=r"kept by workspace none, .*history repair"):
        two.rollback()
    two.mend()
    assert asked(two).is_kept_here


def test_of_two_workspaces_that_claim_one_model_at_once_one_keeps_it(desk: Desk) -> None:
    places = [storage.to_uri(desk.folder / each) for each in ("one", "two")]
    claim = partial(registry.ensure_registered_model, desk.client, desk.name)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(claim, places))
    keeper = registry.read_keeper(desk.client, desk.name)
    for place in places:
        claim(place)
        state = reconcile.look(desk.client, place, desk.name)
        assert state.keeper == keeper in places and state.is_kept_here == (place == keeper)


def test_a_champion_that_was_deleted_is_replaced_by_a_version_that_is_there(two: Desk) -> None:
    two.client.delete_model_version(two.name, "2")
    with pytest.raises(TrackingEntryMissingError, match="expected one that is there"):
        two.mend(restores=True)
    assert len(two.history.entries) == 2
    entry = two.mend(to="1")
    assert entry is not None and entry.model.version == "1"
    require_agreement(two.state)


def test_a_move_that_ends_between_two_reads_is_no_disagreement(
    two: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = history.load

    def load(*where: str) -> history.History:
        """Let a rollback happen before the history is read; the alias was read already."""
        monkeypatch.setattr(history, "load", read)
        two.rollback()
        return read(*where)

    monkeypatch.setattr(history, "load", load)
    assert asked(two).serves == "1"


def test_a_hand_that_moves_the_alias_back_before_the_move_was_marked_is_set_forward(
    two: Desk,
) -> None:
    """It cannot be told from a lost write."""
    deletion.remove(two.history.uri_of(2, "followed.json"))
    history.begin_attempt(two.history, 2)
    two.point_at("1")
    assert asked(two, may_settle=False).serves == "1"
    assert asked(two).serves == two.state.serves == "2"
    assert history.was_set_again(two.history, two.history.moves[-1])
