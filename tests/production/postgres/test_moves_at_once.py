"""Moves of the champion at the same time: exactly one wins, and the record agrees.

The registry is MLflow on PostgreSQL, and everybody acts in a process of their own. The seed draws
by how many milliseconds they miss each other.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.registry import history, registry, tracking
from support.at_once import (
    FIRST,
    THIRD,
    Actors,
    act_at_once,
    actors,
    champion_and_challengers,
    claim,
    cycle,
    promote,
    roll_back,
    sound_state,
)
from support.registered import register_bundle

pytestmark = pytest.mark.services
SEEDS = range(8)


@pytest.fixture(scope="module")
def pool() -> Iterator[Actors]:
    with actors(3) as found:
        yield found


@pytest.fixture
def client(registry_url: str) -> MlflowClient:
    return tracking.connect(registry_url)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_three_promotions_at_once_one_wins(
    client: MlflowClient, registry_url: str, tmp_path: Path, pool: Actors, seed: int
) -> None:
    _, cycles = champion_and_challengers(client, tmp_path, registry_url, 3)
    ended = act_at_once(pool, seed, *(partial(promote, *each) for each in cycles))
    assert sorted(ended) == ["", "PromotionRefusedError", "PromotionRefusedError"]
    winner = cycles[ended.index("")][1]
    state = sound_state(client, cycles[0][0])
    assert state.served == winner
    assert [entry.model.version for entry in state.history.moves] == ["1", winner.version]


@pytest.mark.parametrize("seed", SEEDS)
def test_of_a_promotion_and_a_rollback_at_once_one_wins(
    client: MlflowClient, registry_url: str, tmp_path: Path, pool: Actors, seed: int
) -> None:
    champion, [(run, second), *_] = champion_and_challengers(client, tmp_path, registry_url, 1)
    promote(run, second)
    run = cycle(tmp_path, registry_url, THIRD, "third", champion=second)
    third = register_bundle(client, run, tmp_path)
    ended = act_at_once(
        pool, seed, partial(promote, run, third), partial(roll_back, run, second.version)
    )
    served = {("", "ConfigurationError"): third, ("PromotionRefusedError", ""): champion}
    assert tuple(ended) in served
    state = sound_state(client, run)
    assert state.served == served[tuple(ended)]
    assert len(state.history.moves) == 3


@pytest.mark.parametrize("seed", range(16))
def test_of_two_workspaces_with_one_registry_one_wins(
    client: MlflowClient, registry_url: str, tmp_path: Path, pool: Actors, seed: int
) -> None:
    """Nothing but the registry is common to them: no history."""
    name = f"ranker_{tmp_path.name}"
    runs = []
    for place in ("one", "two"):
        made = cycle(tmp_path / place, registry_url, FIRST, place)
        runs.append(made.model_copy(update={"registered_model": name, "experiment": name}))
    assert act_at_once(pool, seed, *(partial(claim, run) for run in runs)) == ["", ""]
    models = [register_bundle(client, run, tmp_path) for run in runs]
    acts = [partial(promote, *each) for each in zip(runs, models, strict=True)]
    ended = act_at_once(pool, seed, *acts)
    for _ in range(3):  # Who came in the other's way may try again, as a task does.
        if "" in ended:
            break
        assert set(ended) == {"RunInProgressError"}
        ended = act_at_once(pool, seed, *acts)
    assert ended.count("") == 1
    winner = ended.index("")
    assert sound_state(client, runs[winner]).served == models[winner]
    loser = runs[1 - winner]
    assert history.load(loser.workspace_uri, name).moves == []
    assert registry.read_champion(client, name) == models[winner]
    assert act_at_once(pool, seed, acts[1 - winner]) == ["RecordDisagreesError"]
