"""What a judged cycle leaves in MLflow: each side as a run, the same names on both sides.

What decides comes first, because MLflow sorts by name. Not for judging, nor for the verdict page.
Tested in tests/pipelines/stages/test_compare_with_champion.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.alerts.rendering import to_markdown
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Comparison, Judgement, ServingCheck
from pipelines.registry import registry, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVING_METRICS = {"latency_p50_ms", "latency_p99_ms", "peak_memory_mib", "golden_difference"}
"""Fields of `ServingCheck` that are logged to MLflow, as `serving/<field>`."""


def log_sides(
    client: "MlflowClient",
    run: ResolvedRun,
    judgement: Judgement,
    out_dir: Path,
) -> tuple[str, str]:
    """Log each side as an MLflow run and the verdict as tags; return (challenger, baseline) ids.

    Where it ends early a later call completes it, and writes nothing twice. Numbers of the decision
    are `decision/..._percent`; the target metric of a simple baseline is `ranked_by/<name>`.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        judgement: The verdict, with its outcome.
        out_dir: The verdict page with its files.
    """
    comparison, anchor, outcome = judgement.comparison, judgement.anchor, judgement.outcome
    challenger, champion = comparison.challenger_model, comparison.baseline_model
    assert outcome is not None, "MLflow tells the outcome"
    tags = {
        "verdict": outcome.decision,
        "verdict_reason": outcome.why,
        "outcome": outcome.title,
        "serves": outcome.serves,
        "promoted": str(judgement.verdict.promoted),
        "holdout_digest": comparison.holdout_digest,
        registry.RULING: judgement.ruling_digest,
    }
    page = {tracking.DESCRIPTION: to_markdown(outcome)}
    own = _side_metrics(comparison, "challenger", judgement.serving)
    own |= {
        f"ranked_by/{each.name.replace(',', '')}": each.level.value
        for each in judgement.baselines
        if each.level
    }
    if (found := outcome.change) is not None:
        of_change = {"change": found.value, "low": found.low, "high": found.high}
        own |= {f"decision/{name}_percent": 100 * value for name, value in of_change.items()}
    baseline, theirs = comparison.baseline_label.removeprefix("the "), "baseline"
    # The page lies on both sides: MLflow's table of a comparison fails at a run without files.
    told = tags | page, out_dir
    others = _side_metrics(comparison, theirs)
    runs = (
        tracking.log_side(client, run, "challenger", challenger.label, own, *told),
        tracking.log_side(client, run, theirs, baseline, others, *told),
    )
    if champion is not None:
        tracking.copy_params(client, champion.mlflow_run_id, runs[1])
    if anchor is not None:
        its = {name: tags[name] for name in ("promoted", "holdout_digest")}  # no decision's words
        fresh = _side_metrics(anchor.freshness, "challenger", anchor.serving)
        tracking.log_side(client, run, "anchor", anchor.model.label, fresh, its | page)
        registry.tag_version(client, anchor.model, its)
    registry.tag_version(client, challenger, tags, page[tracking.DESCRIPTION])
    return runs


def _side_metrics(
    comparison: Comparison, side: str, serving: ServingCheck | None = None
) -> dict[str, float]:
    """Return one side's numbers under the names that both sides use in MLflow.

    Segment 'all' is logged as `holdout/<metric>`, others as `holdout_<segment>/<metric>`. A number
    that a side lacks is left out: popularity has no probabilities. The target metric stands beside
    the change that decides once more.
    """
    found = {}
    for row in comparison.metrics:
        value = row.challenger if side == "challenger" else row.baseline
        if value is not None:
            group = "holdout" if row.segment == "all" else f"holdout_{row.segment}"
            found[f"{group}/{row.metric}"] = value
            if (row.segment, row.metric) == ("all", comparison.target_metric):
                found[f"decision/{row.metric}"] = value
    figures = serving.model_dump(include=SERVING_METRICS) if serving else {}
    return found | {f"serving/{name}": value for name, value in figures.items()}
