"""Data gate: may a model be trained on this snapshot?

The gate checks every row of a snapshot, shard by shard, and how far the snapshot has shifted from
the last accepted one. It does not stop the cycle: the stage raises when a critical outcome is not
met. Nothing here sees more than one shard at a time, and Great Expectations sees counts and
measures per shard, never the rows, all of which it would load (great_expectations#5613).
"""

from collections.abc import Mapping
from pathlib import Path

from pipelines.contracts.artifacts import ExpectationOutcome, Snapshot
from pipelines.contracts.config import DataGateConfig
from validation.data_gate.canaries import (
    CANARIES_FILE,
    canary_checks,
    choose_canaries,
    compare_new,
    compare_vectors,
    pins_of,
    users_of,
    write_canaries,
)
from validation.data_gate.checks import NO_REFERENCE, Judged, row_checks, snapshot_checks
from validation.data_gate.drawing import lines_of
from validation.data_gate.gx_runner import Check, evaluate
from validation.data_gate.shifts import Shift, kept_shifts, shift_checks, shifts_of
from validation.data_gate.snapshot_profile import Reference, profile_snapshot, to_json
from validation.report.charts import Style
from validation.report.data_docs import DOCS_FOLDER, Subject

PROFILE_FILE = "profile.json"


def judge_snapshot(
    snapshot: Snapshot,
    snapshot_dir: Path,
    reference: Reference | None,
    config: DataGateConfig,
    out_dir: Path,
    accepted: Mapping[str, str] | None = None,
) -> tuple[ExpectationOutcome, ...]:
    """Judge a snapshot; leave its Data Docs, its profile and its canaries.

        <out_dir>/data_docs/index.html      what was expected and found, failures first
        <out_dir>/data_docs/details/...     Great Expectations' own pages
        <out_dir>/profile.json              what a later cycle compares its snapshot with
        <out_dir>/canaries.arrow            embeddings that must not change under this version

    Args:
        snapshot: The manifest of what is judged.
        snapshot_dir: Local folder with its files, each of which is hashed once.
        reference: The last accepted snapshot, from which shift is judged; None in the first cycle.
        config: Thresholds.
        out_dir: Existing folder for what is left.
        accepted: Who accepted which expectation though it is not met, and why.

    Returns:
        One outcome per expectation; critical ones that are not met must stop the cycle.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the data.
    """
    profile = profile_snapshot(snapshot, snapshot_dir)
    judged = Judged(config, snapshot, profile, reference)
    before, is_measured = judged.before, not profile.unmeasured_shards
    shifts = shifts_of(snapshot, profile.measures, before.measures, config) if is_measured else ()
    profile.shifts = kept_shifts(shifts, before.shifts)
    (out_dir / PROFILE_FILE).write_text(to_json(profile, snapshot.digest), "utf-8")
    expectations = (
        *row_checks(snapshot, profile),
        *snapshot_checks(judged),
        *_canaries(judged, snapshot_dir, out_dir / CANARIES_FILE),
        *shift_checks(shifts, before.shifts, is_measured, judged.why_no_shift),
    )
    return evaluate(
        expectations,
        f"snapshot-{snapshot.digest[:16]}",
        snapshot.as_of,
        _subject(judged, shifts),
        out_dir / DOCS_FOLDER,
        accepted,
    )


def _canaries(judged: Judged, snapshot_dir: Path, path: Path) -> tuple[Check, ...]:
    """Keep the snapshot's canaries in a file, and compare those of the last accepted one."""
    snapshot, profile, reference = judged.snapshot, judged.profile, judged.reference
    has_pins = not profile.pins.has("schema", "no_nulls")
    if profile.unmeasured_shards or not has_pins:
        return canary_checks({}, "the snapshot's files cannot be read or measured")
    write_canaries(choose_canaries(snapshot, snapshot_dir), path)
    if reference is None:
        return canary_checks({}, NO_REFERENCE)
    if (kept := reference.canaries) is None:
        return canary_checks({}, "no embeddings of the last accepted snapshot were kept")
    if kept.embedding_version != snapshot.embedding_version:
        return canary_checks({}, f"{kept.embedding_version!r} was the version before")
    found = {
        "pins": compare_vectors("pins", kept.pins, pins_of(snapshot_dir)),
        "users": compare_vectors("users", kept.users, users_of(snapshot, snapshot_dir)),
    }
    return canary_checks(found, "", compare_new(kept.pins, pins_of(snapshot_dir)))


def _subject(judged: Judged, shifts: tuple[Shift, ...]) -> Subject:
    """Return what the overview says and draws of the snapshot."""
    snapshot, against = judged.snapshot, "nothing: no earlier accepted snapshot"
    legend: dict[Style, str] = {"ours": "now"}
    if judged.reference is not None:
        before, legend["theirs"] = judged.reference.snapshot, "the last accepted snapshot"
        against = f"{before.digest[:16]} of {before.as_of:%Y-%m-%d}"
    training, holdout = (
        f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC, end excluded"
        for window in (snapshot.training, snapshot.holdout)
    )
    facts = {
        "Snapshot": f"{snapshot.digest[:16]}, embedding version {snapshot.embedding_version}",
        "Rows": f"{snapshot.num_examples:,} examples of {snapshot.num_requests:,} requests in "
        f"{len(snapshot.shards)} shards; {snapshot.num_pins:,} pins",
        "Training window": training,
        "Holdout window": holdout,
        "Shift judged against": against,
    }
    refused = "no model may be trained on this snapshot"
    name, lines = f"snapshot of {snapshot.as_of:%Y-%m-%d}", tuple(lines_of(judged, shifts))
    return Subject(name, refused, facts, lines, legend)
