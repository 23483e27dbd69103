"""One try: a stage is killed at a point, somebody acts, and the stage is run again to its end.

`try_stage` asserts what must hold afterwards. Where nobody acted, everything is as if nothing had
happened: the artifact, the names of all files, the content of snapshots and bundles, and every run,
version and metric in MLflow. Where somebody acted, the stage is done, or refuses for a reason, and
what the person did stands.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.places.folders import scratch_in
from pipelines.stages.runner import read_artifact
from support import stage_acts
from support.points import assert_sound
from support.stage_points import Place, verb_of
from support.stage_processes import KILLED, Ended
from support.stage_world import StageWorld

Act = Callable[[StageWorld], Ended]
NOBODY = "nobody"
ACTORS: dict[str, Act] = {
    "another run is resolved": lambda world: world.deployment.perform(
        partial(stage_acts.resolve, stage_acts.LATER)
    ),
    "a person rolls back": lambda world: world.deployment.perform(stage_acts.roll_back),
    "the alias is moved by hand": lambda world: world.deployment.perform(
        partial(stage_acts.move_by_hand, "1")
    ),
}
ASKING = ("resolve_run", "train_challenger", "compare_with_champion", "promote_challenger")
"""Stages that ask or change the registry, for which somebody acts meanwhile."""
DECIDING = ("resolve_run", "promote_challenger")
"""Stages that look at who serves, so that what somebody does meanwhile decides what they do."""
REFUSALS = ("RecordDisagreesError", "PromotionRefusedError")
"""With these a stage or a person is told that the other one was quicker."""
MOVED_BY_HAND = "the alias is moved by hand"
_RUN_ALONE = ("artifact", "content", "mlflow")
"""What somebody else's doings leave as it would be without them."""


@dataclass(frozen=True)
class StageTry:
    """One try, named by its number in the list that `draw_tries` makes of a seed."""

    number: int
    stage: str
    place: Place
    actor: str = NOBODY

    @property
    def story(self) -> str:
        name, occurrence = self.place
        return f"{self.number}: {self.stage}, killed {name} (number {occurrence}); {self.actor}"


def draw_tries(places: dict[str, list[Place]], seed: int, per_actor: int) -> list[StageTry]:
    """Choose points of each stage, and pairs of a point and an actor, by a seed.

    Args:
        places: The points of each stage, of each class of which one is tried alone.
        seed: Of the draw.
        per_actor: How many points of each asking stage are tried with each actor.

    Returns:
        The tries, in an order in which no stage and actor comes a second time before each has come
        once: so whoever has no time for all of them has tried every pair.
    """
    draw = random.Random(seed)
    chosen: list[tuple[str, Place, str]] = []
    for stage, found in places.items():
        for verb in sorted({verb_of(place) for place in found}):
            same = [place for place in found if verb_of(place) == verb]
            chosen.append((stage, draw.choice(same), NOBODY))
        for actor in ACTORS if stage in ASKING else ():
            drawn = draw.sample(found, min(per_actor, len(found)))
            chosen += [(stage, place, actor) for place in drawn]
    draw.shuffle(chosen)
    seen: Counter[tuple[str, str]] = Counter()
    rounds = []
    for stage, _, actor in chosen:
        rounds.append(seen[(stage, actor)])
        seen[(stage, actor)] += 1
    ordered = sorted(zip(rounds, chosen, strict=True), key=lambda one: one[0])
    return [StageTry(number, *each) for number, (_, each) in enumerate(ordered)]


def sample_of(tries: Sequence[StageTry], seed: int, count: int) -> list[StageTry]:
    """Draw some of the tries by a seed."""
    return random.Random(seed).sample(tries, min(count, len(tries)))


def try_stage(world: StageWorld, each: StageTry) -> None:
    """Kill a stage at a point, let the actor act, run the stage again, and look at everything."""
    world.restore(each.stage)
    killed = world.deployment.perform(world.act_of(each.stage), kill_at=each.place)
    assert killed.code == KILLED, (
        f"{each.story}: the point was not reached; the stage ended with {killed.code} "
        f"{killed.error}\n{killed.said}"
    )
    assert world.living() == [], each.story
    was_published = world.is_published(each.stage)
    acted = _act(world, each)
    served = world.state().serves
    again = world.deployment.perform(world.act_of(each.stage))
    story = f"{each.story}: then {again.error or 'done'}\n{again.said if again.code else ''}"
    if again.code and world.scratch.exists():
        # What was refused has made no scratch folder, and the next one removes the dead one's.
        with scratch_in(world.scratch):
            pass
    assert world.leftovers() == [], f"{story}: {world.leftovers()}"
    assert world.living() == [], story
    if each.actor == NOBODY:
        assert again.code == 0, story
        world.assert_undisturbed(each.stage, story)
    elif each.stage in DECIDING:
        _assert_decided(world, each, again, was_published, story)
        if acted and each.stage == "promote_challenger":
            assert world.state().serves == served or each.actor.startswith("another"), story
    else:
        assert again.code == 0, story
        world.assert_undisturbed(each.stage, story, _RUN_ALONE)
    if each.actor != MOVED_BY_HAND:
        assert_sound(world.state(), story)


def _act(world: StageWorld, each: StageTry) -> bool:
    """Let the actor act, see that nothing unforeseen comes of it, and return whether it was done.

    A stage that only asks stands in nobody's way.
    """
    if each.actor == NOBODY:
        return False
    ended = ACTORS[each.actor](world)
    is_refused = each.stage in DECIDING and ended.error in REFUSALS
    # A run of the same day is refused once this one has promoted: it could only promote no newer.
    has_promoted = world.run_uri in {entry.run_uri for entry in world.state().history.moves}
    is_too_old = ended.error == "ConfigurationError" and has_promoted
    assert ended.code == 0 or is_refused or is_too_old, (
        f"{each.story}: the actor ended with {ended.code} {ended.error}\n{ended.said}"
    )
    return ended.code == 0


def _assert_decided(
    world: StageWorld, each: StageTry, again: Ended, was_published: bool, story: str
) -> None:
    """Check a stage that looks at who serves: it is done, or refuses and says so."""
    assert again.code == 0 or again.error in REFUSALS, story
    assert world.is_published(each.stage) == (again.code == 0), story
    if was_published:
        assert again.code == 0, story
    if again.error == "RecordDisagreesError":
        assert each.actor == MOVED_BY_HAND, story
    if each.stage == "resolve_run" and again.code == 0:
        is_later = each.actor == "a person rolls back" and not was_published
        run = read_artifact(world.run_uri, "resolve_run", ResolvedRun)
        assert run.champion is not None, story
        assert run.champion.version == ("1" if is_later else "2"), story
