"""`compare_with_champion`: score both sides on one holdout, judge, publish, log.

The judging is `validation`; this fetches the champion and makes both sides comparable in MLflow.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.commands import rebuild_command
from pipelines.alerts.next_step import after_verdict
from pipelines.contracts.artifacts import Challenger, ResolvedRun, Snapshot
from pipelines.contracts.judgement import BaselineKind, Comparison, Judgement, ServingCheck, Verdict
from pipelines.contracts.mlflow_errors import translated_errors
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry import registry, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Judged:
    """What was found out about the challenger, before it is published."""

    comparison: Comparison
    verdict: Verdict
    serving: ServingCheck


def compare_with_champion(
    run: ResolvedRun, snapshot: Snapshot, challenger: Challenger, output_uri: str
) -> Judgement:
    """Judge the challenger against the pinned champion, or against popularity in the first cycle.

    Raises:
        DataContractError: the champion's bundle cannot score this snapshot.
        TrackingUnavailableError: MLflow cannot be reached.
    """
    from training.bundle.serving_check import check_serving
    from validation.model_gate.facts import gather_facts
    from validation.model_gate.verdict import decide
    from validation.report import verdict_page as report

    client = tracking.connect(run.tracking_uri)
    with storage.scratch_folder(run.workspace_uri) as scratch, contextlib.ExitStack() as stack:
        bundle_dir = stack.enter_context(storage.local_copy(challenger.bundle_uri))
        snapshot_dir = stack.enter_context(storage.local_copy(snapshot.uri))
        verify_files(snapshot, snapshot_dir, f"run `{rebuild_command(run.run_uri)}`")
        comparison, self_test = gather_facts(
            snapshot=snapshot,
            snapshot_dir=snapshot_dir,
            challenger=challenger.model,
            challenger_bundle_dir=bundle_dir,
            champion=run.champion,
            champion_bundle_dir=_champion_bundle(client, run, scratch),
            config=run.config,
        )
        serving = check_serving(bundle_dir, run.config.serving)
        gate, heads = run.config.model_gate, run.config.features.heads
        verdict = decide(comparison, self_test, serving, gate, heads)
        out_dir = scratch / "report"
        out_dir.mkdir()
        step = after_verdict(run, verdict, challenger.model.label)
        said = report_context(run)
        page = report.write_report(comparison, self_test, verdict, step, out_dir, said)
        facts = Judged(comparison, verdict, serving)
        runs = _log_sides(client, run, challenger, facts, out_dir)
        storage.publish_folder(out_dir, output_uri)
    return Judgement(
        comparison=comparison,
        self_test=self_test,
        serving=serving,
        verdict=verdict,
        report_uri=storage.join(output_uri, page.name),
        challenger_mlflow_run_id=runs[0],
        baseline_mlflow_run_id=runs[1],
    )


def report_context(run: ResolvedRun) -> dict[str, str]:
    """Return what the verdict page says of the run besides the numbers."""
    return {
        "run_id": run.run_id,
        "recipe": run.config.recipe,
        "as_of": f"{run.as_of:%Y-%m-%d}",
        "code_version": run.code_version,
        "margin": str(run.config.model_gate.margin),
    }


def _champion_bundle(client: "MlflowClient", run: ResolvedRun, scratch: Path) -> Path | None:
    if run.champion is None:
        return None
    folder = scratch / "champion"
    folder.mkdir()
    return registry.download_bundle(client, run.tracking_uri, run.champion, folder)


def side_metrics(comparison: Comparison, side: str) -> dict[str, float]:
    """Return one side's numbers under the names both sides use in MLflow.

    Segment 'all' is logged as `holdout/<metric>`, others as `holdout_<segment>/<metric>`.
    """
    found = {}
    for row in comparison.metrics:
        value = row.challenger if side == "challenger" else row.baseline
        if value is None:  # popularity has no probabilities
            continue
        group = "holdout" if row.segment == "all" else f"holdout_{row.segment}"
        found[f"{group}/{row.metric}"] = value
    return found


def serving_metrics(serving: ServingCheck) -> dict[str, float]:
    """Return the serving check's figures under their names in MLflow."""
    return {
        "serving/latency_p50_ms": serving.latency_p50_ms,
        "serving/latency_p99_ms": serving.latency_p99_ms,
        "serving/peak_memory_mib": serving.peak_memory_mib,
        "serving/golden_difference": serving.golden_difference,
    }


def _log_sides(
    client: "MlflowClient",
    run: ResolvedRun,
    challenger: Challenger,
    judged: Judged,
    out_dir: Path,
) -> tuple[str, str]:
    """Log both sides as MLflow runs and the verdict as tags; return (challenger, baseline) ids."""
    comparison, verdict = judged.comparison, judged.verdict
    tags = {
        "verdict": str(verdict.decision),
        "verdict_reason": verdict.reasons[0],
        "holdout_digest": comparison.holdout_digest,
    }
    with _ended(client, run, "challenger", challenger.model.label) as challenger_run:
        own = side_metrics(comparison, "challenger") | serving_metrics(judged.serving)
        tracking.log_side(client, challenger_run, own, tags, out_dir)
    baseline = _baseline_label(comparison)
    with _ended(client, run, "baseline", baseline) as baseline_run:
        other = side_metrics(comparison, "baseline")
        tracking.log_side(client, baseline_run, other, tags, None)
    registry.tag_version(client, run.tracking_uri, challenger.model, tags)
    return challenger_run, baseline_run


def _baseline_label(comparison: Comparison) -> str:
    if comparison.baseline_kind is BaselineKind.POPULARITY:
        return "popularity ranking"
    if comparison.champion_model is None:
        return "champion"
    return f"champion {comparison.champion_model.label}"


@contextlib.contextmanager
def _ended(client: "MlflowClient", run: ResolvedRun, side: str, label: str) -> Iterator[str]:
    """Give the MLflow run of one side, and mark it finished afterwards."""
    name = f"{run.as_of:%Y-%m-%d} {label}"
    run_id = tracking.open_run(client, run, side, name)
    with translated_errors(run.tracking_uri):
        yield run_id
        client.set_terminated(run_id, "FINISHED")
