"""Data gate: may a model be trained on this snapshot?

The gate checks every row of a snapshot, shard by shard, and how far the snapshot has shifted from
the last accepted one. It does not stop the cycle: the stage raises when a critical outcome is not
met. Nothing here sees more than one shard at a time, and Great Expectations sees counts and
measures per shard, never the rows, all of which it would load (great_expectations#5613).
"""

from pathlib import Path

from pipelines.contracts.artifacts import ExpectationOutcome, Snapshot
from pipelines.contracts.config import DataGateConfig
from validation.data_gate.checks import make_checks
from validation.data_gate.gx_runner import evaluate
from validation.data_gate.judged_tables import make_tables
from validation.data_gate.kept_profile import to_json
from validation.data_gate.snapshot_profile import SnapshotProfile, profile_snapshot
from validation.report.data_docs import DOCS_FOLDER, finish_data_docs

PROFILE_FILE = "profile.json"


def judge_snapshot(
    snapshot: Snapshot,
    snapshot_dir: Path,
    reference: Snapshot | None,
    reference_profile: SnapshotProfile | None,
    config: DataGateConfig,
    out_dir: Path,
) -> tuple[ExpectationOutcome, ...]:
    """Judge a snapshot; leave its Data Docs and its profile.

        <out_dir>/data_docs/index.html      what was expected and found, failures first
        <out_dir>/data_docs/details/...     Great Expectations' own pages
        <out_dir>/profile.json              what a later cycle compares its snapshot with

    Args:
        snapshot: The manifest of what is judged.
        snapshot_dir: Local folder with its files, each of which is hashed once.
        reference: The last accepted snapshot, from which shift is judged; None in the first cycle.
        reference_profile: The reference's profile; None in the first cycle.
        config: Thresholds.
        out_dir: Existing folder for the Data Docs and the profile.

    Returns:
        One outcome per expectation; critical ones that are not met must stop the cycle.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the data.
    """
    profile = profile_snapshot(snapshot, snapshot_dir)
    (out_dir / PROFILE_FILE).write_text(to_json(profile, snapshot.digest), "utf-8")
    checks = make_checks(config, snapshot, profile, reference, reference_profile)
    outcomes = evaluate(
        checks,
        make_tables(snapshot, profile, reference_profile),
        _details(profile),
        snapshot,
        out_dir / DOCS_FOLDER,
    )
    finish_data_docs(out_dir / DOCS_FOLDER, snapshot, reference, outcomes)
    return outcomes


def _details(profile: SnapshotProfile) -> dict[tuple[str, str], str]:
    """Return the phrases on first offenders by (partition, rule)."""
    return {
        (partition, rule): phrase
        for partition, broken in profile.by_partition.items()
        for rule, phrase in broken.details.items()
    }
