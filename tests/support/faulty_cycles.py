"""Whole cycles whose requests to a real MLflow are spoiled, each stage retried as Airflow would.

A stage that fails must fail as retryable, with a record of that and of nothing else. When the
faults stop, the cycle ends as one that nothing disturbed: same artifacts, same content, same runs,
versions and metrics in MLflow.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import storage
from pipelines.contracts.run_layout import StageFailure, failure_uri
from support.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from support.stage_processes import Ended
from support.stage_world import STAGES, StageWorld, stage_world

NUM_ATTEMPTS = 6
"""Of one stage while requests are spoiled; a stage that needs more is left for better times."""
_STALL_S = 1.2
"""Longer than the world's client waits for an answer."""


@dataclass(frozen=True)
class Plan:
    """Which requests of a cycle are spoiled."""

    number: int
    kind: str
    share: float = 0.0
    seed: int = 0
    every: int = 0
    fault: str = ""

    @property
    def story(self) -> str:
        what = f"seed {self.seed}" if self.share else f"{self.fault}, every {self.every}th"
        return f"{self.number}: a cycle, {self.kind}; {what}"

    def begin(self, proxy: FaultyProxy) -> None:
        if self.share:
            proxy.spoil(self.share, self.seed)
        else:
            proxy.spoil_every(self.every, self.fault)


@dataclass
class CycleEnd:
    """How a cycle went."""

    attempts: int = 0
    left_stage: str = ""
    """The first stage that did not end while requests were spoiled; '' where all did."""
    met: Counter[str] = field(default_factory=Counter)


def plans(num_seeds: int, everys: tuple[int, ...]) -> list[Plan]:
    """Return the plans: seeds at 5 and 30 % of all requests, and every n-th by each fault.

    Both kinds take turns, so that whoever has no time for all of them has tried some of each.
    """
    drawn = [
        (f"{share:.0%} of requests spoiled", share, seed, 0, "")
        for seed in range(1, num_seeds + 1)
        for share in (0.05, 0.3)
    ]
    counted = [
        (f"every {every}th request spoiled", 0.0, 0, every, fault)
        for every, fault in itertools.product(everys, FAULTS)
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(drawn, counted))
    return [Plan(number, *each) for number, each in enumerate(filter(None, turns))]


@contextlib.contextmanager
def world_behind_a_proxy(folder: Path) -> Iterator[tuple[StageWorld, FaultyProxy]]:
    """Give a world that reaches its MLflow by a proxy, and the proxy, which spoils nothing yet."""
    found: list[FaultyProxy] = []

    @contextlib.contextmanager
    def through(server_url: str) -> Iterator[str]:
        with faulty_proxy(server_url) as proxy:
            proxy.stall_s = _STALL_S
            found.append(proxy)
            yield proxy.url

    with stage_world(folder, through) as world:
        yield world, found[0]


def run_cycle(
    world: StageWorld, proxy: FaultyProxy, plan: Plan, num_attempts: int = NUM_ATTEMPTS
) -> CycleEnd:
    """Run a cycle with spoiled requests, then without, and look at all that it left."""
    world.restore(STAGES[0])
    proxy.met.clear()
    end = CycleEnd()
    for stage in STAGES:
        world.set_verdict_for(stage)
        plan.begin(proxy)
        try:
            for _ in range(num_attempts):
                end.attempts += 1
                if (ended := world.deployment.perform(world.act_of(stage))).code == 0:
                    break
                story = f"{plan.story}: {stage}\n{ended.said}"
                _assert_says_the_truth(world, stage, ended, story)
        finally:
            proxy.mend()
        if ended.code != 0:
            end.left_stage = end.left_stage or stage
            world.deployment.must(world.act_of(stage))
    end.met = Counter(fault for fault, _ in proxy.met)
    for stage in STAGES:
        if stage != "compare_with_champion":  # Its verdict is set by the test, for what follows.
            found, expected = world.artifact(stage), world.undisturbed[stage]["artifact"]
            assert found == expected, f"{plan.story}: {stage}"
    world.assert_undisturbed(STAGES[-1], plan.story)
    state = world.state()
    assert state.disagreement() == "" and state.history.pending is None, plan.story
    return end


def _assert_says_the_truth(world: StageWorld, stage: str, ended: Ended, story: str) -> None:
    """Check that a failed attempt says that a retry may help, and has published nothing."""
    failure = storage.read_model(failure_uri(world.run_uri, stage), StageFailure)
    assert failure.exit_code == 75, f"{failure}: {story}"
    assert failure.error_class == ended.error == "TrackingUnavailableError", story
    assert not world.is_published(stage), story
    state = world.state()
    pending = state.history.pending
    is_told = state.disagreement() == "" and state.history.damaged == ()
    assert is_told and (pending is None or stage == "promote_challenger"), story
