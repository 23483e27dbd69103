"""Processes that move one champion at the same instant, give or take a few milliseconds.

They are started once and wait for their acts, so that what is measured is the acts and not imports.
"""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.registry.reconcile import State
from support.desk import Desk
from support.points import attempt

SPREAD_S = 0.03
"""Of the instants at which acts begin; a move takes about ten times as long."""
_LEAD_S = 0.1
"""By so much the first act begins after all have been handed out."""
_PRELOADED = ("mlflow", "pipelines.registry.moves", "training.bundle.files", "support.desk")
Act = Callable[[], object]


class Actors:
    """A pool of processes, one for each act that is done at the same time."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def act(self, seed: int, *acts: Act) -> list[str]:
        """Do all at once, each in a process of its own, in an order that the seed draws.

        Returns:
            Of each act the class of ours whose error ended it; '' where it was done.
        """
        draw, start = random.Random(seed), time.monotonic() + _LEAD_S
        begun = [self.begin(act, start + draw.uniform(0, SPREAD_S)) for act in acts]
        return [each.result(timeout=120) for each in begun]

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
        found.act(0, *[partial(time.sleep, 0.5)] * number)  # So that all have started.
        yield found


def act_of(desk: Desk, name: str, *words: Any, **more: Any) -> Act:
    """Return an act at a desk, to be done by a process that has a client of its own."""
    return partial(_act, desk.folder, desk.settings.tracking_uri, name, words, more)


def _act(folder: Path, url: str, name: str, words: Any, more: Any) -> None:
    getattr(Desk(folder, url), name)(*words, **more)


def sound_state(desk: Desk) -> State:
    """Return what alias and history say, which must be the same."""
    state = desk.state
    assert state.disagreement() == "" and state.history.damaged == ()
    assert state.history.pending is None
    assert state.serves == state.recorded
    return state
