"""`check_snapshot`: may a model be trained on this snapshot? The judging is `validation.data_gate`.

<output_uri>/data_docs/index.html    the Data Docs
<output_uri>/report.json             the DataReport, also where the snapshot is refused
"""

import contextlib

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.errors import DataGateFailedError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.snapshot.accepted import mark_accepted


def check_snapshot(run: ResolvedRun, snapshot: Snapshot, output_uri: str) -> DataReport:
    """Judge the snapshot, publish the Data Docs, and mark an accepted snapshot as a reference.

    Raises:
        DataGateFailedError: a critical expectation failed; the message lists all that failed.
        DataContractError: a file of the snapshot is missing or was altered.
    """
    from validation.data_gate.gate import judge_snapshot

    reference = _read_reference(run)
    with storage.scratch_folder(run.workspace_uri) as scratch, contextlib.ExitStack() as stack:
        out_dir = scratch / "report"
        out_dir.mkdir()
        snapshot_dir = stack.enter_context(storage.local_copy(snapshot.uri))
        verify_files(snapshot, snapshot_dir)
        outcomes = judge_snapshot(
            snapshot,
            snapshot_dir,
            reference,
            stack.enter_context(storage.local_copy(reference.uri)) if reference else None,
            run.config.data_gate,
            out_dir,
        )
        storage.publish_folder(out_dir, output_uri)
    report = DataReport(
        snapshot_digest=snapshot.digest,
        outcomes=outcomes,
        docs_uri=storage.join(output_uri, "data_docs", "index.html"),
        reference_digest=reference.digest if reference else None,
    )
    storage.write_model(storage.join(output_uri, "report.json"), report)
    if not report.is_accepted:
        raise DataGateFailedError(_refusal(report))
    mark_accepted(run, snapshot)
    return report


def _read_reference(run: ResolvedRun) -> Snapshot | None:
    """Return the snapshot that `resolve_run` pinned for the shift checks, or None."""
    if run.last_accepted_snapshot_uri is None:
        return None
    return storage.read_model(snapshot_manifest_uri(run.last_accepted_snapshot_uri), Snapshot)


def _refusal(report: DataReport) -> str:
    lines = [
        f"- {o.name} ({o.severity}): found {o.observed}, expected {o.expected}"
        + (f"; in {', '.join(o.partitions)}" if o.partitions else "")
        for o in report.failures
    ]
    return (
        f"the data gate refused snapshot {report.snapshot_digest[:12]}; nothing was trained and "
        f"the champion stays:\n" + "\n".join(lines) + f"\nData Docs: {report.docs_uri}\nMend the "
        f"event log and start a new run, or change data_gate in the recipe if the data is right"
    )
