"""Hand-made `ResolvedRun` values, so that a stage is tested without a registry or a server."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.contracts.artifacts import PinnedEntry, ResolvedRun
from pipelines.contracts.base import Artifact
from pipelines.contracts.code_identity import environment
from pipelines.contracts.config import RunConfig
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.recipes import smoke
from pipelines.registry.history import load
from pipelines.storage import join, to_uri, write_model

PLANTED_AS_OF = datetime(2017, 3, 2, tzinfo=UTC)
"""Midnight after the last of a planted world's default 60 days."""


def make_run(
    tmp_path: Path,
    config: RunConfig | None = None,
    as_of: datetime = PLANTED_AS_OF,
    **overrides: Any,
) -> ResolvedRun:
    """Return a first-cycle run over `<tmp_path>/event_log`, working in `<tmp_path>/workspace`."""
    workspace_uri = overrides.pop("workspace_uri", to_uri(tmp_path / "workspace"))
    run_id = overrides.pop("run_id", f"test-{as_of:%Y-%m-%d}")
    fields: dict[str, Any] = {
        "run_id": run_id,
        "run_uri": join(workspace_uri, "runs", run_id),
        "as_of": as_of,
        "config": config or smoke(),
        "code_version": "test",
        "event_log_uri": to_uri(tmp_path / "event_log"),
        "workspace_uri": workspace_uri,
        "tracking_uri": "http://127.0.0.1:5000",
        "experiment": "test",
        "registered_model": "test_ranker",
        "champion": None,
        "newest_entry": newest_entry(workspace_uri, overrides),
        "last_accepted_snapshot_uri": None,
        "may_promote": True,
        "num_devices": 1,
        "trigger": "test",
    }
    return ResolvedRun(**(fields | overrides))


def newest_entry(workspace_uri: str, overrides: dict[str, Any]) -> PinnedEntry:
    """Return the entry that a run pins which is resolved now in a workspace."""
    return load(workspace_uri, overrides.get("registered_model", "test_ranker")).newest


def save_run(run: ResolvedRun) -> ResolvedRun:
    """Write a run's first manifest, as `resolve_run` would have, so that stages can be run."""
    save_artifact(run, "resolve_run", run)
    return run


def save_artifact(run: ResolvedRun, stage: str, artifact: Artifact) -> None:
    """Write a stage's manifest, as if the stage had happened."""
    save_json(run, stage, artifact.model_dump(mode="json"))


def save_json(run: ResolvedRun, stage: str, artifact: dict[str, Any]) -> None:
    """Write a stage's manifest with an artifact that need not be whole."""
    record = StageRecord(
        stage=stage,
        input_digest="x",
        artifact=artifact,
        made_with=environment(),
        wall_s=0,
        finished_at=run.as_of,
    )
    write_model(manifest_uri(run.run_uri, stage), record)
