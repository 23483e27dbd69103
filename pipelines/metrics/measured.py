"""The door: `measured` is put around a stage, and knows what the stage used when it has ended.

What an attempt used goes into its manifest, from which verdict page and index of all cycles tell
it; where the environment asks for metrics (`pipelines.metrics.sending`), the same and what came of
the stage is sent. The runner puts it around every stage, outside the stage's lock, so that nobody
waits for a collector to get the stage.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.contracts.run_layout import StageUsage
from pipelines.contracts.stage_table import devices_of
from pipelines.metrics.instruments import (
    ERROR,
    MODEL,
    OUTCOME,
    RECIPE,
    RETRYABLE,
    STAGE,
    VERDICT,
    Point,
)
from pipelines.metrics.sending import is_wanted, send
from pipelines.metrics.usage import UsageMeter, memory_limit_bytes

log = logging.getLogger(__name__)
_is_off: ContextVar[bool] = ContextVar("is_off", default=False)
_About = dict[str, str | bool]


@dataclass
class Attempt:
    """One attempt of a stage; the runner fills in what it learns."""

    stage: str
    recipe: str = ""
    model: str = ""  # The registered model's name.
    inputs: Sequence[Any] = ()
    artifact: Artifact | None = None  # None: it was published before, and no work was done.
    meter: UsageMeter | None = None  # None: the system measures nothing.

    @property
    def run(self) -> ResolvedRun | None:
        """The cycle, which a stage is given or, as `resolve_run`, gives; None before that."""
        found = (each for each in (*self.inputs, self.artifact) if isinstance(each, ResolvedRun))
        return next(found, None)

    def used(self) -> StageUsage | None:
        """Return what was used until now; None where it could not be measured, which is told."""
        run, num_gpus = self.run, 0
        if run is not None and run.accelerator == "gpu":
            num_gpus = devices_of(self.stage, run.num_devices)
        with _harmless(self.stage):
            return self.meter.read(num_gpus) if self.meter else None
        return None


@contextlib.contextmanager
def _harmless(stage: str) -> Iterator[None]:
    """Tell of a fault in the measuring; the stage's own work, and how it ended, is what counts."""
    try:
        yield
    except Exception as error:
        log.warning(
            "%s was not measured (%s); nothing else of it is affected", stage, type(error).__name__
        )


@contextlib.contextmanager
def measured(stage: str) -> Iterator[Attempt]:
    """Measure the block; when it has ended, send what it used and what came of it, if asked."""
    attempt, ended = Attempt(stage), None
    with _harmless(stage):  # The system may give no thread, say.
        attempt.meter = UsageMeter()
    try:
        yield attempt
    except BaseException as error:
        ended = error
        raise
    finally:
        if attempt.meter is not None:
            if not _is_off.get() and is_wanted(os.environ):
                with _harmless(stage):
                    _report(attempt, attempt.meter, ended)
            attempt.meter.close()


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


def _report(attempt: Attempt, meter: UsageMeter, error: BaseException | None) -> None:
    """Send what is known of an attempt and what its artifact says.

    An attempt has `done` its work, `found` it done by another one, `failed` by an error, or was
    `stopped` by a signal or Ctrl-C.
    """
    if error is None:
        outcome = "done" if attempt.artifact is not None else "found"
    else:
        outcome = "failed" if isinstance(error, Exception) else "stopped"
    about: _About = {STAGE: attempt.stage, RECIPE: attempt.recipe}
    about |= {MODEL: attempt.model, OUTCOME: outcome}
    how = about if error is None else {**about, ERROR: type(error).__name__}
    if isinstance(error, Exception):
        # What is unforeseen is tried again, as `orchestration.retries` does.
        how = {**how, RETRYABLE: not isinstance(error, HomefeedError) or error.is_retryable}
    points = [Point("homefeed.stage.end_time", datetime.now(UTC).timestamp(), how)]
    points += [Point("homefeed.stage.memory.limit", memory_limit_bytes(), about)]
    if (used := attempt.used()) is not None:
        points += [
            Point("homefeed.stage.duration", meter.wall_s, about),
            Point("homefeed.stage.memory.peak", used.peak_memory_bytes, about),
        ]
    if attempt.run is not None and attempt.artifact is not None:
        points += points_of(attempt.artifact, attempt.run)
    send(points, f"{attempt.stage} ({outcome})")


def points_of(artifact: Artifact, run: ResolvedRun) -> Iterator[Point]:
    """Yield what a stage's artifact says of a cycle: the verdict, who serves; else nothing."""
    model: _About = {MODEL: run.registered_model}
    cycle, serving = {RECIPE: run.config.reference, **model}, None
    if isinstance(artifact, ResolvedRun):
        # In a backfill the champion of the run is the one before as_of, and another model serves.
        serving = artifact.later_champion or artifact.champion
    elif isinstance(artifact, Promotion):
        serving = artifact.champion_after
    elif isinstance(artifact, Judgement):
        from validation.model_gate.examine import void_reasons

        verdict, config = artifact.verdict, run.config
        for decision in Decision:
            about = {**cycle, VERDICT: str(decision)}
            yield Point("homefeed.verdict.state", int(decision is verdict.decision), about)
        void = void_reasons(artifact.comparison, config.model_gate, config.features.heads)
        yield Point("homefeed.comparison.void", int(bool(void)), cycle)
        if run.may_promote:
            num = len({*run.standing.unpromoted, run.as_of})
            is_none = verdict.promoted is Promoted.NONE
            yield Point("homefeed.champion.unpromoted_cycles", num if is_none else 0, model)
    if serving is not None:
        yield Point("homefeed.champion.as_of", serving.as_of.timestamp(), model)
