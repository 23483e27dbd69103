"""The record of a past cycle: what `resolve_run` fixed, and what its stages published; only read.

Not for rebuilding.
"""

from dataclasses import dataclass

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import StageRecord, listing_uri, manifest_uri
from pipelines.contracts.stage_table import HEAVY, TABLE
from pipelines.event_log.listing import Listing
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, read_record

REBUILT = tuple(HEAVY)
"""Stages that are made again. The others move the champion and tell people."""
REPAIR = (
    "of a record nothing is to be written over: put a sound copy of the run's folder back, check "
    "out the code that wrote it, or name another run"
)
"""What a person does about a record that is missing or cannot be read."""


@dataclass(frozen=True)
class PastCycle:
    """One cycle, as its run folder has it."""

    run_uri: str  # where the record was read, which may be a copy
    run: ResolvedRun
    records: dict[str, StageRecord]  # of `resolve_run`, and of stages of REBUILT that have ended
    listing: Listing | None  # files of the event log; None where the list is gone

    def stages_until(self, until: str) -> tuple[str, ...]:
        """Return the stages to rebuild: up to the one named, and none after the last on record."""
        last = max(REBUILT.index(name) for name in self.records if name in REBUILT)
        return REBUILT[: min(last, REBUILT.index(until)) + 1]


def read_cycle(run: str, settings: Settings) -> PastCycle:
    """Read a cycle's record.

    Args:
        run: URI or path of a run folder, or the name of a run in the settings' workspace.
        settings: Where the workspace is.

    Raises:
        ConfigurationError: there is no such run, or no stage of it has ended that can be rebuilt.
        DataContractError: a manifest was edited, is damaged or of another version.
    """
    run_uri = storage.to_uri(run)
    if "/" not in run and not storage.exists(manifest_uri(run_uri, "resolve_run")):
        run_uri = storage.join(storage.to_uri(settings.workspace_location), "runs", run)
    records = {"resolve_run": read_record(run_uri, "resolve_run", REPAIR)}
    resolved = read_artifact(run_uri, "resolve_run", ResolvedRun, REPAIR)
    for name in REBUILT:
        if storage.exists(manifest_uri(run_uri, name)):
            records[name] = read_record(run_uri, name, REPAIR)
            # Before hours of rebuilding, and not after them: it can be compared by today's code.
            read_artifact(run_uri, name, TABLE[name].gives, REPAIR)
    if len(records) == 1:
        raise ConfigurationError(
            f"no stage of run {run_uri} has ended but resolve_run; expected at least a built "
            f"snapshot, with which what is rebuilt can be compared; name another run"
        )
    return PastCycle(run_uri, resolved, records, read_listing(run_uri))


def read_listing(run_uri: str) -> Listing | None:
    """Return what the event log's files were when a run's snapshot was built, if it is on record.

    Raises:
        DataContractError: the file is damaged.
    """
    uri = listing_uri(run_uri)
    repair = "put a sound copy back, or move it away: then no files are compared"
    return storage.read_model(uri, Listing, repair) if storage.exists(uri) else None
