"""Holds a comparison against its bounds: floors, guardrails, segments and heads.

One rule serves all of them. A bound is *broken* where the whole interval lies beyond it, its end
nearest to no change included: chance alone does that in fewer than one comparison of forty. It
*holds a promotion back* where the interval straddles it and the holdout could have seen a change
of that size; a holdout too small to see one can neither accuse nor acquit, which is noted. Not for
what follows from that (`validation.model_gate.verdict`).
"""

from enum import Enum
from statistics import NormalDist

from pipelines.contracts.config import Head, Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import BaselineKind, HeadFacts, Interval, MetricComparison
from validation.model_gate.bootstrap import smallest_detectable_change
from validation.model_gate.findings import (
    Findings,
    name_floor,
    name_rail,
    percent,
    quote_change,
    quote_level,
)

_ROUNDING = 1e-9
"""Float arithmetic may miss a bound that is met exactly: 1.02 / 1 - 1 is more than 0.02."""
_CONSTANT = 1e-9
"""Probabilities that differ by less are the same."""
_CHANCE = 0.5  # The area under the curve of scores that know nothing.


class Place(Enum):
    """Where an interval lies, seen from its bounds."""

    WITHIN = "within"
    STRADDLES = "straddles"
    BEYOND = "beyond"


def place(interval: Interval, minimum: float | None, maximum: float | None) -> Place:
    """Return where an interval lies; an end that is exactly at a bound is within it."""
    slack = _ROUNDING * max(1.0, abs(interval.value))
    lowest = -float("inf") if minimum is None else minimum - slack
    highest = float("inf") if maximum is None else maximum + slack
    if interval.high < lowest or interval.low > highest:
        return Place.BEYOND
    if interval.low < lowest or interval.high > highest:
        return Place.STRADDLES
    return Place.WITHIN


def detectable(change: Interval) -> float:
    """Return the change that this holdout would see four times in five, from a change's interval.

    The standard error is taken from the interval's width.
    """
    reach = NormalDist().inv_cdf((1 + change.confidence) / 2)
    error = (change.high - change.low) / (2 * reach)
    return smallest_detectable_change(error, change.confidence)


def judge_floors(floors: tuple[Limit, ...], findings: Findings) -> None:
    """Hold the challenger's own levels against the absolute bounds.

    A level without an interval (ECE) is judged as it is. Where an interval straddles the bound, the
    level itself decides whether the promotion is held back.
    """
    for floor in floors:
        row = findings.find(floor.metric, "so its floor cannot be judged")
        if row is None:
            continue
        value, bound = row.challenger, name_floor(floor)
        alone = Interval(value=value, low=value, high=value, confidence=0.95)
        found = place(row.challenger_interval or alone, floor.minimum, floor.maximum)
        said = f"{floor.metric} is {value:.4f}{quote_level(row.challenger_interval)}"
        if found is Place.BEYOND:
            findings.broken.append(f"The challenger's {said}, outside its floor {bound}.")
        elif place(alone, floor.minimum, floor.maximum) is Place.BEYOND:
            findings.held_back.append(
                f"The challenger's {said}, outside its floor {bound}, though not surely."
            )
        else:
            findings.held.append(f"{floor.metric} {value:.4f} holds its floor {bound}.")


def judge_guardrails(config: ModelGateConfig, findings: Findings) -> None:
    """Hold relative changes against their bounds, whatever the baseline is."""
    for rail in config.guardrails:
        row = findings.find(rail.metric, "so its guardrail cannot be judged")
        if row is None:
            continue
        change = row.relative_change
        if change is None:
            _judge_difference(rail, row, findings)
            continue
        lowest = None if rail.max_decrease is None else -rail.max_decrease
        change, cycles = _decisive(row, change, (lowest, rail.max_increase), findings)
        found = place(change, lowest, rail.max_increase)
        said = f"{rail.metric} changed by {quote_change(change)}{cycles}{_against(findings)}"
        if found is Place.BEYOND:
            findings.broken.append(f"{said}, beyond its guardrail {name_rail(rail)}.")
        elif found is Place.WITHIN:
            findings.held.append(f"{said}, within its guardrail {name_rail(rail)}.")
        else:
            crossed = rail.max_increase
            if crossed is None or (lowest is not None and change.low < lowest):
                crossed = rail.max_decrease
            _straddles(
                f"{said}, perhaps beyond its guardrail {name_rail(rail)}", change, crossed, findings
            )


def _decisive(
    row: MetricComparison,
    change: Interval,
    bounds: tuple[float | None, float | None],
    findings: Findings,
) -> tuple[Interval, str]:
    """Return the interval that is judged, and what has to be said of where it is from.

    It is the one pooled over the cycles of the pair, unless this cycle alone lies beyond a bound:
    what earlier challengers did is no excuse for this one.
    """
    pooled = findings.comparison.find_pooled(row.metric, row.segment)
    if pooled is None or pooled.num_cycles == 1 or place(change, *bounds) is Place.BEYOND:
        return change, ""
    reach = NormalDist().inv_cdf((1 + change.confidence) / 2) * pooled.pooled_error
    value = pooled.pooled_value
    found = Interval(
        value=value, low=value - reach, high=value + reach, confidence=change.confidence
    )
    return found, f", pooled over {pooled.num_cycles} cycles"


def _against(findings: Findings) -> str:
    """Return which baseline is meant, where it is not the one that serves."""
    is_anchor = findings.comparison.baseline_kind is BaselineKind.ANCHOR
    return " against the fresh anchor" if is_anchor else ""


def _judge_difference(rail: RelativeLimit, row: MetricComparison, findings: Findings) -> None:
    """Judge a guardrail by the difference of the levels: the baseline's is zero, or nearly."""
    if row.difference is None or row.baseline is None:
        findings.missing.append(
            f"The relative change of '{rail.metric}' could not be computed "
            f"({findings.why_no_change(row)}), so its guardrail cannot be judged."
        )
        return
    lowest = None if rail.max_decrease is None else -rail.max_decrease * row.baseline
    highest = None if rail.max_increase is None else rail.max_increase * row.baseline
    said = (
        f"{rail.metric} is {row.challenger:.4f} against {row.baseline:.4f}, a difference of "
        f"{row.difference.value:+.4f}{quote_level(row.difference)}"
    )
    if place(row.difference, lowest, highest) is Place.BEYOND:
        findings.broken.append(f"{said}, beyond its guardrail {name_rail(rail)}.")
    else:
        findings.held.append(
            f"{said}; {findings.why_no_change(row)}, so its guardrail was judged by the difference."
        )


def judge_segments(config: ModelGateConfig, findings: Findings) -> None:
    """Require the target metric in each required segment, and no loss beyond the margin there."""
    for segment in config.required_segments:
        consequence = f"though segment '{segment}' is required"
        row = findings.find(config.target_metric, consequence, segment)
        change = row.relative_change if row is not None else None
        if row is None or change is None:
            continue
        change, cycles = _decisive(row, change, (-config.segment_margin, None), findings)
        found = place(change, -config.segment_margin, None)
        said = (
            f"In segment {segment} {config.target_metric} changed by {quote_change(change)}"
            f"{cycles}{_against(findings)}"
        )
        if found is Place.BEYOND:
            findings.broken.append(f"{said}, below the {percent(-config.segment_margin)} allowed.")
        elif found is Place.STRADDLES:
            said = f"{said}, perhaps below the {percent(-config.segment_margin)} allowed"
            _straddles(said, change, config.segment_margin, findings)
        elif change.high < 0:
            findings.held.append(f"Note: {said[0].lower()}{said[1:]}.")


def _straddles(said: str, change: Interval, bound: float | None, findings: Findings) -> None:
    """Hold the promotion back if the holdout could have seen a change of the bound's size."""
    seen = detectable(change)
    if bound is not None and seen <= bound:
        findings.held_back.append(f"{said}: this holdout cannot tell.")
    else:
        findings.held.append(f"{said}: this holdout sees changes of {100 * seen:.2f} % and more.")


def judge_heads(config: ModelGateConfig, heads: tuple[Head, ...], findings: Findings) -> None:
    """Hold every head's probabilities to the least that a served head must be, whatever its weight.

    They must be finite. With enough positives to judge by, they must also differ, not surely rank
    worse than chance, and not surely be out of calibration.
    """
    known = {facts.head: facts for facts in findings.comparison.heads}
    sound = []
    for head in heads:
        if head.name not in known:
            findings.missing.append(f"Head '{head.name}' was not examined.")
            continue
        facts = known[head.name]
        if facts.spread is None:
            findings.broken.append(f"Head '{head.name}': its probabilities hold NaN or infinity.")
        elif facts.num_positives < config.min_head_positives:
            findings.held.append(
                f"Head '{head.name}' was not judged: {facts.num_positives} positives in the "
                f"holdout, fewer than {config.min_head_positives}."
            )
        else:
            num_broken = len(findings.broken)
            _judge_head(facts, facts.spread, config, findings)
            sound += [head.name] if len(findings.broken) == num_broken else []
    if sound:
        findings.held.append(
            f"Heads that differ, rank no worse than chance and are in calibration: "
            f"{', '.join(sound)}."
        )


def _judge_head(
    facts: HeadFacts, spread: float, config: ModelGateConfig, findings: Findings
) -> None:
    """Judge one head that has enough positives."""
    head = facts.head
    if spread < _CONSTANT:
        findings.broken.append(f"Head '{head}' gives every candidate the same probability.")
        return
    area = findings.find(f"auc.{head}", "so the head cannot be judged")
    if area is not None and area.challenger_interval is not None:
        if area.challenger_interval.high < _CHANCE:
            findings.broken.append(
                f"Head '{head}' ranks worse than chance: its AUC is {area.challenger:.4f}"
                f"{quote_level(area.challenger_interval)}."
            )
    row = findings.find(f"calibration_ratio.{head}", "so the head cannot be judged")
    if row is not None and row.challenger_interval is not None:
        bounds = (config.min_head_calibration, config.max_head_calibration)
        if place(row.challenger_interval, *bounds) is Place.BEYOND:
            findings.broken.append(
                f"Head '{head}' is out of calibration: predicted / observed is "
                f"{row.challenger:.4f}{quote_level(row.challenger_interval)}, outside "
                f"{bounds[0]:g} to {bounds[1]:g}."
            )
