"""One try: an action on the record is killed, somebody acts, and the action is given again.

`try_once` asserts what must hold afterwards: alias and history agree, a cycle has promoted at most
once, what a person decided stands, and the action has been done or was refused for a reason.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pipelines import storage
from pipelines.contracts.judgement import Promotion
from pipelines.contracts.run_layout import manifest_uri
from pipelines.stages.runner import read_artifact
from support.points import OF_MOVES, ON_STORE, assert_sound, attempt, die_at, kill_at, points_of
from support.record_world import World, record_world

Act = Callable[[World], None]


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
    "a repair": lambda world: world.repair(),
    "a move by hand": lambda world: setattr(world.registry, "alias", "3"),
    "a deleted alias": lambda world: setattr(world.registry, "alias", None),
}
ACTORS = PERSONS | OTHERS
HANDS = ("a move by hand", "a deleted alias")
SEEN = ("RecordDisagreesError", "PromotionRefusedError")


def points(folder: Path, action: str, workspace_uri: str = "") -> list[str]:
    """Return the names of an action's points, in order."""
    with record_world(folder, workspace_uri) as world:
        prepare(world, action)
        acts = ON_STORE if workspace_uri else OF_MOVES
        return points_of(world, lambda: ACTIONS[action](world), acts)


def try_once(
    folder: Path,
    action: str,
    actor: str,
    places: Sequence[int],
    story: str,
    workspace_uri: str = "",
) -> None:
    """Kill an action at a point, let the actor act, kill the repetition too, and repeat it again.

    Args:
        folder: A new folder for the try.
        action: One of ACTIONS.
        actor: One of ACTORS, who acts after the first kill.
        places: At which point each attempt is killed; a later one may end before it comes there.
        story: What an assertion that fails says.
        workspace_uri: Where the workspace lies, on a store; in the folder if empty.
    """
    kill = die_at if workspace_uri else kill_at
    with record_world(folder, workspace_uri) as world:
        prepare(world, action)
        act = partial(ACTIONS[action], world)
        assert kill(world, act, places[0]) == "killed", story
        is_published = storage.exists(_manifest(world))
        refused = attempt(lambda: ACTORS[actor](world))
        left = world.registry.alias
        for place in places[1:]:
            assert kill(world, act, place) != "broken", story
        again = attempt(act)
        if actor in HANDS:
            # It is seen, so nothing is done on top of it, and a person mends it. A stage that has
            # published does nothing and looks at nothing.
            assert again in SEEN or (action == "promote" and is_published), story
            world.repair(restores=True)
        _assert_sound(world, story)
        if actor in PERSONS and not refused and action == "promote":
            assert world.registry.alias == left, story
        if actor == "nobody":
            assert again == "", story
            assert world.registry.alias == {"promote": "2", "force": "2"}.get(action, "1"), story
        if action == "promote" and not again:
            assert storage.exists(_manifest(world)), story
            run_uri = world.runs["2"].run_uri
            assert read_artifact(run_uri, "promote_challenger", Promotion).is_promoted, story
            assert world.look().history.of_run(run_uri), story


def prepare(world: World, action: str) -> None:
    """Bring a world to where an action has something to do."""
    if action.startswith("roll back"):
        world.promote("2")


def _manifest(world: World) -> str:
    return manifest_uri(world.runs["2"].run_uri, "promote_challenger")


def _assert_sound(world: World, story: str) -> None:
    state = world.look()
    assert_sound(state, story)
    assert world.leftovers() == [], story
    assert state.history.last is not None, story
    # Each move but a repair begins where the one before ended, which the alias has followed.
    for earlier, later in zip(state.history.moves, state.history.moves[1:], strict=False):
        if later.kind != "outside":
            assert later.previous == earlier.model, story
            assert earlier.number in state.history.followed, story
