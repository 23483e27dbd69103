"""The verdict: what may happen next, given all the facts. Pure, and the only place that rules.

Not for computing facts (`validation.model_gate.facts`, `training.bundle.serving_check`) nor for
acting on the verdict (`pipelines.registry.promotion`).
"""

import math

from pipelines.contracts.config import Head, Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import (
    BaselineKind,
    Comparison,
    Decision,
    Interval,
    SelfTest,
    ServingCheck,
    Verdict,
)
from validation.model_gate.findings import Findings, percent, quote_change
from validation.model_gate.limits import (
    judge_floors,
    judge_guardrails,
    judge_heads,
    judge_segments,
)
from validation.model_gate.target_metric import hits_name


def decide(
    comparison: Comparison,
    self_test: SelfTest,
    serving: ServingCheck,
    config: ModelGateConfig,
    heads: tuple[Head, ...],
) -> Verdict:
    """Return the one verdict on the challenger, with its reasons, the deciding ones first.

    These are all the rules, in the order in which they are tried:

    1. **Serving**: the serving check found a problem: REJECT. This holds even where the comparison
       is void, because it is known that the bundle would not serve.
    2. **Void**: the comparison says nothing about the challenger (two holdouts, a side that was
       trained on rows of the holdout, the same model twice, another target metric, too few users,
       an empty required segment, a missing or non-finite threshold): INCONCLUSIVE. REJECT would be
       an accusation without evidence.
    3. **REJECT**: a number that a rule needs is absent because the challenger's own scores are not
       finite; the whole interval of the change in the target metric lies below minus the margin; or
       a bound is broken, which means that the whole interval lies beyond it: a floor, a guardrail,
       the margin of a required segment, or what is asked of every head (`limits`).
    4. **A gap**: a number that a rule needs could not be computed for another reason: INCONCLUSIVE.
    5. **Held back**: an interval straddles a guardrail or a segment's margin, and the holdout could
       have seen a change of that size; or a level lies outside its floor, though not surely:
       INCONCLUSIVE.
    6. **Not shown**: the interval's lower end is not above minus the margin: INCONCLUSIVE.
    7. **A doubt**: the gate's self-test raised one, or was not run: INCONCLUSIVE.
    8. **PROMOTE** otherwise. In every other case the champion stays.

    Against popularity, in the first cycle, the margin is zero in 3 and 6: no champion has aged, so
    that freshness is worth nothing. Guardrails and segments are judged against popularity as they
    are against a champion.

    A holdout of many users can be sure of a loss that is smaller than the margin. Such a challenger
    is promoted, because freshness is worth the margin; the first reason says that the loss is
    certain, and people are alerted.

    Args:
        comparison: The challenger against the baseline.
        self_test: What the gate found when it tested itself on the same rows.
        serving: Whether the challenger's bundle would serve.
        config: Thresholds, from the run's configuration.
        heads: The model's heads; an unwanted one must be guarded.
    """
    verdict = decide_on_comparison(comparison, config, heads)
    decision, reasons = verdict.decision, verdict.reasons
    if decision is Decision.PROMOTE and (doubts := _doubts(self_test)):
        decision, reasons = Decision.INCONCLUSIVE, (*doubts, *reasons)
    if serving.problems:
        reasons = (*serving.problems, serving.describe(), *reasons)
        return Verdict(decision=Decision.REJECT, reasons=reasons)
    return Verdict(decision=decision, reasons=(*reasons, serving.describe()))


def decide_on_comparison(
    comparison: Comparison, config: ModelGateConfig, heads: tuple[Head, ...]
) -> Verdict:
    """Return what rules 2 to 6 of `decide` say; the self-test asks them about planted models.

    It is never PROMOTE where a threshold, a metric or an interval is missing or not finite.
    """
    void = (
        *_identity_reasons(comparison, config),
        *_threshold_reasons(config, heads),
        *_sample_reasons(comparison, config),
    )
    if void:
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=void)
    findings = Findings(comparison)
    judge_floors(config.floors, findings)
    judge_guardrails(config, findings)
    judge_segments(config, findings)
    judge_heads(config, heads, findings)
    target, sentence = _judge_target(config, findings)
    if findings.broken:
        reasons = (*findings.broken, *findings.missing)
        return Verdict(decision=Decision.REJECT, reasons=reasons)
    if findings.missing or target is None:
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=tuple(findings.missing))
    needed = needed_lower_end(comparison, config.margin)
    if target.low <= needed:
        sentence = (
            f"{sentence} Its lower end is not above the {percent(needed)} required, and it does "
            f"not lie wholly below that: this holdout cannot tell. It can see a change of "
            f"{comparison.detectable_change} four times in five."
        )
        reasons = (sentence, *findings.held_back, *findings.held)
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=reasons)
    sentence = f"{sentence} Its lower end is above the {percent(needed)} required."
    if target.high < 0:
        sentence = f"{sentence} The loss is certain, and smaller than the margin."
    if findings.held_back:
        reasons = (*findings.held_back, sentence, *findings.held)
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=reasons)
    return Verdict(decision=Decision.PROMOTE, reasons=(sentence, *findings.held))


def _doubts(self_test: SelfTest) -> tuple[str, ...]:
    """Return what the self-test holds against a promotion."""
    if not self_test.findings and not self_test.doubts:
        return ("Self-test: the gate was not tested on this holdout.",)
    return self_test.doubts


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
    champion = comparison.champion_model
    if comparison.baseline_kind is BaselineKind.CHAMPION and champion is None:
        reasons.append("The baseline is called the champion, but no champion model is named.")
    if champion is not None and champion.bundle_digest == comparison.challenger_model.bundle_digest:
        reasons.append(
            f"The same model stands on both sides (bundle {champion.bundle_digest[:12]}): "
            f"{champion.label} would be compared with itself."
        )
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


def _judge_target(config: ModelGateConfig, findings: Findings) -> tuple[Interval | None, str]:
    """Return the target metric's change and a sentence on it; add what breaks or lacks."""
    name = config.target_metric
    row = findings.find(name, "and it is the target metric")
    if row is None:
        return None, ""
    change = row.relative_change
    if change is None:
        findings.missing.append(
            f"The relative change of the target metric '{name}' has no interval: "
            f"{findings.why_no_change(row)}."
        )
        return None, ""
    champion = findings.comparison.champion_model
    against = champion.label if champion is not None else "the popularity ranking"
    sentence = (
        f"{name} is {row.challenger:.4f} against {row.baseline:.4f} of {against}: "
        f"{quote_change(change)}."
    )
    needed = needed_lower_end(findings.comparison, config.margin)
    if change.high < needed:
        below = percent(needed) if needed else "zero"
        findings.broken.insert(0, f"{sentence} The interval lies wholly below {below}.")
    return change, sentence


def needed_lower_end(comparison: Comparison, margin: float) -> float:
    """Return what the lower end of the target metric's interval must exceed."""
    return -margin if comparison.baseline_kind is BaselineKind.CHAMPION else 0.0
