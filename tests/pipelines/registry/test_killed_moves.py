"""Promotion, rollback and force, killed at every point, with somebody else acting in between.

Nothing is drawn at random here: every pair of a point and an actor is tried, and what must hold
afterwards is in `support.killed_moves`. `make bench-faults` tries more, with two kills in a row.
"""

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import RestException

from pipelines import storage
from pipelines.contracts.errors import TrackingAccessError, TransientStorageError
from pipelines.registry import anchor
from support.killed_moves import ACTIONS, ACTORS, points, try_once
from support.record_world import NAME, kill_at, record_world


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path, action: str, actor: str) -> None:
    names = points(tmp_path / "dry", action)
    assert len(names) >= 8
    for place, name in enumerate(names):
        story = f"{action}, killed {name} (point {place}), then {actor}"
        try_once(tmp_path / f"w{place}", action, actor, [place], story)


def test_the_file_that_a_killed_writer_had_begun_is_counted_until_the_next_one_comes(
    tmp_path: Path,
) -> None:
    place = points(tmp_path / "dry", "roll back").index("before link 00000003.intent.json")
    with record_world(tmp_path / "world") as world:
        world.promote("2")
        assert kill_at(world, world.rollback, place) == "killed"
        [left] = world.leftovers()
        assert left.startswith(f"history/{NAME}/.00000003.intent.json.")
        world.rollback()
        assert world.leftovers() == []


def test_a_rollback_that_was_given_up_says_nothing_of_recipes_any_more(tmp_path: Path) -> None:
    place = points(tmp_path / "dry", "roll back").index("before alias to v1")
    with record_world(tmp_path / "world") as world:
        world.promote("2")
        assert kill_at(world, world.rollback, place) == "killed"
        assert world.recipe_is_held()
        world.resolve()
        assert world.registry.alias == "2" and not world.recipe_is_held()
        kinds = [entry.kind for entry in anchor.read(world.workspace_uri, NAME)]
        assert kinds == ["rollback", "taken_back"]
        assert world.look().history.moves[-1].outcome.note.endswith("when a new cycle began")


def test_what_a_rollback_says_of_recipes_after_it_was_given_up_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was stopped in the request that writes it, and lost its lease meanwhile."""
    late: list[Any] = []

    def stop_in(*arguments: Any) -> None:
        late.extend(arguments)
        raise TransientStorageError("stopped")

    with record_world(tmp_path / "world") as world:
        world.promote("2")
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write_model", stop_in)
            with pytest.raises(TransientStorageError, match="stopped"):
                world.rollback()
        world.resolve()
        assert world.look().history.pending is None
        storage.write_model(*late)
        assert [entry.kind for entry in anchor.read(world.workspace_uri, NAME)] == ["rollback"]
        assert anchor.present(world.workspace_uri, NAME) is None and not world.recipe_is_held()
        world.rollback()
        assert world.registry.alias == "1" and world.recipe_is_held()


def test_what_a_rollback_says_of_recipes_counts_unless_it_is_known_to_be_given_up(
    tmp_path: Path,
) -> None:
    """Also where its outcome is lost: the hold that it says may be needed."""
    with record_world(tmp_path / "world") as world:
        world.promote("2")
        world.rollback()
        assert world.recipe_is_held()
        intent_uri = world.look().history.moves[-1].uri
        for uri in (intent_uri.replace("intent", "outcome"), intent_uri):
            storage.remove(uri)
            assert world.recipe_is_held()


def test_a_move_that_the_registry_refuses_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "not you"})

    with record_world(tmp_path / "world") as world:
        monkeypatch.setattr(world.registry, "set_registered_model_alias", refuse)
        with pytest.raises(TrackingAccessError, match="not you"):
            world.force("2")
        monkeypatch.undo()
        state = world.look()
        assert state.history.pending is None and state.disagreement() == ""
        assert "TrackingAccessError" in state.history.moves[-1].outcome.note
        world.force("2")
        assert world.registry.alias == "2"
