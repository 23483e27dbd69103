"""Judges snapshots by the data gate, for the tests of its parts."""

import re
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.contracts.artifacts import ExpectationOutcome, Snapshot
from pipelines.recipes import smoke
from support.snapshots import (
    Change,
    copy_snapshot,
    rewrite,
)
from validation.data_gate.gate import judge_snapshot
from validation.data_gate.snapshot_profile import profile_snapshot

CONFIG = smoke().data_gate
SHARD = "shard-00001"
EXAMPLES = f"{SHARD}/examples.arrow"


def judge(
    snapshot: Snapshot,
    folder: Path,
    out_dir: Path,
    reference: Snapshot | None = None,
    **thresholds: Any,
) -> dict[str, ExpectationOutcome]:
    out_dir.mkdir(exist_ok=True)
    known = profile_snapshot(reference, storage.local_path(reference.uri)) if reference else None
    config = CONFIG.model_copy(update=thresholds)
    outcomes = judge_snapshot(snapshot, folder, reference, known, config, out_dir)
    return {outcome.name: outcome for outcome in outcomes}


def failed(outcomes: dict[str, ExpectationOutcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.is_met}


def assert_found(
    snapshot: Snapshot, tmp_path: Path, name: str, relative: str, change: Change
) -> None:
    """Plant a defect in one file; the check finds it, names its place, and nothing else fails."""
    snapshot, folder = copy_snapshot(snapshot, tmp_path / "snapshot")
    snapshot = rewrite(snapshot, folder, relative, change)
    outcomes = judge(snapshot, folder, tmp_path / "out")

    outcome = outcomes[name]
    assert not outcome.is_met
    assert outcome.partitions == (relative.split("/", maxsplit=1)[0],)
    assert re.match(r"[1-9]", outcome.observed)
    # What cannot be judged behind the defect says so; nothing else is accused.
    for other in failed(outcomes) - {name}:
        assert re.search("not measured|nothing to look at", outcomes[other].observed), other
