"""`resolve_run`: the only stage that looks at a clock, at "latest" or at a registry alias.

It fixes as_of, code version, champion version and reference snapshot; what follows is a pure
function of its result.
"""

import logging
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, StageRecord
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.run_layout import manifest_uri, snapshot_manifest_uri
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.recipes import make_recipe
from pipelines.settings import Settings

log = logging.getLogger(__name__)


class RunRequest(Frozen):
    """What an operator or a schedule asks for."""

    recipe: str = Field(description="Name of a recipe in pipelines/recipes.py.")
    as_of: AwareDatetime | None = Field(description="None takes `now`; floored to the day, UTC.")
    now: AwareDatetime = Field(description="Interval end of a schedule, else the wall clock.")
    may_promote: bool = Field(description="False compares and reports, and moves nothing.")
    num_devices: int = Field(ge=1, le=1024, description="Training processes.")
    accelerator: Literal["cpu", "gpu"] = "cpu"
    trigger: str = Field(description="Airflow run id, or a name: the same one is the same cycle.")


class AcceptedSnapshot(Frozen):
    """Marker the data gate leaves when it accepts: the reference of later shift checks."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str


def resolve_run(request: RunRequest, settings: Settings) -> ResolvedRun:
    """Fix everything a cycle depends on, and save it as the run's first manifest.

    The same trigger and as_of give the run that was resolved first, whatever moved since.

    Raises:
        ConfigurationError: unknown recipe; as_of not newer than the champion's; bad tracking URI.
        DataContractError: the event log is missing or lacks a table.
        TrackingUnavailableError: MLflow does not answer.
    """
    as_of = floor_to_day(request.as_of or request.now)
    run_id = f"{as_of:%Y-%m-%d}--{digest_of([request.trigger, request.recipe])[:8]}"
    workspace_uri = storage.to_uri(settings.workspace_location)
    run_uri = storage.join(workspace_uri, "runs", run_id)
    resolved_uri = manifest_uri(run_uri, "resolve_run")
    if storage.exists(resolved_uri):
        log.info("cycle %s was resolved before; going on with it", run_id)
        record = storage.read_model(resolved_uri, StageRecord)
        return ResolvedRun.model_validate(record.artifact)
    started = datetime.now(UTC)
    event_log_uri = storage.to_uri(settings.event_log_location)
    _require_event_log(event_log_uri)
    champion = _pin_champion(settings)
    if request.may_promote:
        _require_newer(as_of, champion)
    run = ResolvedRun(
        run_id=run_id,
        run_uri=run_uri,
        as_of=as_of,
        config=make_recipe(request.recipe),
        code_version=code_version(),
        event_log_uri=event_log_uri,
        workspace_uri=workspace_uri,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        registered_model=settings.registered_model,
        champion=champion,
        last_accepted_snapshot_uri=_last_accepted(workspace_uri, request.recipe, as_of),
        may_promote=request.may_promote,
        num_devices=request.num_devices,
        accelerator=request.accelerator,
        trigger=request.trigger,
    )
    finished = datetime.now(UTC)
    record = StageRecord(
        stage="resolve_run",
        input_digest=request.fingerprint(),
        artifact=run.model_dump(mode="json"),
        wall_s=(finished - started).total_seconds(),
        finished_at=finished,
    )
    storage.write_model(resolved_uri, record)
    return run


def floor_to_day(instant: datetime) -> datetime:
    """Return midnight (UTC) of the instant's day."""
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def code_version() -> str:
    """Return the git commit of the checkout ('-dirty' if changed), else the package version."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return metadata.version("homefeed-retrain")
    return found.stdout.strip()


def accepted_folder(workspace_uri: str, recipe: str) -> str:
    """Return the folder of a recipe's accepted-snapshot markers."""
    return storage.join(workspace_uri, "accepted_snapshots", recipe)


def _require_event_log(event_log_uri: str) -> None:
    found = set(storage.list_names(event_log_uri))
    missing = sorted(set(EVENT_LOG_TABLES) - found)
    if missing:
        raise DataContractError(
            f"event log {event_log_uri}: tables {missing} are missing, found "
            f"{sorted(found) or 'nothing'}; expected {sorted(EVENT_LOG_TABLES)}; write one with "
            f"`homefeed ingest completejourney --to {event_log_uri}` or set HOMEFEED_EVENT_LOG"
        )


def _pin_champion(settings: Settings) -> ModelRef | None:
    from pipelines.registry import registry, tracking

    client = tracking.connect(settings.tracking_uri)
    return registry.read_champion(client, settings.tracking_uri, settings.registered_model)


def _require_newer(as_of: datetime, champion: ModelRef | None) -> None:
    if champion is not None and as_of <= champion.as_of:
        raise ConfigurationError(
            f"as_of {as_of:%Y-%m-%d} is not newer than the champion's: {champion.label} was "
            f"trained as of {champion.as_of:%Y-%m-%d}; expected a later day; choose one, or set "
            f"promote to no (`--no-promote`) to train and compare without promoting"
        )


def _last_accepted(workspace_uri: str, recipe: str, as_of: datetime) -> str | None:
    """Return the newest snapshot accepted for an earlier as_of of the same recipe."""
    folder = accepted_folder(workspace_uri, recipe)
    for name in reversed(storage.list_names(folder)):
        marker = storage.read_model(storage.join(folder, name), AcceptedSnapshot)
        if marker.as_of < as_of and storage.exists(snapshot_manifest_uri(marker.snapshot_uri)):
            return marker.snapshot_uri
    return None
