"""The bodies of the stages: each hands its inputs to the part that does the work and publishes.

Imports inside the functions are deliberate: a light stage must not pay for torch or pandas.
"""

from datetime import UTC, datetime
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, DataReport, ResolvedRun, Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import DataGateFailedError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.settings import Settings
from pipelines.stages.compare_with_champion import compare_with_champion
from pipelines.stages.runner import Stage, StageContext
from pipelines.stages.train_challenger import train_challenger


def build_snapshot(context: StageContext) -> Snapshot:
    """Build, or find, the content-addressed snapshot of the run."""
    from pipelines.snapshot import build as snapshot

    return snapshot.build_snapshot(context.run)


def check_snapshot(context: StageContext) -> DataReport:
    """Judge the snapshot; publish the Data Docs either way.

    Raises:
        DataGateFailedError: a critical expectation failed; the message lists all that failed.
    """
    snapshot = context.artifact("build_snapshot", Snapshot)
    reference = _reference(context.run)
    with storage.scratch_folder(context.run.workspace_uri) as scratch:
        outcomes = _judge_data(context, snapshot, reference, scratch)
        docs_uri = storage.join(context.output_uri, "data_docs", "index.html")
        report = DataReport(
            snapshot_digest=snapshot.digest,
            outcomes=outcomes,
            docs_uri=docs_uri,
            reference_digest=reference.digest if reference else None,
        )
        storage.publish_folder(scratch / "report", context.output_uri)
    storage.write_model(storage.join(context.output_uri, "report.json"), report)
    if not report.is_accepted:
        raise DataGateFailedError(_refusal(report))
    _mark_accepted(context.run, snapshot)
    return report


def _judge_data(
    context: StageContext, snapshot: Snapshot, reference: Snapshot | None, scratch: Path
) -> tuple:  # type: ignore[type-arg]
    from validation.data_gate import gate as data_gate

    out_dir = scratch / "report"
    out_dir.mkdir()
    config = context.run.config.data_gate
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        if reference is None:
            return data_gate.check_snapshot(snapshot, snapshot_dir, None, None, config, out_dir)
        with storage.local_copy(reference.uri) as reference_dir:
            return data_gate.check_snapshot(
                snapshot, snapshot_dir, reference, reference_dir, config, out_dir
            )


def _reference(run: ResolvedRun) -> Snapshot | None:
    uri = run.last_accepted_snapshot_uri
    return storage.read_model(snapshot_manifest_uri(uri), Snapshot) if uri else None


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


def _mark_accepted(run: ResolvedRun, snapshot: Snapshot) -> None:
    from pipelines.stages.resolve_run import AcceptedSnapshot, accepted_folder

    marker = AcceptedSnapshot(as_of=run.as_of, snapshot_uri=snapshot.uri, recipe=run.config.recipe)
    name = f"{run.as_of:%Y-%m-%d}--{snapshot.digest[:12]}.json"
    folder = accepted_folder(run.workspace_uri, run.config.recipe)
    storage.write_model(storage.join(folder, name), marker)


def promote_challenger(context: StageContext) -> Frozen:
    """Move the champion if the verdict says so."""
    from pipelines.registry import promotion

    challenger = context.artifact("train_challenger", Challenger)
    judgement = context.artifact("compare_with_champion", Judgement)
    return promotion.promote_challenger(context.run, challenger, judgement, datetime.now(UTC))


def alert(context: StageContext) -> Frozen:
    """Tell people about a regression or an inconclusive comparison."""
    from pipelines.alerts import compose as alerts

    judgement = context.artifact("compare_with_champion", Judgement)
    return alerts.alert_on(judgement, context.run, Settings())


STAGE_BODIES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("build_snapshot", (), build_snapshot),
        Stage("check_snapshot", ("build_snapshot",), check_snapshot),
        Stage("train_challenger", ("build_snapshot", "check_snapshot"), train_challenger),
        Stage(
            "compare_with_champion",
            ("build_snapshot", "train_challenger"),
            compare_with_champion,
        ),
        Stage(
            "promote_challenger",
            ("train_challenger", "compare_with_champion"),
            promote_challenger,
        ),
        Stage("alert", ("compare_with_champion",), alert),
    )
}
