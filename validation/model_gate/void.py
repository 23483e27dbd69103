"""Why a comparison says nothing: two holdouts, rows that were seen, no thresholds, too few users.

A void comparison neither accuses nor acquits. Not for what a sound one says
(`validation.model_gate.examine`). Tested in tests/validation/model_gate/test_verdict.py.
"""

import math

from pipelines.contracts.config import Head, Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import BaselineKind, Comparison
from validation.model_gate.target_metric import hits_name


def void_reasons(
    comparison: Comparison, config: ModelGateConfig, heads: tuple[Head, ...]
) -> tuple[str, ...]:
    """Return in sentences why nothing follows from a comparison; () where something does.

    The same scores on both sides are suspicious but against the fresh anchor: two recipes may well
    make the same model, of the same rows.
    """
    return (
        *_identity_reasons(comparison, config),
        *_threshold_reasons(config, heads),
        *_sample_reasons(comparison, config),
    )


def _identity_reasons(comparison: Comparison, config: ModelGateConfig) -> list[str]:
    """Return why this does not compare two models on one holdout by the target metric."""
    reasons = []
    ours, theirs = comparison.holdout_digest, comparison.baseline_holdout_digest
    if theirs is None or ours != theirs:
        reasons.append(
            f"The two sides were not scored on the same holdout (challenger {ours[:12]}, baseline "
            f"{theirs[:12] if theirs else 'unknown'}); score both again on one snapshot."
        )
    reasons += comparison.seen
    if comparison.target_metric != config.target_metric:
        reasons.append(
            f"The comparison is about the target metric '{comparison.target_metric}', and the "
            f"configuration names '{config.target_metric}'."
        )
    baseline = comparison.baseline_model
    if not comparison.is_first_cycle and baseline is None:
        reasons.append(
            f"The baseline is called the {comparison.baseline_kind}, but no "
            f"{comparison.baseline_kind} model is named."
        )
    if baseline is not None and baseline.bundle_digest == comparison.challenger_model.bundle_digest:
        reasons.append(
            f"The same model stands on both sides (bundle {baseline.bundle_digest[:12]}): "
            f"{baseline.label} would be compared with itself."
        )
    if comparison.baseline_kind is BaselineKind.ANCHOR:
        return reasons
    if comparison.are_scores_identical is None:
        reasons.append("Nobody checked whether both sides give the same scores.")
    elif comparison.are_scores_identical:
        reasons.append(
            f"Both sides give the same score to each of the {comparison.num_examples:,} holdout "
            f"examples: the same model seems to stand on both sides."
        )
    return reasons


def _threshold_reasons(config: ModelGateConfig, heads: tuple[Head, ...]) -> list[str]:
    """Return which thresholds are missing or not finite.

    The configuration refuses a number that is not finite. The gate asks again, because a comparison
    with NaN is always false and would let every challenger pass.
    """
    reasons = []
    if not config.floors:
        reasons.append("No absolute floor is configured; set model_gate.floors.")
    guarded = {limit.metric for limit in config.guardrails}
    for head in heads:
        if not head.is_wanted and (metric := hits_name(head.name)) not in guarded:
            reasons.append(
                f"Head {head.name!r} is unwanted and no guardrail bounds '{metric}'; "
                f"set model_gate.guardrails."
            )
    bounds: list[tuple[str, float | None]] = [
        (f"model_gate.{name}", value) for name, value in config if isinstance(value, float)
    ]
    limits: tuple[Limit | RelativeLimit, ...] = (*config.floors, *config.guardrails)
    for limit in limits:
        kind = "floor" if isinstance(limit, Limit) else "guardrail"
        bounds += [(f"{kind} {limit.metric} {name}", x) for name, x in limit if name != "metric"]
    return reasons + [
        f"The threshold '{name}' is {bound}, expected a finite number."
        for name, bound in bounds
        if bound is not None and not math.isfinite(bound)
    ]


def _sample_reasons(comparison: Comparison, config: ModelGateConfig) -> list[str]:
    """Return why the holdout is too small: it lacks users, or a segment that is required."""
    reasons = []
    if comparison.num_users < config.min_users:
        reasons.append(
            f"The holdout has {comparison.num_users:,} users, expected at least "
            f"{config.min_users:,} (model_gate.min_users)."
        )
    for segment in config.required_segments:
        if not comparison.segment_users.get(segment):
            reasons.append(f"The required segment '{segment}' has no users in the holdout.")
    return reasons
