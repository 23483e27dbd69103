"""`check_snapshot`: may a model be trained on this snapshot? The judging is `validation.data_gate`.

<output_uri>/data_docs/index.html    the Data Docs
<output_uri>/report.json             the DataReport, also where the snapshot is refused
<output_uri>/profile.json            what was measured, which later snapshots are compared with
<output_uri>/days.json               the numbers of the event log's days (`pipelines.log_days`)
<output_uri>/canaries.arrow          embeddings that must not change under their version
"""

from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.commands import (
    accept_shift_command,
    new_cycle_command,
    rebuild_command,
    stage_command,
)
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.errors import DataGateFailedError, SnapshotDamagedError
from pipelines.contracts.run_layout import judged_log_uri, snapshot_manifest_uri
from pipelines.log_days.judging import ACCEPTABLE, DAYS_FILE, accepted_shifts, read_report
from pipelines.registry.evidence import mark_accepted, read_kept

if TYPE_CHECKING:
    from validation.data_gate.snapshot_profile import Reference

REPORT_FILE = "report.json"


def check_snapshot(run: ResolvedRun, snapshot: Snapshot, output_uri: str) -> DataReport:
    """Judge the snapshot, publish the Data Docs, and mark an accepted snapshot as a reference.

    Raises:
        SnapshotDamagedError: a file of the snapshot is missing or was altered.
        DataGateFailedError: a critical expectation failed; the message lists all that failed.
    """
    from validation.data_gate.gate import PROFILE_FILE, judge_snapshot

    reference = _read_reference(run)
    with storage.scratch_folder(run.workspace_uri) as scratch:
        out_dir = scratch / "report"
        out_dir.mkdir()
        with storage.local_copy(snapshot.uri) as found:
            accepted, gate = accepted_shifts(run.run_uri), run.config.data_gate
            outcomes = judge_snapshot(snapshot, found, reference, gate, out_dir, accepted)
        # The numbers of the event log's days stay with the snapshot, for the cycles to come.
        days_uri = storage.join(judged_log_uri(run.run_uri), DAYS_FILE)
        if storage.exists(days_uri):
            (out_dir / DAYS_FILE).write_bytes(storage.read_bytes(days_uri))
        storage.publish_folder(out_dir, output_uri)
    of_log = read_report(run)
    report = DataReport(
        snapshot_digest=snapshot.digest,
        outcomes=(*(of_log.outcomes if of_log else ()), *outcomes),
        log_docs_uri=of_log.docs_uri if of_log else "",
        docs_uri=storage.join(output_uri, "data_docs", "index.html"),
        reference_digest=reference.snapshot.digest if reference else None,
    )
    storage.write_model(storage.join(output_uri, REPORT_FILE), report)
    if not report.is_accepted:
        raise _refusal(run, report)
    mark_accepted(run, snapshot, storage.join(output_uri, PROFILE_FILE))
    return report


def _read_reference(run: ResolvedRun) -> "Reference | None":
    """Return the snapshot that this run compares with, and what was kept of it."""
    if (uri := run.last_accepted_snapshot_uri) is None:
        return None
    from validation.data_gate.canaries import CANARIES_FILE, read_canaries
    from validation.data_gate.gate import PROFILE_FILE
    from validation.data_gate.snapshot_profile import Reference, from_json, profile_snapshot

    snapshot = storage.read_model(snapshot_manifest_uri(uri), Snapshot)
    kept = read_kept(run, snapshot, CANARIES_FILE)
    canaries = read_canaries(kept) if kept is not None else None
    text = read_kept(run, snapshot, PROFILE_FILE)
    if text is not None and (profile := from_json(text, snapshot.digest)) is not None:
        return Reference(snapshot, profile, canaries)
    with storage.local_copy(snapshot.uri) as folder:
        return Reference(snapshot, profile_snapshot(snapshot, folder), canaries)


def _refusal(run: ResolvedRun, report: DataReport) -> DataGateFailedError:
    """Return the error that lists what is not met, and says what to run."""
    from validation.data_gate.rows import FILES_MATCH, SCHEMA

    lines = "\n".join(
        f"- {o.name} ({o.severity}): found {o.observed}, expected {o.expected}"
        + (f"; in {', '.join(o.partitions)}" if o.partitions else "")
        for o in report.causes
    )
    stopping = [outcome.name for outcome in report.failures if outcome.stops_the_cycle]
    check, kind = stage_command("check_snapshot", run.run_uri), DataGateFailedError
    acceptable = tuple(stopping) if set(stopping) <= set(ACCEPTABLE) else ()
    mend = (
        f"Mend the event log, or change data_gate in the recipe if the data is right; then start a "
        f"new cycle with `{new_cycle_command(run)}`"
    )
    if {FILES_MATCH, SCHEMA} & set(stopping):
        kind, build = SnapshotDamagedError, rebuild_command(run.run_uri)
        mend = f"Build the snapshot again with `{build}`, then run `{check}`"
    elif acceptable:
        accept = " and ".join(f"`{accept_shift_command(run.run_uri, name)}`" for name in stopping)
        mend += f". If the data are right, say so with {accept}, then run `{check}`"
    error = kind(
        f"the data gate refused snapshot {report.snapshot_digest[:12]}; nothing was trained and "
        f"the champion stays:\n{lines}\nData Docs: {report.docs_uri}\n{mend}"
    )
    where = (day for outcome in report.failures for day in outcome.partitions)
    error.acceptable, error.about = acceptable, (*stopping, *dict.fromkeys(where))
    error.docs_uri = report.docs_uri
    return error
