"""Cycles and people that are about to move one champion, and what must hold when they have."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.registry import history, reconcile
from pipelines.registry.history import Entry, History, Move, Recipes
from pipelines.registry.reconcile import State
from support.at_once import Act, Actors
from support.registered import promote_bundle, register_bundle
from support.runs import make_run

FIRST = datetime(2017, 6, 12, tzinfo=UTC)
SECOND = FIRST + timedelta(days=14)
THIRD = SECOND + timedelta(days=14)
SPREAD_S = 0.03
"""Of the instants at which acts begin; a move takes about ten times as long."""


def cycle(folder: Path, url: str, as_of: datetime, run_id: str, **more: object) -> ResolvedRun:
    name = f"ranker_{folder.name}"
    places = {"tracking_uri": url, "registered_model": name, "experiment": name}
    return make_run(folder, as_of=as_of, run_id=run_id, **places, **more)


def act_at_once(pool: Actors, seed: int, *acts: Act) -> list[str]:
    """Do all at once, in an order that the seed draws."""
    draw = random.Random(seed)
    return pool.act(acts, [draw.uniform(0, SPREAD_S) for _ in acts])


def record_move(
    workspace_uri: str,
    entry: Entry,
    name: str = "test_ranker",
    recipes: Recipes | None = None,
    is_followed: bool = True,
) -> History:
    """Create the next entry of a history, as if the alias had followed it; return the history."""
    known = history.load(workspace_uri, name)
    entry = entry.model_copy(update={"recipes": recipes or known.recipes})
    known = history.create(known, entry)
    if is_followed and isinstance(entry, Move):
        history.mark_followed(known, known.moves[-1], was_set_again=False)
    return history.load(workspace_uri, name)


def sound_state(client: MlflowClient, run: ResolvedRun) -> State:
    """Return what alias and history say, which must be the same."""
    state = reconcile.look(client, run.workspace_uri, run.registered_model)
    assert state.disagreement() == "" and state.history.damaged == ()
    assert state.history.pending is None
    assert state.serves == state.recorded
    return state


def champion_and_challengers(
    client: MlflowClient, folder: Path, url: str, number: int
) -> tuple[ModelRef, list[tuple[ResolvedRun, ModelRef]]]:
    """Let a first cycle's model serve, and return it with cycles that were judged against it."""
    champion = promote_bundle(client, cycle(folder, url, FIRST, "first"), folder)
    runs = [cycle(folder, url, SECOND, f"cycle-{n}", champion=champion) for n in range(number)]
    return champion, [(run, register_bundle(client, run, folder)) for run in runs]
