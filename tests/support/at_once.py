"""Processes that move one champion at the same instant, give or take a few milliseconds.

They are started once and wait for their acts, so that what is measured is the acts and not imports.
"""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.registry import moves, reconcile, registry, tracking
from pipelines.registry.reconcile import State
from pipelines.settings import Settings
from support.points import attempt
from support.registered import (
    NO_ANCHOR,
    NOW,
    challenger_of,
    judgement_of,
    promote_bundle,
    register_bundle,
)
from support.runs import make_run

FIRST = datetime(2017, 6, 12, tzinfo=UTC)
SECOND = FIRST + timedelta(days=14)
THIRD = SECOND + timedelta(days=14)
SPREAD_S = 0.03
"""Of the instants at which acts begin; a move takes about ten times as long."""
_LEAD_S = 0.1
"""By so much the first act begins after all have been handed out."""
_PRELOADED = ("mlflow", "pipelines.registry.moves", "training.bundle.files", "support.registered")
Act = Callable[[], None]


class Actors:
    """A pool of processes, one for each act that is done at the same time."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def act(self, acts: Sequence[Act], delays_s: Sequence[float]) -> list[str]:
        """Do all acts at once, each in a process of its own, so long after a common instant.

        Returns:
            Of each act the class of ours whose error ended it; '' where it was done.
        """
        start = time.monotonic() + _LEAD_S
        pairs = zip(acts, delays_s, strict=True)
        handed_out = [self.begin(act, start + delay_s) for act, delay_s in pairs]
        return [each.result(timeout=120) for each in handed_out]

    def begin(self, act: Act, start: float = 0.0) -> "Future[str]":
        """Hand out one act, to be begun at an instant of the monotonic clock."""
        return self._pool.submit(_do, act, start)


def _do(act: Act, start: float) -> str:
    time.sleep(max(0.0, start - time.monotonic()))
    return attempt(act)


@contextlib.contextmanager
def actors(number: int) -> Iterator[Actors]:
    """Start so many processes, and end them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    with ProcessPoolExecutor(number, mp_context=context) as pool:
        found = Actors(pool)
        found.act([_nothing] * number, [0.0] * number)
        yield found


def _nothing() -> None:
    """Take a process's first act, so that it has started."""
    time.sleep(0.5)


def claim(run: ResolvedRun) -> None:
    """Make the registered model, as its first registration does."""
    client = tracking.connect(run.tracking_uri)
    registry.ensure_registered_model(client, run.registered_model, run.workspace_uri)


def promote(run: ResolvedRun, model: ModelRef) -> None:
    """Promote a challenger as its cycle's stage does."""
    judgement = judgement_of(run, model)
    moves.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judgement, NOW)


def roll_back(run: ResolvedRun, from_version: str) -> None:
    """Take a version down as a person does who has read the verdict's page."""
    settings = Settings(
        workspace=run.workspace_uri,
        tracking_uri=run.tracking_uri,
        registered_model=run.registered_model,
    )
    client = tracking.connect(run.tracking_uri)
    moves.rollback(client, settings, None, NOW, "hides rose", from_version)


def cycle(folder: Path, url: str, as_of: datetime, run_id: str, **more: object) -> ResolvedRun:
    name = f"ranker_{folder.name}"
    places = {"tracking_uri": url, "registered_model": name, "experiment": name}
    return make_run(folder, as_of=as_of, run_id=run_id, **places, **more)


def act_at_once(pool: Actors, seed: int, *acts: Act) -> list[str]:
    """Do all at once, in an order that the seed draws."""
    draw = random.Random(seed)
    return pool.act(acts, [draw.uniform(0, SPREAD_S) for _ in acts])


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
