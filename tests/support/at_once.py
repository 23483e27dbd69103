"""Processes that act on one registry at the same instant, give or take a few milliseconds.

They are started once and wait for their acts, so that what is measured is the acts and not imports.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import HomefeedError
from pipelines.registry import moves, tracking
from pipelines.settings import Settings
from support.registered import NO_ANCHOR, challenger_of, judgement_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_LEAD_S = 0.1
"""By so much the first act begins after all have been handed out."""
_PRELOADED = ("mlflow", "pipelines.registry.moves", "training.bundle.files", "support.registered")
Act = Callable[[], None]


class Actors:
    """A pool of processes, one for each act that is done at the same time."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def act(self, acts: Sequence[Act], delays_s: Sequence[float]) -> list[str]:
        """Do all acts at once, each in a process of its own.

        Args:
            acts: What is done.
            delays_s: How long after the common instant each begins.

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
    try:
        act()
    except HomefeedError as error:
        return type(error).__name__
    return ""


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
