"""Judges snapshots by the data gate, for the tests of its parts."""

from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import ExpectationOutcome, Snapshot
from pipelines.recipes import smoke
from validation.data_gate.canaries import choose_canaries
from validation.data_gate.gate import judge_snapshot
from validation.data_gate.shifts import FEWEST_EARLIER, shifts_of
from validation.data_gate.snapshot_profile import Reference, profile_snapshot

CONFIG = smoke().data_gate
SHARD = "shard-00001"
EXAMPLES = f"{SHARD}/examples.arrow"


def judge(
    snapshot: Snapshot,
    folder: Path,
    out_dir: Path,
    reference: Snapshot | None = None,
    earlier: dict[str, list[float]] | None = None,
    **thresholds: Any,
) -> dict[str, ExpectationOutcome]:
    out_dir.mkdir(exist_ok=True)
    known = reference_of(reference, earlier) if reference else None
    config = CONFIG.model_copy(update=thresholds)
    outcomes = judge_snapshot(snapshot, folder, known, config, out_dir)
    return {outcome.name: outcome for outcome in outcomes}


def reference_of(snapshot: Snapshot, earlier: dict[str, list[float]] | None = None) -> Reference:
    """Return what a cycle knows of its last accepted snapshot.

    Unless told otherwise, the snapshots before it have not shifted by themselves.
    """
    folder = storage.local_path(snapshot.uri)
    profile = profile_snapshot(snapshot, folder)
    is_readable = not profile.unmeasured_shards
    none = shifts_of(snapshot, profile.measures, profile.measures, CONFIG)
    profile.shifts = {shift.key: [0.0] * FEWEST_EARLIER for shift in none}
    profile.shifts = profile.shifts if earlier is None else earlier
    return Reference(snapshot, profile, choose_canaries(snapshot, folder) if is_readable else None)


def failed(outcomes: dict[str, ExpectationOutcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.is_met}
