"""`compare_with_champion`: score both sides on one holdout, judge, publish, log.

The judging is done by `validation`. This module fetches the champion, and logs both sides to MLflow
under the same names.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.commands import rebuild_command
from pipelines.alerts.next_step import after_verdict
from pipelines.contracts.artifacts import Challenger, ResolvedRun, Snapshot
from pipelines.contracts.judgement import Comparison, Judgement, ServingCheck, Verdict
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry import registry, tracking
from pipelines.snapshot.counterpart import counterpart

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from validation.model_gate.sides import Side

SERVING_METRICS = ("latency_p50_ms", "latency_p99_ms", "peak_memory_mib", "golden_difference")
"""Fields of `ServingCheck` that are logged to MLflow, as `serving/<field>`."""


def compare_with_champion(
    run: ResolvedRun, snapshot: Snapshot, challenger: Challenger, output_uri: str
) -> Judgement:
    """Judge the challenger against the pinned champion, or against popularity in the first cycle.

    Raises:
        DataContractError: a bundle is damaged, or the event log lacks what the champion is told.
        TrackingUnavailableError: MLflow cannot be reached.
    """
    from training.bundle.serving_check import check_serving
    from validation.model_gate.facts import gather_facts
    from validation.model_gate.sides import Side
    from validation.model_gate.verdict import decide
    from validation.report import verdict_page as report

    client = tracking.connect(run.tracking_uri)
    with (
        storage.scratch_folder(run.workspace_uri) as scratch,
        storage.local_copy(challenger.bundle_uri) as bundle_dir,
        storage.local_copy(snapshot.uri) as snapshot_dir,
        _champion_side(client, run, snapshot, scratch) as champion,
    ):
        verify_files(snapshot, snapshot_dir, f"run `{rebuild_command(run.run_uri)}`")
        side = Side(challenger.model, bundle_dir, snapshot, snapshot_dir)
        comparison, self_test = gather_facts(side, champion, run.config)
        serving = check_serving(bundle_dir, run.config.serving)
        gate, heads = run.config.model_gate, run.config.features.heads
        verdict = decide(comparison, self_test, serving, gate, heads)
        out_dir = scratch / "report"
        out_dir.mkdir()
        step = after_verdict(run, verdict, challenger.model.label)
        said = {
            "run_id": run.run_id,
            "recipe": run.config.recipe,
            "as_of": f"{run.as_of:%Y-%m-%d}",
            "code_version": run.code_version,
            "margin": str(gate.margin),
        }
        page = report.write_report(comparison, self_test, verdict, step, out_dir, said)
        challenger_run, baseline_run = log_sides(client, run, comparison, verdict, serving, out_dir)
        storage.publish_folder(out_dir, output_uri)
    return Judgement(
        comparison=comparison,
        self_test=self_test,
        serving=serving,
        verdict=verdict,
        report_uri=storage.join(output_uri, page.name),
        challenger_mlflow_run_id=challenger_run,
        baseline_mlflow_run_id=baseline_run,
    )


@contextlib.contextmanager
def _champion_side(
    client: "MlflowClient", run: ResolvedRun, snapshot: Snapshot, scratch: Path
) -> "Iterator[Side | None]":
    """Fetch the champion, with a snapshot that is computed as its own recipe says."""
    from training.bundle.files import read_config
    from validation.model_gate.sides import Side

    if run.champion is None:
        yield None
        return
    bundle_dir = registry.download_bundle(client, run.champion, scratch / "champion")
    config = read_config(bundle_dir)
    # An older bundle does not say how its features are computed; it is taken to be as in this run.
    options = config.snapshot or run.config.snapshot.model_copy(
        update={"embedding_version": config.embedding_version}
    )
    own = counterpart(run, snapshot, config.features, options)
    with storage.local_copy(own.uri) as own_dir:
        if own.digest != snapshot.digest:
            verify_files(own, own_dir, "delete its folder: it is built again when it is needed")
        yield Side(run.champion, bundle_dir, own, own_dir)


def log_sides(
    client: "MlflowClient",
    run: ResolvedRun,
    comparison: Comparison,
    verdict: Verdict,
    serving: ServingCheck,
    out_dir: Path,
) -> tuple[str, str]:
    """Log both sides as MLflow runs and the verdict as tags; return (challenger, baseline) ids."""
    challenger = comparison.challenger_model
    tags = {
        "verdict": str(verdict.decision),
        "verdict_reason": verdict.reasons[0],
        "holdout_digest": comparison.holdout_digest,
    }
    figures = serving.model_dump(include=set(SERVING_METRICS))
    own = _side_metrics(comparison, "challenger") | {f"serving/{k}": v for k, v in figures.items()}
    other = _side_metrics(comparison, "baseline")
    baseline = f"champion {run.champion.label}" if run.champion else "popularity ranking"
    runs = (
        tracking.log_side(client, run, "challenger", challenger.label, own, tags, out_dir),
        tracking.log_side(client, run, "baseline", baseline, other, tags),
    )
    registry.tag_version(client, challenger, tags)
    return runs


def _side_metrics(comparison: Comparison, side: str) -> dict[str, float]:
    """Return one side's numbers under the names that both sides use in MLflow.

    Segment 'all' is logged as `holdout/<metric>`, others as `holdout_<segment>/<metric>`. A number
    that a side lacks is left out: popularity has no probabilities.
    """
    found = {}
    for row in comparison.metrics:
        value = row.challenger if side == "challenger" else row.baseline
        if value is not None:
            group = "holdout" if row.segment == "all" else f"holdout_{row.segment}"
            found[f"{group}/{row.metric}"] = value
    return found
