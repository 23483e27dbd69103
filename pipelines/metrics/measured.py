"""The door: `measured` is put around a stage, and knows what the stage used when it has ended.

What an attempt used goes into its manifest, from which verdict page and index of all cycles tell
it; where the environment asks for metrics (`pipelines.metrics.destinations`), the same and what
came of the stage is sent. The runner puts it around every stage, outside the stage's lease, so that
nobody waits for a collector to get the stage.

Tested in tests/pipelines/metrics/test_measured.py, with the runner and real processes.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import HomefeedError, LostRaceError
from pipelines.contracts.run_layout import StageUsage
from pipelines.metrics import instruments
from pipelines.metrics.destinations import wanted_exporters
from pipelines.metrics.facts import Done, points_of
from pipelines.metrics.instruments import (
    CPU_MODE,
    ERROR,
    MODEL,
    OUTCOME,
    RECIPE,
    RETRYABLE,
    STAGE,
    Point,
)
from pipelines.metrics.usage import Usage, UsageMeter, memory_limit_bytes

log = logging.getLogger(__name__)
_is_off: ContextVar[bool] = ContextVar("is_off", default=False)

ON_GPUS = ("train_challenger", "train_anchor")
"""Stages that hold the GPUs of a run; all others work on the processor."""


@dataclass
class Attempt:
    """One attempt of a stage; the runner fills in what it learns."""

    stage: str
    recipe: str = ""
    model: str = ""  # The registered model's name.
    number: int = 0  # The lease's; 0 where none was had.
    inputs: Sequence[Artifact] = ()
    artifact: Artifact | None = None  # None: it was published before, and no work was done.
    meter: UsageMeter | None = field(default=None, repr=False)  # None: the system measures nothing.

    @property
    def run(self) -> ResolvedRun | None:
        """The cycle, which a stage is given or, as `resolve_run`, gives; None before that."""
        found = (each for each in (*self.inputs, self.artifact) if isinstance(each, ResolvedRun))
        return next(found, None)

    @property
    def num_gpus(self) -> int:
        """How many GPUs of this machine the stage holds, busy or not."""
        run = self.run
        if run is None or run.accelerator != "gpu" or self.stage not in ON_GPUS:
            return 0
        return run.num_devices

    def used(self) -> StageUsage | None:
        """Return what was used until now; None where it could not be measured, which is told."""
        if self.meter is None:
            return None
        try:
            usage = self.meter.read()
        except Exception as error:  # Whatever it is, the stage's own work is what counts.
            _tell_unmeasured(self.stage, error)
            return None
        return StageUsage(
            cpu_s=max(0.0, usage.user_s + usage.system_s),
            gpu_s=usage.wall_s * self.num_gpus,
            peak_memory_bytes=usage.peak_memory_bytes,
            read_bytes=usage.read_bytes,
            written_bytes=usage.written_bytes,
        )


@contextlib.contextmanager
def measured(stage: str) -> Iterator[Attempt]:
    """Measure the block; when it has ended, send what it used and what came of it, if asked."""
    attempt = Attempt(stage)
    with contextlib.ExitStack() as until_the_end:
        try:
            attempt.meter = until_the_end.enter_context(UsageMeter())
        except Exception as error:  # The system gives no thread, say.
            _tell_unmeasured(stage, error)
        try:
            yield attempt
        except BaseException as error:
            _report(attempt, error)
            raise
        _report(attempt, None)


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """Send nothing of the stages that the block runs, as of a past cycle that is rebuilt.

    They would be taken for the newest attempts, and an old champion for the one that serves.
    """
    before = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(before)


def _report(attempt: Attempt, error: BaseException | None) -> None:
    """Send what is known, where somebody asks. A fault in here is told and reddens no stage.

    Args:
        attempt: The attempt.
        error: What ended the stage; None: it has done its work.
    """
    if attempt.meter is None or _is_off.get() or not wanted_exporters(os.environ):
        return
    try:
        from pipelines.metrics.sending import send

        points = [*_of_attempt(attempt, attempt.meter.read(), error), *_of_artifact(attempt)]
        send(points, f"{attempt.stage} ({outcome_of(attempt, error)})")
    except Exception as second:
        # Whatever it is, the stage's own end is what people must learn of.
        _tell_unmeasured(attempt.stage, second)


def _tell_unmeasured(stage: str, error: Exception) -> None:
    log.warning(
        "%s was not measured (%s); nothing else of it is affected", stage, type(error).__name__
    )


def outcome_of(attempt: Attempt, error: BaseException | None) -> str:
    """Return how an attempt ended.

    `done`: it did its work. `found`: the work was done before. `lost_race`: another process has the
    stage and tells how that ends. `failed`: an error. `stopped`: a signal or Ctrl-C ended it.
    """
    if error is None:
        return "done" if attempt.artifact is not None else "found"
    if isinstance(error, LostRaceError):
        return "lost_race"
    return "failed" if isinstance(error, Exception) else "stopped"


def _about(attempt: Attempt, error: BaseException | None) -> dict[str, str | bool]:
    return {
        STAGE: attempt.stage,
        RECIPE: attempt.recipe,
        MODEL: attempt.model,
        OUTCOME: outcome_of(attempt, error),
    }


def _of_attempt(attempt: Attempt, usage: Usage, error: BaseException | None) -> Iterator[Point]:
    about = _about(attempt, error)
    how = about if error is None else {**about, ERROR: type(error).__name__}
    if isinstance(error, Exception):
        # What is unforeseen is tried again, as `orchestration.retries` does.
        how = {**how, RETRYABLE: not isinstance(error, HomefeedError) or error.is_retryable}
    yield Point(instruments.STAGE_END_TIME, datetime.now(UTC).timestamp(), how)
    yield Point(instruments.STAGE_ATTEMPTS, 1, how)
    if attempt.number:
        yield Point(instruments.STAGE_ATTEMPT_NUMBER, attempt.number, about)
    yield Point(instruments.STAGE_DURATION, usage.wall_s, about)
    for mode, seconds in (("user", usage.user_s), ("system", usage.system_s)):
        yield Point(instruments.STAGE_CPU_TIME, seconds, {**about, CPU_MODE: mode})
    yield Point(instruments.STAGE_MEMORY_PEAK, usage.peak_memory_bytes, about)
    yield Point(instruments.STAGE_MEMORY_LIMIT, memory_limit_bytes(), about)
    if attempt.num_gpus:
        yield Point(instruments.STAGE_GPU_HELD_TIME, usage.wall_s * attempt.num_gpus, about)


def _of_artifact(attempt: Attempt) -> list[Point]:
    if attempt.run is None or attempt.artifact is None:
        return []
    done = Done(attempt.run, tuple(attempt.inputs), datetime.now(UTC), _about(attempt, None))
    return points_of(attempt.artifact, done)
