"""Promotion, rollback and force, killed at every point, with somebody else acting in between.

Nothing is drawn at random: every pair of a point and an actor is tried. What must hold afterwards:
alias and history agree, a cycle has promoted at most once, what a person decided stands, and the
action has either been done or was refused for a reason.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.judgement import Promotion
from pipelines.contracts.run_layout import manifest_uri
from pipelines.stages.runner import read_artifact
from support.record_world import World, attempt, kill_at, points_of, record_world

Act = Callable[[World], None]


def move_by_hand(world: World, version: str | None) -> None:
    world.registry.alias = version


ACTIONS: dict[str, Act] = {
    "promote": lambda world: world.promote("2"),
    "force": lambda world: world.force("2"),
    "roll back": lambda world: world.rollback(),
    "roll back to v1": lambda world: world.rollback("1"),
}
PERSONS: dict[str, Act] = {
    "a rollback": lambda world: world.rollback(),
    "a rollback to v1": lambda world: world.rollback("1"),
    "a forced promotion": lambda world: world.force("3"),
}
OTHERS: dict[str, Act] = {
    "nobody": lambda world: None,
    "another cycle": lambda world: world.promote("3"),
    "a new cycle": lambda world: world.resolve(),
    "a repair": lambda world: world.repair(restores_alias=False),
    "a move by hand": lambda world: move_by_hand(world, "3"),
    "a deleted alias": lambda world: move_by_hand(world, None),
}
HANDS = ("a move by hand", "a deleted alias")


@pytest.mark.parametrize("actor", [*PERSONS, *OTHERS])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path, action: str, actor: str) -> None:
    names = _points(tmp_path / "dry", action)
    assert len(names) >= 8
    for place, name in enumerate(names):
        with record_world(tmp_path / f"w{place}") as world:
            _prepare(world, action)
            _try(world, action, actor, place, f"killed {name}, then {actor}")


def _points(folder: Path, action: str) -> list[str]:
    with record_world(folder) as world:
        _prepare(world, action)
        return points_of(world, lambda: ACTIONS[action](world))


def _prepare(world: World, action: str) -> None:
    if action.startswith("roll back"):
        world.promote("2")


def _try(world: World, action: str, actor: str, place: int, story: str) -> None:
    assert kill_at(world, lambda: ACTIONS[action](world), place) == "killed", story
    published = storage.exists(manifest_uri(world.runs["2"].run_uri, "promote_challenger"))
    refused = attempt(lambda: (PERSONS | OTHERS)[actor](world))
    left = world.registry.alias
    again = attempt(lambda: ACTIONS[action](world))
    state = world.look()
    if actor in HANDS and state.disagreement():
        # It was seen, so nothing was done on top of it, and a person mends it. A stage that has
        # published does nothing and looks at nothing.
        seen = ("RecordDisagreesError", "PromotionRefusedError")
        assert again in seen or (action == "promote" and published), story
        world.repair(restores_alias=True)
        state = world.look()
    assert state.disagreement() == "" and state.history.damaged == (), story
    assert state.history.pending is None, story
    promotions = [e.run_uri for _, e in state.history.entries if e.kind == "promotion"]
    assert len(promotions) == len(set(promotions)), story
    assert world.leftovers() == [], story
    if actor in PERSONS and not refused and action == "promote":
        assert world.registry.alias == left, story
    if actor == "nobody":
        assert again == "", story
        assert world.registry.alias == {"promote": "2", "force": "2"}.get(action, "1"), story
    if action == "promote" and not again:
        run_uri = world.runs["2"].run_uri
        assert storage.exists(manifest_uri(run_uri, "promote_challenger")), story
        found = read_artifact(run_uri, "promote_challenger", Promotion)
        assert found.is_promoted and found.history_uri, story
        assert storage.exists(found.history_uri), story
