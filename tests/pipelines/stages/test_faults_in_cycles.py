"""Stages killed at points, and whole cycles before a faulty MLflow: a seeded sample of both.

What must hold is in `support.killed_stages` and `support.faulty_cycles`. `make bench-faults` tries
more, and replays one by `--only PART NUMBER`.
"""

from collections.abc import Iterator

import pytest

from support.faulty_cycles import Plan, plans, run_cycle, world_behind_a_proxy
from support.faulty_proxy import FaultyProxy
from support.killed_stages import draw_tries, sample_of, try_stage
from support.stage_points import verb_of
from support.stage_world import STAGES, StageWorld

pytestmark = [pytest.mark.services, pytest.mark.slow]
SEED = 5
SLOW = ("check_snapshot", "train_challenger", "compare_with_champion")
"""Stages of which one try takes more than a few seconds."""


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StageWorld, FaultyProxy]]:
    with world_behind_a_proxy(tmp_path_factory.mktemp("faults")) as found:
        yield found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_points_of_a_seed_is_run_again(
    behind: tuple[StageWorld, FaultyProxy], stage: str
) -> None:
    world, _ = behind
    places = {stage: world.places[stage]}
    assert {verb_of(place).split()[0] for place in places[stage]} == {"before", "after"}
    tries = draw_tries(places, SEED, per_actor=1)
    for each in sample_of(tries, SEED, 1 if stage in SLOW else 2):
        try_stage(world, each)


def test_what_is_spoiled_in_mlflow_is_noticed(behind: tuple[StageWorld, FaultyProxy]) -> None:
    world, _ = behind
    after_training = STAGES[STAGES.index("train_challenger") + 1]

    def cut(name: str) -> None:
        world.restore(after_training)
        world.assert_undisturbed("train_challenger", "nothing was spoiled yet")
        newest = max(
            (world.server / "artifacts").rglob(name), key=lambda path: path.stat().st_mtime
        )
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])

    cut("weights.safetensors")
    with pytest.raises(AssertionError, match="has other files"):
        world.assert_undisturbed("train_challenger", "the newest weights were cut in half")
    cut("report.json")
    with pytest.raises(AssertionError, match="report"):
        world.assert_undisturbed("train_challenger", "a report was cut in half")


@pytest.mark.parametrize("plan", plans(1, ()), ids=lambda plan: plan.kind)
def test_a_cycle_before_a_faulty_mlflow_ends_as_undisturbed(
    behind: tuple[StageWorld, FaultyProxy], plan: Plan
) -> None:
    assert sum(run_cycle(*behind, plan, num_attempts=3).met.values()) >= 3
