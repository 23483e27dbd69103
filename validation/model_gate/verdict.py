"""Verdict: what may happen next, given the facts of a comparison. Pure; fails closed.

Not for computing facts (`validation.model_gate.comparison`) nor for acting on them
(`pipelines.registry.promotion`). The rules, in the order in which they are tried:

1. **Void**: the comparison says nothing about the challenger (two holdouts, the same model twice,
   too few users, an empty required segment, a missing or non-finite threshold): INCONCLUSIVE.
   REJECT would be an accusation without evidence; the champion stays either way.
2. **REJECT**: the challenger's own number is not finite, the interval of the relative change in
   the target metric lies wholly below zero, or a floor or guardrail breaks.
3. **A gap**: a metric that a rule needs was not computed: INCONCLUSIVE.
4. **PROMOTE**: the interval's lower end is above minus the margin (against popularity, in the
   first cycle: above zero, since no fresher model exists whose age could be worth a loss).
5. **INCONCLUSIVE** otherwise: the champion stays.

Floors and guardrails break on the estimate itself, strictly beyond the bound (a value exactly at
the bound holds); the interval is quoted beside it.
"""

import math
from dataclasses import dataclass, field

from pipelines.contracts.artifacts import (
    BaselineKind,
    Comparison,
    Decision,
    Interval,
    ServingCheck,
    Verdict,
)
from pipelines.contracts.config import Head, Limit, ModelGateConfig, RelativeLimit

_ROUNDING = 1e-9
"""A bound that is met exactly may be missed by float arithmetic: 1.02 / 1 - 1 > 0.02."""


@dataclass
class _Findings:
    """Sentences by what they mean."""

    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


def decide(comparison: Comparison, config: ModelGateConfig, heads: tuple[Head, ...]) -> Verdict:
    """Return the verdict with its reasons as sentences, the deciding ones first.

    Args:
        comparison: The facts.
        config: Thresholds, from the run's configuration.
        heads: The model's heads; an unwanted one must be guarded.

    Returns:
        PROMOTE, REJECT or INCONCLUSIVE. Never PROMOTE where a threshold, a metric or an interval
        is missing or not finite.
    """
    void = _void_reasons(comparison, config, heads)
    if void:
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=tuple(void))
    findings = _Findings()
    _judge_floors(comparison, config.floors, findings)
    _judge_guardrails(comparison, config, findings)
    _judge_segments(comparison, config, findings)
    target, target_sentence = _judge_target(comparison, config, findings)
    if findings.broken:
        reasons = [*findings.broken, *findings.missing]
        return Verdict(decision=Decision.REJECT, reasons=tuple(reasons))
    if findings.missing or target is None:
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=tuple(findings.missing))
    needed = _needed_lower_end(comparison, config)
    if target.low > needed:
        sentence = f"{target_sentence} Its lower end is above the {_percent(needed)} required."
        return Verdict(decision=Decision.PROMOTE, reasons=(sentence, *findings.held))
    sentence = (
        f"{target_sentence} Its lower end is not above the {_percent(needed)} required, and it "
        f"does not lie wholly below zero: this holdout cannot tell. It can see a change of "
        f"{comparison.smallest_detectable_change * 100:.2f} % four times in five."
    )
    return Verdict(decision=Decision.INCONCLUSIVE, reasons=(sentence, *findings.held))


def with_serving(verdict: Verdict, serving: ServingCheck) -> Verdict:
    """Return the verdict with the serving check in it: a problem there is a broken floor.

    A void comparison stays INCONCLUSIVE only if the bundle would serve: that it would not is known.
    """
    if not serving.problems:
        return verdict.model_copy(update={"reasons": (*verdict.reasons, serving.describe())})
    reasons = (*serving.problems, serving.describe(), *verdict.reasons)
    return Verdict(decision=Decision.REJECT, reasons=reasons)


def _void_reasons(
    comparison: Comparison, config: ModelGateConfig, heads: tuple[Head, ...]
) -> list[str]:
    """Return why this comparison says nothing about the challenger; empty if it does."""
    return [
        *_identity_reasons(comparison),
        *_threshold_reasons(config, heads),
        *_sample_reasons(comparison, config),
    ]


def _identity_reasons(comparison: Comparison) -> list[str]:
    """Return whether one holdout and two different models were compared."""
    reasons = []
    ours, theirs = comparison.holdout_digest, comparison.baseline_holdout_digest
    if theirs is None or ours != theirs:
        reasons.append(
            f"The two sides were not scored on the same holdout (challenger {ours[:12]}, baseline "
            f"{theirs[:12] if theirs else 'unknown'}); score both again on one snapshot."
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
    """Return which thresholds are missing or not numbers (NaN compares false with everything)."""
    reasons = []
    if not config.floors:
        reasons.append("No absolute floor is configured; set model_gate.floors.")
    guarded = {limit.metric for limit in config.guardrails}
    for head in heads:
        if not head.is_wanted and f"hit_at_3.{head.name}" not in guarded:
            reasons.append(
                f"Head {head.name!r} is unwanted and no guardrail bounds 'hit_at_3.{head.name}'; "
                f"set model_gate.guardrails."
            )
    bounds: list[tuple[str, float | None]] = [("model_gate.margin", config.margin)]
    for floor in config.floors:
        bounds.append((f"floor {floor.metric} minimum", floor.minimum))
        bounds.append((f"floor {floor.metric} maximum", floor.maximum))
    for rail in config.guardrails:
        bounds.append((f"guardrail {rail.metric} max_increase", rail.max_increase))
        bounds.append((f"guardrail {rail.metric} max_decrease", rail.max_decrease))
    for name, bound in bounds:
        if bound is not None and not math.isfinite(bound):
            reasons.append(f"The threshold '{name}' is {bound}, expected a finite number.")
    return reasons


def _sample_reasons(comparison: Comparison, config: ModelGateConfig) -> list[str]:
    """Return whether the holdout is too small or lacks a segment."""
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


def _judge_floors(comparison: Comparison, floors: tuple[Limit, ...], findings: _Findings) -> None:
    """Hold the challenger's own levels against the absolute bounds."""
    for floor in floors:
        row = comparison.find(floor.metric)
        if row is None:
            findings.missing.append(
                f"'{floor.metric}' was not computed, so its floor cannot be judged."
            )
            continue
        value = row.challenger
        bound = _floor(floor)
        if not math.isfinite(value):
            findings.broken.append(f"The challenger's {floor.metric} is {value}, not a number.")
        elif _is_outside(value, floor.minimum, floor.maximum):
            findings.broken.append(
                f"The challenger's {floor.metric} is {value:.4f}"
                f"{_quoted(row.challenger_interval)}, outside its floor {bound}."
            )
        else:
            findings.held.append(f"{floor.metric} {value:.4f} holds its floor {bound}.")


def _judge_guardrails(comparison: Comparison, config: ModelGateConfig, findings: _Findings) -> None:
    """Hold relative changes against their bounds; they are bounds against a champion only."""
    if comparison.baseline_kind is not BaselineKind.CHAMPION:
        if config.guardrails:
            findings.held.append(
                "Guardrails were not judged: there is no champion to compare with."
            )
        return
    for rail in config.guardrails:
        row = comparison.find(rail.metric)
        if row is not None and not math.isfinite(row.challenger):
            findings.broken.append(
                f"The challenger's {rail.metric} is {row.challenger}, not a number."
            )
            continue
        change = row.relative_change if row is not None else None
        if change is None or not _is_finite(change):
            findings.missing.append(
                f"The relative change of '{rail.metric}' could not be computed (missing, or the "
                f"champion's is zero), so its guardrail cannot be judged."
            )
        elif _is_outside(
            change.value,
            None if rail.max_decrease is None else -rail.max_decrease,
            rail.max_increase,
        ):
            findings.broken.append(
                f"{rail.metric} changed by {_change(change)}, beyond its guardrail {_rail(rail)}."
            )
        else:
            findings.held.append(
                f"{rail.metric} changed by {_change(change)}, within its guardrail {_rail(rail)}."
            )


def _judge_segments(comparison: Comparison, config: ModelGateConfig, findings: _Findings) -> None:
    """Require the target metric in each required segment; a loss there is named, not decisive."""
    for segment in config.required_segments:
        row = comparison.find(config.target_metric, segment)
        if row is None:
            findings.missing.append(
                f"'{config.target_metric}' was not computed in the required segment '{segment}'."
            )
        elif row.relative_change is not None and row.relative_change.high < 0:
            findings.held.append(
                f"Note: in segment {segment} {config.target_metric} changed by "
                f"{_change(row.relative_change)}."
            )


def _judge_target(
    comparison: Comparison, config: ModelGateConfig, findings: _Findings
) -> tuple[Interval | None, str]:
    """Return the target metric's change and a sentence on it; add what breaks or lacks."""
    row = comparison.find(config.target_metric)
    name = config.target_metric
    if row is None:
        findings.missing.append(f"The target metric '{name}' was not computed.")
        return None, ""
    if not math.isfinite(row.challenger):
        findings.broken.append(f"The challenger's {name} is {row.challenger}, not a number.")
        return None, ""
    change = row.relative_change
    if change is None or not _is_finite(change):
        findings.missing.append(
            f"The relative change of the target metric '{name}' has no interval (the baseline's is "
            f"{row.baseline})."
        )
        return None, ""
    against = (
        comparison.champion_model.label
        if comparison.champion_model is not None
        else "the popularity ranking"
    )
    sentence = (
        f"{name} is {row.challenger:.4f} against {row.baseline:.4f} of {against}: "
        f"{_change(change)}."
    )
    if change.high < 0:
        findings.broken.insert(0, f"{sentence} The interval lies wholly below zero.")
    return change, sentence


def _needed_lower_end(comparison: Comparison, config: ModelGateConfig) -> float:
    """Return what the interval's lower end must exceed."""
    return -config.margin if comparison.baseline_kind is BaselineKind.CHAMPION else 0.0


def _is_outside(value: float, minimum: float | None, maximum: float | None) -> bool:
    """Return whether a value lies strictly beyond a bound, rounding aside."""
    slack = _ROUNDING * max(1.0, abs(value))
    return (minimum is not None and value < minimum - slack) or (
        maximum is not None and value > maximum + slack
    )


def _is_finite(interval: Interval) -> bool:
    """Return whether estimate and both ends are numbers."""
    return all(math.isfinite(end) for end in (interval.value, interval.low, interval.high))


def _floor(floor: Limit) -> str:
    """Return a floor as text: 'from 0.8 to 1.25', 'at least 1' or 'at most 3'."""
    if floor.maximum is None:
        return f"of at least {floor.minimum:g}"
    if floor.minimum is None:
        return f"of at most {floor.maximum:g}"
    return f"from {floor.minimum:g} to {floor.maximum:g}"


def _rail(rail: RelativeLimit) -> str:
    """Return a guardrail as text: '[-2.00 %, +2.00 %]'."""
    low = "-inf" if rail.max_decrease is None else _percent(-rail.max_decrease)
    high = "inf" if rail.max_increase is None else _percent(rail.max_increase)
    return f"[{low}, {high}]"


def _quoted(interval: Interval | None) -> str:
    """Return a level's interval in brackets, or nothing."""
    if interval is None:
        return ""
    return f" ({interval.confidence:.0%} interval {interval.low:.4f} to {interval.high:.4f})"


def _change(interval: Interval) -> str:
    """Return '+1.20 % (95 % interval -0.10 % to +2.50 %)'."""
    return (
        f"{_percent(interval.value)} ({interval.confidence * 100:g} % interval "
        f"{_percent(interval.low)} to {_percent(interval.high)})"
    )


def _percent(share: float) -> str:
    """Return a signed percentage with two decimals."""
    if share == 0:
        return "0 %"
    return f"{share * 100:+.2f} %"
