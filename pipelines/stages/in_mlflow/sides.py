"""What a judged cycle leaves in MLflow: each side as a run, the same names on both sides.

What decides comes first, because MLflow sorts by name. Not for judging, nor for the verdict page.
Tested in tests/pipelines/stages/test_compare_with_champion.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.alerts.rendering import to_markdown
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.judgement import AnchorFacts, Comparison, Judgement, Outcome, ServingCheck
from pipelines.registry import registry, tracking
from pipelines.registry.in_mlflow import (
    ALL_CYCLES,
    Named,
    Side,
    as_decoration,
    log_cycle,
    log_dataset,
    log_side,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVING_METRICS = ("latency_p50_ms", "latency_p99_ms", "peak_memory_mib", "golden_difference")
"""Fields of `ServingCheck` that are logged to MLflow, as `serving/<field>`."""


def log_sides(
    client: "MlflowClient",
    run: ResolvedRun,
    judgement: Judgement,
    out_dir: Path,
    rows: Named | None = None,
) -> tuple[str, str]:
    """Log each side as an MLflow run and the verdict as tags; return (challenger, baseline) ids.

    Where it ends early a later call completes it, and writes nothing twice.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        judgement: The verdict, with its outcome.
        out_dir: The verdict page with its files.
        rows: The dataset that they were compared on; None leaves the models' own pages as they are.
    """
    comparison, verdict, anchor = judgement.comparison, judgement.verdict, judgement.anchor
    challenger = comparison.challenger_model
    outcome = judgement.outcome
    assert outcome is not None, "MLflow tells the outcome"
    tags = {
        "verdict": outcome.decision,
        "verdict_reason": outcome.why,
        "outcome": outcome.title,
        "serves": outcome.serves,
        "promoted": str(verdict.promoted),
        "holdout_digest": comparison.holdout_digest,
        registry.RULING: judgement.ruling_digest,
    }
    own = _side_metrics(comparison, "challenger") | _serving_metrics(judgement.serving)
    own |= _baseline_metrics(judgement) | _decision_metrics(outcome)
    other = _side_metrics(comparison, "baseline")
    baseline = comparison.baseline_label.removeprefix("the ")
    described = tags | {tracking.DESCRIPTION: to_markdown(outcome)}
    champion = comparison.baseline_model
    runs = (
        log_side(
            client, run, Side("challenger", challenger.label, challenger), own, described, rows,
            out_dir,
        ),
        # The page lies on both sides: MLflow's table of a comparison fails at a run without files.
        log_side(
            client, run, Side("baseline", baseline, champion), other, described, rows, out_dir
        ),
    )  # fmt: skip
    if champion is not None:
        tracking.copy_params(client, champion.mlflow_run_id, runs[1])
    if anchor is not None:
        _log_anchor(client, run, anchor, described, rows)
    registry.tag_version(client, challenger, tags)
    registry.describe_version(client, challenger, described[tracking.DESCRIPTION])
    return runs


def _log_anchor(
    client: "MlflowClient",
    run: ResolvedRun,
    anchor: AnchorFacts,
    described: dict[str, str],
    rows: Named | None,
) -> None:
    """Log the fresh anchor as a run, and tag its version."""
    fresh = _side_metrics(anchor.freshness, "challenger") | _serving_metrics(anchor.serving)
    # The decision is about the challenger; of the anchor it is known whether it was promoted.
    its = {name: described[name] for name in ("promoted", "holdout_digest")}
    its_page = its | {tracking.DESCRIPTION: described[tracking.DESCRIPTION]}
    log_side(client, run, Side("anchor", anchor.model.label, anchor.model), fresh, its_page, rows)
    registry.tag_version(client, anchor.model, its)


def log_whole(
    client: "MlflowClient",
    run: ResolvedRun,
    comparison: Comparison,
    snapshot: Snapshot,
    baseline_run: str,
    is_void: bool = False,
) -> None:
    """Log what the sides were compared on, and what the experiment shows of all its cycles.

    Nothing of it is read by a cycle. Each part is written whatever became of the others.

    Raises:
        HomefeedError: an error that may pass.
    """
    with as_decoration("what the sides were compared on"):
        log_dataset(client, baseline_run, snapshot, "evaluation")
    with as_decoration(f"the cycle in the run {ALL_CYCLES!r}"):
        log_cycle(client, run, comparison, is_void)


def _serving_metrics(serving: ServingCheck) -> dict[str, float]:
    figures = serving.model_dump(include=set(SERVING_METRICS))
    return {f"serving/{name}": value for name, value in figures.items()}


def _decision_metrics(outcome: Outcome) -> dict[str, float]:
    """Return the change that decides and its interval, in percent; nothing where it is not known.

    MLflow sorts by name, so these come first.
    """
    if (change := outcome.change) is None:
        return {}
    found = {"change": change.value, "low": change.low, "high": change.high}
    return {f"decision/{name}_percent": 100 * value for name, value in found.items()}


def _baseline_metrics(judgement: Judgement) -> dict[str, float]:
    """Return the target metric of each simple baseline, as `ranked_by/<name>`.

    MLflow sorts by name: the challenger's own metrics, `holdout/...`, are to come first in its
    table of a comparison, which shows some seventeen rows at a time.
    """
    return {
        f"ranked_by/{facts.name.replace(',', '')}": facts.level.value
        for facts in judgement.baselines
        if facts.level is not None
    }


def _side_metrics(comparison: Comparison, side: str) -> dict[str, float]:
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
    return found
