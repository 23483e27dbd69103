"""The verdict: what may happen next, given all the facts. Pure, and the only place that rules.

Not for computing facts (`validation.model_gate.facts`, `training.bundle.serving_check`) nor for
acting on the verdict (`pipelines.registry.promotion`).
"""

import math
from dataclasses import dataclass, field

from pipelines.contracts.config import Head, Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import (
    AbsenceKind,
    BaselineKind,
    Comparison,
    Decision,
    Interval,
    MetricComparison,
    SelfTest,
    ServingCheck,
    Verdict,
)
from validation.model_gate.target_metric import hits_name

_ROUNDING = 1e-9
"""Float arithmetic may miss a bound that is met exactly: 1.02 / 1 - 1 is more than 0.02."""


@dataclass
class _Findings:
    """What the rules found in a comparison: sentences by what they mean."""

    comparison: Comparison
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    def find(self, metric: str, consequence: str, segment: str = "all") -> MetricComparison | None:
        """Return a metric that a rule needs; note its absence where the comparison lacks it.

        An absent metric breaks the rule where the challenger's own scores are at fault, and is a
        gap otherwise.
        """
        row = self.comparison.find(metric, segment)
        if row is None:
            absent = self.comparison.find_absent(metric, segment)
            reason = f": {absent.reason}" if absent is not None else "."
            is_own_fault = absent is not None and absent.kind is AbsenceKind.NOT_FINITE
            sentences = self.broken if is_own_fault else self.missing
            sentences.append(f"'{metric}' was not computed, {consequence}{reason}")
        return row

    def why_no_change(self, row: MetricComparison) -> str:
        """Return why a metric that has a level has no relative change."""
        absent = self.comparison.find_absent(row.metric, row.segment, "baseline")
        if absent is not None:
            return absent.reason.rstrip(".")
        if row.baseline is None:
            return "the baseline has no such number"
        return "the baseline's is zero in at least one resample of the users"


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
    2. **Void**: the comparison says nothing about the challenger (two holdouts, the same model
       twice, another target metric, too few users, an empty required segment, a missing or
       non-finite threshold): INCONCLUSIVE. REJECT would be an accusation without evidence.
    3. **REJECT**: a number that a rule needs is absent because the challenger's own scores are not
       finite, the interval of the relative change in the target metric lies wholly below zero, or a
       floor or guardrail breaks.
    4. **A gap**: a number that a rule needs could not be computed for another reason: INCONCLUSIVE.
    5. **Not shown**: the interval's lower end is not above minus the margin: INCONCLUSIVE. Against
       popularity, in the first cycle, it must be above zero: no champion has aged, so that
       freshness is worth nothing.
    6. **A doubt**: the gate's self-test raised one, or was not run: INCONCLUSIVE.
    7. **PROMOTE** otherwise. In every other case the champion stays.

    Floors and guardrails break on the estimate itself, strictly beyond the bound; a value exactly
    at the bound holds. The interval is quoted beside it.

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
    """Return what rules 2 to 5 of `decide` say; the self-test asks them about planted models.

    It is never PROMOTE where a threshold, a metric or an interval is missing or not finite.
    """
    void = (
        *_identity_reasons(comparison, config),
        *_threshold_reasons(config, heads),
        *_sample_reasons(comparison, config),
    )
    if void:
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=void)
    findings = _Findings(comparison)
    _judge_floors(config.floors, findings)
    _judge_guardrails(config, findings)
    _judge_segments(config, findings)
    target, target_sentence = _judge_target(config, findings)
    if findings.broken:
        reasons = (*findings.broken, *findings.missing)
        return Verdict(decision=Decision.REJECT, reasons=reasons)
    if findings.missing or target is None:
        return Verdict(decision=Decision.INCONCLUSIVE, reasons=tuple(findings.missing))
    needed = needed_lower_end(comparison, config.margin)
    if target.low > needed:
        sentence = f"{target_sentence} Its lower end is above the {_percent(needed)} required."
        return Verdict(decision=Decision.PROMOTE, reasons=(sentence, *findings.held))
    sentence = (
        f"{target_sentence} Its lower end is not above the {_percent(needed)} required, and it "
        f"does not lie wholly below zero: this holdout cannot tell. It can see a change of "
        f"{comparison.detectable_change} four times in five."
    )
    return Verdict(decision=Decision.INCONCLUSIVE, reasons=(sentence, *findings.held))


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
    bounds: list[tuple[str, float | None]] = [("model_gate.margin", config.margin)]
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


def _judge_floors(floors: tuple[Limit, ...], findings: _Findings) -> None:
    """Hold the challenger's own levels against the absolute bounds."""
    for floor in floors:
        row = findings.find(floor.metric, "so its floor cannot be judged")
        if row is None:
            continue
        value, bound = row.challenger, _floor(floor)
        if _is_outside(value, floor.minimum, floor.maximum):
            findings.broken.append(
                f"The challenger's {floor.metric} is {value:.4f}"
                f"{_quoted(row.challenger_interval)}, outside its floor {bound}."
            )
        else:
            findings.held.append(f"{floor.metric} {value:.4f} holds its floor {bound}.")


def _judge_guardrails(config: ModelGateConfig, findings: _Findings) -> None:
    """Hold relative changes against their bounds; they are bounds against a champion only."""
    if findings.comparison.baseline_kind is not BaselineKind.CHAMPION:
        if config.guardrails:
            findings.held.append(
                "Guardrails were not judged: there is no champion to compare with."
            )
        return
    for rail in config.guardrails:
        row = findings.find(rail.metric, "so its guardrail cannot be judged")
        if row is None:
            continue
        change = row.relative_change
        if change is None:
            findings.missing.append(
                f"The relative change of '{rail.metric}' could not be computed "
                f"({findings.why_no_change(row)}), so its guardrail cannot be judged."
            )
            continue
        lowest = None if rail.max_decrease is None else -rail.max_decrease
        said = f"{rail.metric} changed by {_change(change)}"
        if _is_outside(change.value, lowest, rail.max_increase):
            findings.broken.append(f"{said}, beyond its guardrail {_rail(rail)}.")
        else:
            findings.held.append(f"{said}, within its guardrail {_rail(rail)}.")


def _judge_segments(config: ModelGateConfig, findings: _Findings) -> None:
    """Require the target metric in each required segment; a loss there is named, not decisive."""
    for segment in config.required_segments:
        consequence = f"though segment '{segment}' is required"
        row = findings.find(config.target_metric, consequence, segment)
        change = row.relative_change if row is not None else None
        if change is not None and change.high < 0:
            findings.held.append(
                f"Note: in segment {segment} {config.target_metric} changed by {_change(change)}."
            )


def _judge_target(config: ModelGateConfig, findings: _Findings) -> tuple[Interval | None, str]:
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
        f"{_change(change)}."
    )
    if change.high < 0:
        findings.broken.insert(0, f"{sentence} The interval lies wholly below zero.")
    return change, sentence


def needed_lower_end(comparison: Comparison, margin: float) -> float:
    """Return what the lower end of the target metric's interval must exceed."""
    return -margin if comparison.baseline_kind is BaselineKind.CHAMPION else 0.0


def _is_outside(value: float, minimum: float | None, maximum: float | None) -> bool:
    """Return whether a value lies strictly beyond a bound, rounding aside."""
    slack = _ROUNDING * max(1.0, abs(value))
    return (minimum is not None and value < minimum - slack) or (
        maximum is not None and value > maximum + slack
    )


def _floor(floor: Limit) -> str:
    """Return a floor as text: 'from 0.8 to 1.25', 'of at least 1' or 'of at most 3'."""
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
