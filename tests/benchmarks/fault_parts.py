"""The three parts of `make bench-faults`: moves of the champion, stages, whole cycles.

Each part yields its tries by number, always in the same order, so that one can be replayed.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from support import killed_moves, killed_stages
from support.faulty_cycles import Plan, plans, run_cycle, world_behind_a_proxy
from support.faulty_proxy import FaultyProxy
from support.killed_moves import ACTIONS, ACTORS
from support.stage_world import STAGES, StageWorld

MOVES_SEED, NUM_DRAWN_MOVES = 11, 700
STAGES_SEED, PER_ACTOR = 5, 2
NUM_CYCLE_SEEDS, EVERYS = 2, (7,)


@dataclass(frozen=True)
class Try:
    """One try: its number within its part, the row that counts it, and what it does."""

    number: int
    row: tuple[str, ...]
    story: str
    run: Callable[[], dict[str, int] | None]
    """Raises AssertionError where something is lost; returns what else is counted."""


class Place:
    """Where the tries of all parts are made; the world of stages is made once, when it is asked."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack

    @cached_property
    def behind(self) -> tuple[StageWorld, FaultyProxy]:
        """A world behind a proxy, and the proxy."""
        return self._stack.enter_context(world_behind_a_proxy(self.folder / "world"))


@dataclass(frozen=True)
class Part:
    """One part: its tries, and the table that tells of them."""

    tries: Callable[[Place], Iterator[Try]]
    says: str
    names: tuple[str, ...]
    """Headings of the columns that name a row."""
    extras: tuple[str, ...] = ()
    """Headings of what is counted besides tries, survived and lost."""
    order: tuple[str, ...] = ()
    """The order of the rows by their first name; () leaves them as they come."""


def _moves(place: Place) -> Iterator[Try]:
    """Yield every pair of point and actor once, and then the draws with two kills."""
    names = {
        action: killed_moves.points(place.folder / f"dry-{number}", action)
        for number, action in enumerate(ACTIONS)
    }
    single = [
        (action, actor, (point,))
        for action in ACTIONS
        for actor in ACTORS
        for point in range(len(names[action]))
    ]
    draw, drawn = random.Random(MOVES_SEED), []
    for _ in range(NUM_DRAWN_MOVES):
        action, actor, points = draw.choice(single)
        drawn.append((action, actor, (*points, draw.randrange(len(names[action])))))
    for number, (action, actor, points) in enumerate([*single, *drawn]):
        killed = " and ".join(names[action][point] for point in points)
        story = f"{number}: {action}, killed {killed}; {actor}"
        folder = place.folder / f"t{number}"
        run = partial(killed_moves.try_once, folder, action, actor, points, story)
        yield Try(number, (action,), story, run)


def _stages(place: Place) -> Iterator[Try]:
    """Yield points of every stage, alone and with an actor."""
    world, _ = place.behind
    for each in killed_stages.draw_tries(world.places, STAGES_SEED, PER_ACTOR):
        row = (each.stage, str(len(world.places[each.stage])))
        yield Try(each.number, row, each.story, partial(killed_stages.try_stage, world, each))


def _cycles(place: Place) -> Iterator[Try]:
    """Yield whole cycles, by the share of their requests that is spoiled, or by its fault."""
    for plan in plans(NUM_CYCLE_SEEDS, EVERYS):
        run = partial(_run_cycle, *place.behind, plan)
        yield Try(plan.number, (plan.kind,), plan.story, run)


def _run_cycle(world: StageWorld, proxy: FaultyProxy, plan: Plan) -> dict[str, int]:
    end = run_cycle(world, proxy, plan)
    return {
        "attempts of stages": end.attempts,
        "requests spoiled": sum(end.met.values()),
        "ended only when the faults stopped": int(bool(end.left_stage)),
    }


PARTS = {
    "moves": Part(
        _moves,
        f"every pair of a point and an actor, and {NUM_DRAWN_MOVES} with a second kill that seed "
        f"{MOVES_SEED} draws",
        ("action",),
    ),
    "stages": Part(
        _stages,
        f"one of each class of points, {PER_ACTOR} points with each actor, "
        f"drawn by seed {STAGES_SEED}",
        ("stage", "points"),
        order=STAGES,
    ),
    "cycles": Part(
        _cycles,
        f"whole cycles before a faulty MLflow, seeds 1 to {NUM_CYCLE_SEEDS}, and one for each "
        f"fault",
        ("requests",),
        ("attempts of stages", "requests spoiled", "ended only when the faults stopped"),
    ),
}
