"""Data gate: may a model be trained on this snapshot?

Checks every row of a snapshot, shard by shard, and its shift against the last accepted one. Not
for the decision to stop: the stage raises when a critical outcome is not met. Nothing here sees
more than one shard at a time; Great Expectations sees counts and measures per shard, never the
rows (it would load them all: great_expectations#5613).
"""

from pathlib import Path

from pipelines.contracts.artifacts import ExpectationOutcome, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.schemas import PINS_FILE
from validation.data_gate.checks import ReferenceFacts, make_checks
from validation.data_gate.expectations import RunLabel, evaluate
from validation.data_gate.profile_frames import make_frames
from validation.data_gate.snapshot_profile import SnapshotProfile, profile_snapshot
from validation.report.data_docs import DOCS_FOLDER, finish_data_docs


def judge_snapshot(
    snapshot: Snapshot,
    snapshot_dir: Path,
    reference: Snapshot | None,
    reference_dir: Path | None,
    config: DataGateConfig,
    out_dir: Path,
) -> tuple[ExpectationOutcome, ...]:
    """Judge a snapshot and leave the Data Docs.

        <out_dir>/data_docs/index.html      what was expected and found, failures first
        <out_dir>/data_docs/details/...     Great Expectations' own pages

    Args:
        snapshot: The manifest of what is judged.
        snapshot_dir: Local folder with its files.
        reference: The last accepted snapshot, for shift; None in the first cycle.
        reference_dir: Local folder with the reference's files.
        config: Thresholds.
        out_dir: Existing folder for the Data Docs.

    Returns:
        One outcome per expectation; critical ones that are not met must stop the cycle.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the data.
    """
    profile = profile_snapshot(snapshot, snapshot_dir)
    reference_profile, facts = None, None
    if reference is not None and reference_dir is not None:
        reference_profile = profile_snapshot(reference, reference_dir)
        facts = ReferenceFacts(
            num_examples=int(reference_profile.measures.examples.sum()),
            is_same_embedding_version=reference.embedding_version == snapshot.embedding_version,
            has_target_head=snapshot.features.heads[0].name in reference.features.head_names,
            is_measured=not reference_profile.unmeasured_shards,
        )
    checks = make_checks(config, snapshot, int(profile.measures.examples.sum()), facts)
    outcomes = evaluate(
        checks,
        make_frames(snapshot, profile, reference_profile),
        _details(profile),
        RunLabel(f"snapshot-{snapshot.digest[:16]}", snapshot.as_of),
        out_dir / DOCS_FOLDER,
    )
    finish_data_docs(out_dir / DOCS_FOLDER, snapshot, reference, outcomes)
    return outcomes


def _details(profile: SnapshotProfile) -> dict[tuple[str, str], str]:
    """Return the phrases on first offenders by (partition, rule)."""
    return {
        (partition, rule): phrase
        for partition, tally in {PINS_FILE: profile.pins, **profile.shards}.items()
        for rule, phrase in tally.details.items()
    }
