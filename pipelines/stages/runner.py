"""Runs one stage of a run so that it may be retried, killed or called twice.

A stage's manifest is written last. Without it the stage did not happen; with one whose input
digest matches, the stage returns it and does no work. Not for what a stage does: that is its body.
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, StageFailure, StageRecord
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.run_layout import failure_uri, manifest_uri

log = logging.getLogger(__name__)
Artifact = TypeVar("Artifact", bound=Frozen)

STAGE_VERSION = 1
"""Raise it when a stage's meaning changes, so that old manifests are not taken for new ones."""


@dataclass(frozen=True)
class StageContext:
    """What a stage's body gets: the run, where to publish files, and its inputs."""

    run: ResolvedRun
    stage: str
    output_uri: str  # unique to this attempt; files published here belong to the artifact

    def artifact(self, stage: str, kind: type[Artifact]) -> Artifact:
        """Return the artifact of an earlier stage of the same run."""
        return read_artifact(self.run.run_uri, stage, kind)


@dataclass(frozen=True)
class Stage:
    """A stage's name, the stages whose artifacts it reads, and its body."""

    name: str
    inputs: tuple[str, ...]
    body: Callable[[StageContext], Frozen]


def read_record(run_uri: str, stage: str) -> StageRecord:
    """Return a stage's manifest.

    Raises:
        ConfigurationError: the stage has not happened in this run.
    """
    try:
        return storage.read_model(manifest_uri(run_uri, stage), StageRecord)
    except FileNotFoundError:
        raise ConfigurationError(
            f"run {run_uri} has no manifest of {stage}; expected that stage to have ended; "
            f"{_how_to_run(stage, run_uri)} first, or correct --run"
        ) from None


def _how_to_run(stage: str, run_uri: str) -> str:
    if stage == "resolve_run":
        return "run `homefeed resolve --as-of YYYY-MM-DD` (it prints the run's URI)"
    return f"run `homefeed stage {stage} --run {run_uri}`"


def read_artifact(run_uri: str, stage: str, kind: type[Artifact]) -> Artifact:
    """Return a stage's artifact; raises as `read_record` does."""
    return kind.model_validate(read_record(run_uri, stage).artifact)


def read_run(run_uri: str) -> ResolvedRun:
    """Return the resolved run in a run folder; raises as `read_record` does."""
    return read_artifact(run_uri, "resolve_run", ResolvedRun)


def run_stage(name: str, run_uri: str) -> str:
    """Run one stage, or find it done, and return its manifest's URI.

    Args:
        name: One of `artifacts.STAGES` but `resolve_run`.
        run_uri: The run folder that `resolve_run` made.

    Raises:
        HomefeedError: as the stage's body raises; also written to `failure.json`.
        RunInProgressError: another process runs the same stage of the same run.
    """
    from pipelines.stages.table import STAGE_BODIES

    run_uri = storage.to_uri(run_uri)
    if name == "resolve_run":
        read_run(run_uri)
        return manifest_uri(run_uri, name)
    stage = STAGE_BODIES[name]
    run = read_run(run_uri)
    inputs = [read_record(run_uri, upstream).artifact for upstream in stage.inputs]
    input_digest = digest_of([name, STAGE_VERSION, run.fingerprint(), inputs])
    with storage.exclusive_lock(storage.join(run_uri, name, "stage"), f"{name} of {run.run_id}"):
        if _is_done(run_uri, name, input_digest):
            log.info("%s of %s is done already; nothing to do", name, run.run_id)
            return manifest_uri(run_uri, name)
        return _attempt(stage, run, input_digest)


def _is_done(run_uri: str, name: str, input_digest: str) -> bool:
    uri = manifest_uri(run_uri, name)
    return storage.exists(uri) and storage.read_model(uri, StageRecord).input_digest == input_digest


def _attempt(stage: Stage, run: ResolvedRun, input_digest: str) -> str:
    output = f"output-{uuid.uuid4().hex[:8]}"
    context = StageContext(run, stage.name, storage.join(run.run_uri, stage.name, output))
    log.info("%s of %s: starting", stage.name, run.run_id)
    started = time.monotonic()
    try:
        artifact = stage.body(context)
    except Exception as error:
        _note_failure(context, error)
        raise
    record = StageRecord(
        stage=stage.name,
        input_digest=input_digest,
        artifact=artifact.model_dump(mode="json"),
        wall_s=time.monotonic() - started,
        finished_at=datetime.now(UTC),
    )
    uri = manifest_uri(run.run_uri, stage.name)
    storage.write_model(uri, record)
    _tidy(run.run_uri, stage.name, keep=output)
    log.info("%s of %s: done in %.1f s", stage.name, run.run_id, record.wall_s)
    return uri


def _note_failure(context: StageContext, error: Exception) -> None:
    """Leave the failure for the alert. A second failure while noting must not hide the first."""
    is_ours = isinstance(error, HomefeedError)
    failure = StageFailure(
        stage=context.stage,
        error_class=type(error).__name__,
        message=str(error),
        exit_code=error.exit_code if isinstance(error, HomefeedError) else 70,
        is_retryable=error.is_retryable if isinstance(error, HomefeedError) else not is_ours,
        occurred_at=datetime.now(UTC),
    )
    try:
        storage.write_model(failure_uri(context.run.run_uri, context.stage), failure)
    except HomefeedError as second:
        log.warning("could not note the failure of %s: %s", context.stage, second)


def _tidy(run_uri: str, stage: str, keep: str) -> None:
    """Drop a former failure and the files of attempts that never ended."""
    storage.remove(failure_uri(run_uri, stage))
    folder = storage.join(run_uri, stage)
    for name in storage.list_names(folder):
        if name.startswith("output-") and name != keep:
            storage.remove(storage.join(folder, name))
