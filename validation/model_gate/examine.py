"""Examines one comparison by the recipe's bounds: what breaks, what holds, and by how much.

A cycle examines up to three: the challenger against the champion, the challenger against the fresh
anchor, and the fresh anchor against the champion. Not for what follows from them together
(`validation.model_gate.verdict`). Tested in tests/validation/model_gate/test_verdict.py.
"""

from dataclasses import dataclass
from statistics import NormalDist

from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.judgement import BaselineFacts, BaselineKind, Comparison, Interval
from validation.model_gate.baselines.rule import judge_baselines
from validation.model_gate.findings import Findings, percent, quote_change
from validation.model_gate.limits import (
    judge_floors,
    judge_guardrails,
    judge_heads,
    judge_segments,
)
from validation.model_gate.policy.rules import (
    ONE_SIDED_95,
    Change,
    Estimate,
    is_denied,
    is_shown,
    is_surely_worse,
)
from validation.model_gate.void import void_reasons


@dataclass(frozen=True)
class Examined:
    """What one comparison says of its challenger's side."""

    void: tuple[str, ...]
    findings: Findings
    change: Change | None = None  # of the target metric; None where void, or not computed
    sentence: str = ""  # on the target metric
    is_shown: bool = False  # the change is above minus the margin

    @property
    def is_broken(self) -> bool:
        """Whether a bound is surely broken."""
        return bool(self.findings.broken)

    @property
    def is_held_back(self) -> bool:
        """Whether something stands in the way of a promotion without breaking a bound."""
        doubtful = self.void or self.findings.missing or self.findings.held_back
        return bool(doubtful) or not self.is_shown

    def why_not(self) -> tuple[str, ...]:
        """Return what stands in the way of a promotion, in the order in which it counts."""
        found = self.findings
        if self.void:
            return self.void
        if found.broken:
            return (*found.broken, *found.missing)
        if found.missing or self.change is None:
            return tuple(found.missing)
        if not self.is_shown:
            return (self.sentence, *found.held_back, *found.held)
        return (*found.held_back, self.sentence, *found.held)


def margin_of(comparison: Comparison, margin: float) -> float:
    """Return the relative loss that is allowed against the baseline.

    Against a ranking it is zero: no champion has aged, so freshness is worth nothing.
    """
    return 0.0 if _is_ranking(comparison) else margin


def _is_ranking(comparison: Comparison) -> bool:
    """Return whether the baseline is an order by one number, which knows nothing of users."""
    return comparison.baseline_kind in (BaselineKind.RANKING, BaselineKind.POPULARITY)


def examine(
    comparison: Comparison,
    config: ModelGateConfig,
    heads: tuple[Head, ...],
    baselines: tuple[BaselineFacts, ...] | None = None,
) -> Examined:
    """Hold a side against floors, guardrails, segments, heads, the margin and simple baselines.

    Args:
        comparison: The side against its baseline.
        config: The bounds.
        heads: The side's heads.
        baselines: The simple baselines of this cycle; None where they are no matter, as for the
            self-test's planted models.
    """
    void = void_reasons(comparison, config, heads)
    findings = Findings(comparison)
    if void:
        return Examined(void, findings)
    judge_floors(config.floors, findings)
    judge_guardrails(config, findings)
    judge_segments(config, findings)
    judge_heads(config, heads, findings)
    if baselines is not None:
        judge_baselines(baselines, config, findings)
    margin = margin_of(comparison, config.margin)
    found = _find_target(findings, config)
    if found is None:
        return Examined((), findings)
    interval, change, said = found
    if is_denied(change, margin):
        below = percent(-margin) if margin else "zero"
        findings.broken.insert(0, f"{said} The interval lies wholly below {below}.")
        return Examined((), findings, change, said)
    # Against a ranking a model must be better in the stricter, two-sided sense.
    is_strict = _is_ranking(comparison)
    shown = interval.low > 0 if is_strict else is_shown(change, margin)
    end = "Its lower end" if is_strict else _lower_end(change)
    if shown:
        certain = " The loss is certain, and smaller than the margin." * comparison.is_loss_certain
        said = f"{said} {end} is above the {percent(-margin)} required.{certain}"
        return Examined((), findings, change, said, is_shown=True)
    said = (
        f"{said} {end} is not above the {percent(-margin)} required, and the interval does not lie "
        f"wholly below that: this holdout cannot tell. It can see a change of "
        f"{comparison.detectable_change} four times in five."
    )
    return Examined((), findings, change, said)


def examine_recipe(
    comparison: Comparison, config: ModelGateConfig, heads: tuple[Head, ...]
) -> Examined:
    """Hold a challenger against the fresh anchor: the target metric, and what creeps beside it.

    Floors and heads are the challenger's own affair and are examined against the champion.
    """
    void = void_reasons(comparison, config, heads)
    findings = Findings(comparison)
    if void:
        return Examined(void, findings)
    judge_guardrails(config, findings)
    judge_segments(config, findings)
    found = _find_target(findings, config)
    if found is None:
        return Examined((), findings)
    _, change, said = found
    if is_surely_worse(change):
        findings.broken.insert(0, f"{said} The recipe is surely worse than the accepted one.")
        return Examined((), findings, change, said)
    shown = is_shown(change, config.recipe_margin)
    said = (
        f"{said} {_lower_end(change)} is {'' if shown else 'not '}above the "
        f"{percent(-config.recipe_margin)} required of a recipe."
    )
    return Examined((), findings, change, said, shown)


def _lower_end(change: Change) -> str:
    return f"Its lower end, {percent(change.pooled.low(ONE_SIDED_95))} at one-sided 95 %,"


def _find_target(
    findings: Findings, config: ModelGateConfig
) -> tuple[Interval, Change, str] | None:
    """Return the target metric's change and a sentence on it; note where there is none."""
    comparison = findings.comparison
    name = config.target_metric
    row = findings.find(name, "and it is the target metric")
    if row is None:
        return None
    interval = row.relative_change
    if interval is None:
        findings.missing.append(
            f"The relative change of the target metric '{name}' has no interval: "
            f"{findings.why_no_change(row)}."
        )
        return None
    said = (
        f"{name} is {row.challenger:.4f} against {row.baseline:.4f} of "
        f"{comparison.baseline_label}: {quote_change(interval)}.{_quote_pooled(comparison, name)}"
    )
    return interval, change_of(comparison, name, interval), said


def change_of(comparison: Comparison, metric: str, interval: Interval) -> Change:
    """Return a change with its errors; where nothing was pooled, from its interval's width."""
    row = comparison.find_pooled(metric)
    if row is not None:
        pooled = Estimate(row.pooled_value, row.pooled_error)
        return Change(Estimate(row.value, row.error), pooled)
    reach = NormalDist().inv_cdf((1 + interval.confidence) / 2)
    alone = Estimate(interval.value, (interval.high - interval.low) / (2 * reach))
    return Change(alone, alone)


def _quote_pooled(comparison: Comparison, metric: str) -> str:
    """Return a sentence on earlier cycles of the same pair, or nothing."""
    row = comparison.find_pooled(metric)
    if row is None or row.num_cycles == 1:
        return ""
    estimate = Estimate(row.pooled_value, row.pooled_error)
    low, high = estimate.low(ONE_SIDED_95), estimate.high(ONE_SIDED_95)
    return (
        f" Pooled over {row.num_cycles} cycles it is {percent(estimate.value)} "
        f"({percent(low)} to {percent(high)}, one-sided 95 % each way)."
    )
