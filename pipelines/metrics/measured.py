"""The door: `measured` is put around a stage, and knows what the stage used when it has ended.

What an attempt used goes into its manifest, from which verdict page and index of all cycles tell
it; where the environment asks for metrics (`pipelines.metrics.sending`), the same and what came of
the stage is sent. The runner puts it around every stage, outside the stage's lease, so that nobody
waits for a collector to get the stage.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.contracts.artifacts import (
    Challenger,
    DataReport,
    FileDigest,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
)
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import HomefeedError, LostRaceError
from pipelines.contracts.judgement import Decision, Judgement, Promoted, Promotion
from pipelines.contracts.run_layout import StageUsage
from pipelines.metrics.instruments import (
    CPU_MODE,
    DIRECTION,
    ERROR,
    MODEL,
    OUTCOME,
    RECIPE,
    RETRYABLE,
    ROW,
    STAGE,
    VERDICT,
    Point,
)
from pipelines.metrics.sending import send, wanted_exporters
from pipelines.metrics.usage import Usage, UsageMeter, memory_limit_bytes

log = logging.getLogger(__name__)
_is_off: ContextVar[bool] = ContextVar("is_off", default=False)
_About = dict[str, str | bool]

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
    meter: UsageMeter | None = None  # None: the system measures nothing.

    @property
    def run(self) -> ResolvedRun | None:
        """The cycle, which a stage is given or, as `resolve_run`, gives; None before that."""
        found = (each for each in (*self.inputs, self.artifact) if isinstance(each, ResolvedRun))
        return next(found, None)

    @property
    def num_gpus(self) -> int:
        """How many GPUs of this machine the stage holds, busy or not."""
        run = self.run
        is_on = run is not None and run.accelerator == "gpu" and self.stage in ON_GPUS
        return run.num_devices if run is not None and is_on else 0

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
    try:
        attempt.meter = UsageMeter()
    except Exception as error:  # The system gives no thread, say.
        _tell_unmeasured(stage, error)
    ended: BaseException | None = None
    try:
        yield attempt
    except BaseException as error:
        ended = error
        raise
    finally:
        if attempt.meter is not None:
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
    """Send what is known, where somebody asks. A fault in here is told and reddens no stage.

    An attempt has `done` its work, `found` it done before, `lost_race` to another process, which
    tells how that ends, `failed` by an error, or was `stopped` by a signal or Ctrl-C.
    """
    if _is_off.get() or not wanted_exporters(os.environ):
        return
    if error is None:
        outcome = "done" if attempt.artifact is not None else "found"
    elif isinstance(error, LostRaceError):
        outcome = "lost_race"
    else:
        outcome = "failed" if isinstance(error, Exception) else "stopped"
    told = {STAGE: attempt.stage, RECIPE: attempt.recipe, MODEL: attempt.model, OUTCOME: outcome}
    about: _About = {**told}
    try:
        points = list(_of_attempt(attempt, about, meter.read(), error))
        if attempt.run is not None and attempt.artifact is not None:
            done = attempt.artifact, tuple(attempt.inputs)
            points += points_of(*done, attempt.run, datetime.now(UTC), about)
        send(points, f"{attempt.stage} ({outcome})")
    except Exception as second:
        # Whatever it is, the stage's own end is what people must learn of.
        _tell_unmeasured(attempt.stage, second)


def _tell_unmeasured(stage: str, error: Exception) -> None:
    log.warning(
        "%s was not measured (%s); nothing else of it is affected", stage, type(error).__name__
    )


def _of_attempt(
    attempt: Attempt, about: _About, usage: Usage, error: BaseException | None
) -> Iterator[Point]:
    how = about if error is None else {**about, ERROR: type(error).__name__}
    if isinstance(error, Exception):
        # What is unforeseen is tried again, as `orchestration.retries` does.
        how = {**how, RETRYABLE: not isinstance(error, HomefeedError) or error.is_retryable}
    yield Point("homefeed.stage.end_time", datetime.now(UTC).timestamp(), how)
    yield Point("homefeed.stage.attempts", 1, how)
    if attempt.number:
        yield Point("homefeed.stage.attempt_number", attempt.number, about)
    yield Point("homefeed.stage.duration", usage.wall_s, about)
    for mode, seconds in (("user", usage.user_s), ("system", usage.system_s)):
        yield Point("homefeed.stage.cpu.time", seconds, {**about, CPU_MODE: mode})
    yield Point("homefeed.stage.memory.peak", usage.peak_memory_bytes, about)
    yield Point("homefeed.stage.memory.limit", memory_limit_bytes(), about)
    if attempt.num_gpus:
        yield Point("homefeed.stage.gpu.held_time", usage.wall_s * attempt.num_gpus, about)


def points_of(
    artifact: Artifact, inputs: Sequence[Artifact], run: ResolvedRun, now: datetime, about: _About
) -> Iterator[Point]:
    """Yield what an artifact says: rows, bytes, the verdict, who serves; of others nothing.

    Args:
        artifact: What the stage has made.
        inputs: What it was given.
        run: The cycle.
        now: The wall clock, for the champion's age.
        about: What all points about the attempt carry.
    """

    def rows(direction: str, **counts: int) -> Iterator[Point]:
        for kind, count in counts.items():
            yield Point("homefeed.stage.rows", count, {**about, ROW: kind, DIRECTION: direction})

    def size(direction: str, files: Iterable[FileDigest]) -> Point:
        num_bytes = sum(file.num_bytes for file in files)
        return Point("homefeed.stage.io", num_bytes, {**about, DIRECTION: direction})

    given = [each for each in inputs if isinstance(each, Snapshot)]
    trained = artifact.trained if isinstance(artifact, FreshAnchor) else artifact
    serving = None
    if isinstance(artifact, ResolvedRun):
        # In a backfill the champion of the run is the one before as_of, and another model serves.
        serving = artifact.later_champion or artifact.champion
    elif isinstance(artifact, Snapshot):
        counts = {"example": artifact.num_examples, "request": artifact.num_requests}
        counts["action"] = sum(shard.num_actions for shard in artifact.shards)
        counts["user"] = sum(shard.num_users for shard in artifact.shards)
        yield from rows("write", **counts, pin=artifact.num_pins)
        yield size("write", artifact.files)
    elif isinstance(artifact, DataReport):
        for each in given:
            yield from rows("read", example=each.num_examples, request=each.num_requests)
    elif isinstance(trained, Challenger):
        yield from rows("read", example=trained.num_training_examples)
        yield size("write", trained.bundle_files)
    elif isinstance(artifact, Judgement):
        facts = artifact.comparison
        counts = {"example": facts.num_examples, "request": facts.num_requests}
        yield from rows("read", **counts, user=facts.num_users)
        yield from _of_judgement(artifact, run)
    elif isinstance(artifact, Promotion):
        if artifact.is_promoted:
            yield Point("homefeed.promotions", 1, _cycle(run))
        serving = artifact.champion_after
    if serving is not None:
        model: _About = {MODEL: run.registered_model}
        yield Point("homefeed.champion.as_of", serving.as_of.timestamp(), model)
        yield Point("homefeed.champion.age", (now - serving.as_of).total_seconds(), model)
    yield from (size("read", snapshot.files) for snapshot in given)


def _cycle(run: ResolvedRun) -> _About:
    """Return what all points about a cycle's result carry."""
    return {RECIPE: run.config.reference, MODEL: run.registered_model}


def _of_judgement(judgement: Judgement, run: ResolvedRun) -> Iterator[Point]:
    from validation.model_gate.examine import void_reasons

    facts, verdict, cycle = judgement.comparison, judgement.verdict, _cycle(run)
    for decision in Decision:
        about = {**cycle, VERDICT: str(decision)}
        yield Point("homefeed.verdict.state", int(decision is verdict.decision), about)
    yield Point("homefeed.verdicts", 1, {**cycle, VERDICT: str(verdict.decision)})
    is_void = bool(void_reasons(facts, run.config.model_gate, run.config.features.heads))
    yield Point("homefeed.comparison.void", int(is_void), cycle)
    if run.may_promote:
        judged = {*run.standing.unpromoted, run.as_of}
        num_unpromoted = len(judged) if verdict.promoted is Promoted.NONE else 0
        about = {MODEL: run.registered_model}
        yield Point("homefeed.champion.unpromoted_cycles", num_unpromoted, about)
