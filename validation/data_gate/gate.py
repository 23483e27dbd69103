"""Data gate: may a model be trained on this snapshot?

The gate checks every row of a snapshot, shard by shard, and how far the snapshot has shifted from
the last accepted one. It does not stop the cycle: the stage raises when a critical outcome is not
met. Nothing here sees more than one shard at a time, and Great Expectations sees counts and
measures per shard, never the rows, all of which it would load (great_expectations#5613).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.time import Window
from validation.data_gate.canaries import CANARIES_FILE, judge_canaries
from validation.data_gate.checks import make_checks
from validation.data_gate.gx_runner import (
    RunName,
    evaluate,
    importing_meanwhile,
    with_accepted,
)
from validation.data_gate.judged_tables import make_tables
from validation.data_gate.shifts import kept_shifts, shift_phrases, shift_tables, shifts_of
from validation.data_gate.snapshot_profile import (
    Reference,
    SnapshotProfile,
    profile_snapshot,
    to_json,
)
from validation.report.data_docs import DOCS_FOLDER, SINCE_REFUSED, Subject, finish_data_docs

PROFILE_FILE = "profile.json"
_NUM_PARTS = 2
"""So much is told of what was found in a refused snapshot: the worst value, and a phrase."""


def judge_snapshot(
    snapshot: Snapshot,
    snapshot_dir: Path,
    reference: Reference | None,
    config: DataGateConfig,
    out_dir: Path,
    accepted: Mapping[str, str] | None = None,
    refused: DataReport | None = None,
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
        refused: What was found of a snapshot of the same recipe and day that was refused.

    Returns:
        One outcome per expectation; critical ones that are not met must stop the cycle.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the data.
    """
    with importing_meanwhile():
        profile = profile_snapshot(snapshot, snapshot_dir)
    before = reference.profile if reference else SnapshotProfile()
    is_measured = not profile.unmeasured_shards
    shifts = shifts_of(snapshot, profile.measures, before.measures, config) if is_measured else ()
    profile.shifts = kept_shifts(shifts, before.shifts)
    (out_dir / PROFILE_FILE).write_text(to_json(profile, snapshot.digest), "utf-8")
    canaries = judge_canaries(snapshot, snapshot_dir, profile, reference, out_dir / CANARIES_FILE)
    tables = make_tables(snapshot, profile, reference.profile if reference else None)
    tables |= shift_tables(shifts, before.shifts, is_measured) | {"canaries": canaries.table}
    outcomes = evaluate(
        make_checks(config, snapshot, profile, reference, tables, canaries.not_judged),
        tables,
        _details(profile) | shift_phrases(shifts, before.shifts) | canaries.phrases,
        RunName(f"snapshot-{snapshot.digest[:16]}", snapshot.as_of),
        out_dir / DOCS_FOLDER,
    )
    outcomes = with_accepted(outcomes, accepted or {})
    since = since_refused(refused, snapshot, outcomes)
    finish_data_docs(out_dir / DOCS_FOLDER, _subject(snapshot, reference, since), outcomes)
    return outcomes


def _subject(snapshot: Snapshot, reference: Reference | None, since: tuple[str, ...]) -> Subject:
    """Return what the overview says of the snapshot."""
    against = "nothing: no earlier accepted snapshot"
    if reference is not None:
        before = reference.snapshot
        against = f"{before.digest[:16]} of {before.as_of:%Y-%m-%d}"
    facts = {
        "Snapshot": f"{snapshot.digest[:16]}, embedding version {snapshot.embedding_version}",
        "Rows": f"{snapshot.num_examples:,} examples of {snapshot.num_requests:,} requests in "
        f"{len(snapshot.shards)} shards; {snapshot.num_pins:,} pins",
        "Training window": _window(snapshot.training),
        "Holdout window": _window(snapshot.holdout),
        "Shift judged against": against,
    }
    if since:
        facts[SINCE_REFUSED] = "; ".join(since)
    return Subject(
        f"snapshot of {snapshot.as_of:%Y-%m-%d}",
        "no model may be trained on this snapshot",
        tuple(facts.items()),
        "Every row of the snapshot was checked, shard by shard; the counts of broken rows are "
        "exact.",
    )


def _window(window: Window) -> str:
    return f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC, end excluded"


def _details(profile: SnapshotProfile) -> dict[tuple[str, str], str]:
    """Return the phrases on first offenders by (partition, rule)."""
    return {
        (partition, rule): phrase
        for partition, broken in profile.by_partition.items()
        for rule, phrase in broken.details.items()
    }


def since_refused(
    refused: DataReport | None, snapshot: Snapshot, outcomes: Sequence[ExpectationOutcome]
) -> tuple[str, ...]:
    """Return a phrase for each expectation that is, or was, not met.

    Args:
        refused: What was found of the snapshot that was refused; None where none was.
        snapshot: The one that is judged now.
        outcomes: What was found of it.

    Returns:
        What was not met then first, critical before warnings; nothing where none was refused.
    """
    if refused is None:
        return ()
    now = {outcome.name: outcome for outcome in outcomes}
    then_failed = [then for then in refused.failures if then.name in now]
    mended = {each.name for each in then_failed if each.is_unmeasured and now[each.name].is_met}
    told = [_since(then, now[then.name]) for then in then_failed if then.name not in mended]
    if mended:
        told.append(f"{len(mended)} more, which could not be measured then, are met now")
    then_met = {outcome.name for outcome in refused.outcomes if outcome.is_met}
    told += [
        f"{each.name} is not met any more: found {_found(each)}, expected {each.expected}"
        for each in outcomes
        if not each.is_met and each.name in then_met
    ]
    is_same = refused.snapshot_digest == snapshot.digest
    return (*(["the snapshot is the one that was refused"] if is_same else []), *told)


def _since(then: ExpectationOutcome, now: ExpectationOutcome) -> str:
    """Return what was found then and now of an expectation that was not met then."""
    if not now.is_judged:
        return f"{now.name}: {now.observed}; found {_found(then)} when it was refused"
    state = "is mended" if now.is_met else "is not mended"
    if now.accepted_by:
        state += f" and accepted by {now.accepted_by}"
    limit = f"expected {now.expected}"
    if now.expected != then.expected:
        limit += f" and {then.expected} then"
    return f"{now.name} {state}: found {_found(now)}, {_found(then)} when it was refused, {limit}"


def _found(outcome: ExpectationOutcome) -> str:
    """Return the beginning of what was found, with its parts in one phrase."""
    return ", ".join(outcome.observed.split("; ")[:_NUM_PARTS])
