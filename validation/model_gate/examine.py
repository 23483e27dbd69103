"""Examines one comparison by the recipe's bounds: what makes it void, what breaks, what holds.

A cycle examines up to three: the challenger against the champion, the challenger against the fresh
anchor, and the fresh anchor against the champion. One rule serves all bounds. A bound is *broken*
where the whole interval lies beyond it, its end nearest to no change included: chance alone does
that in fewer than one comparison of forty. It *holds a promotion back* where the interval straddles
it and the holdout could have seen a change of that size; a holdout too small to see one can neither
accuse nor acquit, which is noted. A void comparison neither accuses nor acquits.

Not for what follows from the three together (`validation.model_gate.verdict`).
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import (
    AbsenceKind,
    BaselineFacts,
    BaselineKind,
    Interval,
    MetricComparison,
    Reason,
)
from validation.model_gate.intervals import POWER, smallest_detectable_change
from validation.model_gate.policy import (
    TWO_SIDED_95,
    Change,
    Estimate,
    confidence_of_try,
    is_denied,
    is_shown,
    is_spent,
    is_surely_worse,
    is_within,
)
from validation.model_gate.sizing import LEAST_POWER, needed_of, users_needed
from validation.model_gate.target_metric import hits_name

Bounds = tuple[float | None, float | None]
"""Lowest and highest value that is allowed; None: no bound."""
_ROUNDING = 1e-9
"""Float arithmetic may miss a bound that is met exactly: 1.02 / 1 - 1 is more than 0.02."""
_CONSTANT = 1e-9
"""Probabilities that differ by less are the same."""
_CHANCE = 0.5  # The area under the curve of scores that know nothing.


FAMILY_RATE = 0.05
"""How often equal models break a guardrail, a segment's margin or what is asked of a head."""

Place = Literal["within", "straddles", "beyond"]
"""Where an interval lies, seen from its bounds."""


def place(interval: Interval, minimum: float | None, maximum: float | None) -> Place:
    """Return where an interval lies; an end that is exactly at a bound is within it."""
    slack = _ROUNDING * max(1.0, abs(interval.value))
    lowest = -math.inf if minimum is None else minimum - slack
    highest = math.inf if maximum is None else maximum + slack
    if interval.high < lowest or interval.low > highest:
        return "beyond"
    if interval.low < lowest or interval.high > highest:
        return "straddles"
    return "within"


def alone(interval: Interval) -> Estimate:
    """Return an interval as an estimate."""
    return Estimate(interval.value, interval.error)


@dataclass
class Examined:
    """What one comparison says of its challenger's side."""

    comparison: Comparison
    void: tuple[Reason, ...] = ()  # Why nothing follows from it.
    broken: list[Reason] = field(default_factory=list)  # Surely beyond a bound: REJECT.
    missing: list[Reason] = field(default_factory=list)  # A needed number is absent.
    held_back: list[Reason] = field(default_factory=list)  # Perhaps beyond a bound.
    held: list[Reason] = field(default_factory=list)  # What holds, and what is worth a note.
    family: "list[Member]" = field(default_factory=list)  # Bounds that are judged together.
    change: Change | None = None  # Of the target metric; None where void, or not computed.
    target: Reason | None = None  # On the target metric.
    is_shown: bool = False  # The change is above minus the margin.
    is_open: bool = False  # Over several recipes a guardrail is not yet shown to hold.

    @property
    def stops(self) -> bool:
        """Whether it stands in the way of a promotion."""
        return bool(self.broken) or self.is_held_back

    @property
    def is_held_back(self) -> bool:
        """Whether something stands in the way of a promotion without breaking a bound."""
        return bool(self.void or self.missing or self.held_back) or not self.is_shown

    @property
    def why_not(self) -> tuple[Reason, ...]:
        """What stands in the way of a promotion, in the order in which it counts."""
        if self.void:
            return self.void
        if self.broken:
            return (*self.broken, *self.missing)
        if self.missing or self.target is None:
            return tuple(self.missing)
        if not self.is_shown:
            return (self.target, *self.held_back, *self.held)
        return (*self.held_back, self.target, *self.held)

    @property
    def is_anchor(self) -> bool:
        """Whether the baseline is the fresh anchor, and not the one that serves."""
        return self.comparison.baseline_kind is BaselineKind.ANCHOR

    def find(self, metric: str, rule: str, segment: str = "all") -> MetricComparison | None:
        """Return a metric that a rule needs; note its absence where the comparison lacks it.

        An absent metric breaks the rule where the challenger's own scores are at fault, and is a
        gap otherwise.
        """
        row = self.comparison.find(metric, segment)
        if row is None:
            why = self.comparison.find_absent(metric, segment)
            is_own_fault = why is not None and why.kind is AbsenceKind.NOT_FINITE
            told = {"metric": metric, "segment": segment, "rule": rule, "why": why}
            found = Reason.of("not_computed", **told)
            (self.broken if is_own_fault else self.missing).append(found)
        return row

    def judge_change(
        self, rule: str, row: MetricComparison, change: Interval, bounds: Bounds, facts: dict
    ) -> None:
        """Hold a relative change against its bounds: broken, in doubt, or too small to be seen.

        What is judged is the change pooled over the cycles of the pair, unless this cycle alone
        lies beyond a bound: what earlier challengers did is no excuse for this one.
        """
        pooled, num_cycles = self.comparison.find_pooled(row.metric, row.segment), 1
        if pooled and pooled.num_cycles > 1 and place(change, *bounds) != "beyond":
            reach = NormalDist().inv_cdf((1 + change.confidence) / 2) * pooled.pooled_error
            value, num_cycles = pooled.pooled_value, pooled.num_cycles
            change = Interval(
                value=value, low=value - reach, high=value + reach, confidence=change.confidence
            )
        told = {"metric": row.metric, "change": change, "num_cycles": num_cycles}
        told |= {"is_anchor": self.is_anchor}
        lowest, highest = bounds
        is_beyond = change.value < _low(lowest) or change.value > _high(highest)
        seen = smallest_detectable_change(change.error, change.confidence)
        crossed = highest if lowest is None or change.value > 0 else -lowest
        where = place(change, *bounds)
        # Beyond if it stood alone; or more likely than not, where the holdout sees such changes.
        is_doubt = where == "beyond" or (is_beyond and crossed is not None and seen <= crossed)
        otherwise: Reason | None = None
        if is_doubt:
            otherwise = Reason.of(f"{rule}_doubtful", **told, **facts)
        elif where != "within":
            otherwise = Reason.of(f"{rule}_not_seen", seen=seen, **told, **facts)
        elif rule == "guardrail":
            otherwise = Reason.of("guardrail_held", **told, **facts)
        elif change.high < 0:
            noted = {name: fact for name, fact in facts.items() if name != "allowed"}
            otherwise = Reason.of(f"{rule}_loses", **told, **noted)
        broken = Reason.of(f"{rule}_broken", **told, **facts)
        self.family.append(Member(chance_at(change, bounds), broken, otherwise, is_doubt))

    def settle(self) -> None:
        """Say which members of the family break their bounds, and what is to be said of the others.

        One of the bounds is broken by equal models in at most `FAMILY_RATE` of the comparisons,
        however many there are: the surest member is held to the rate divided by their number, the
        next one by one less, up to the first that holds (Holm, A Simple Sequentially Rejective
        Multiple Test Procedure, Scandinavian Journal of Statistics 6(2), 1979).
        """
        by_chance = sorted(self.family, key=lambda member: member.chance)
        sure: list[Member] = []
        for left, member in zip(range(len(by_chance), 0, -1), by_chance, strict=True):
            if member.chance > FAMILY_RATE / left:
                break
            sure.append(member)
        for member in self.family:
            if member in sure:
                self.broken.append(member.broken)
            elif member.otherwise is not None:
                (self.held_back if member.is_doubt else self.held).append(member.otherwise)


class Member(NamedTuple):
    """One of the bounds that are judged together."""

    chance: float  # of a number so far beyond the bound, or farther, where the truth is the bound
    broken: Reason
    otherwise: Reason | None
    is_doubt: bool = False  # `otherwise` stands in the way of a promotion.


def chance_at(interval: Interval, bounds: Bounds) -> float:
    """Return the one-sided p-value of a number against the nearer of its bounds."""
    lowest, highest = bounds
    found = alone(interval)
    excess = max(_low(lowest) - found.value, found.value - _high(highest))
    if found.error == 0:
        return 0.0 if excess > 0 else 1.0
    return NormalDist().cdf(-excess / found.error)


def _low(minimum: float | None) -> float:
    return -math.inf if minimum is None else minimum - _ROUNDING * max(1.0, abs(minimum))


def _high(maximum: float | None) -> float:
    return math.inf if maximum is None else maximum + _ROUNDING * max(1.0, abs(maximum))


def margin_of(comparison: Comparison, margin: float) -> float:
    """Return the relative loss that is allowed against the baseline.

    Against a ranking it is zero: no champion has aged, so freshness is worth nothing.
    """
    return 0.0 if comparison.baseline_kind is BaselineKind.RANKING else margin


def examine(
    comparison: Comparison,
    config: ModelGateConfig,
    heads: tuple[Head, ...],
    baselines: tuple[BaselineFacts, ...] | None = None,
) -> Examined:
    """Hold a side against floors, guardrails, segments, heads, the margin and simple baselines.

    Against the fresh anchor only the target metric counts, and what creeps beside it: floors and
    heads are the challenger's own affair and are examined against the champion.

    Args:
        comparison: The side against its baseline.
        config: The bounds.
        heads: The side's heads.
        baselines: The simple baselines of this cycle; None where they are no matter, as for the
            self-test's planted models.
    """
    found = Examined(comparison, void_reasons(comparison, config, heads))
    if found.void:
        return found
    for floor in () if found.is_anchor else config.floors:
        if (row := found.find(floor.metric, "floor")) is None:
            continue
        bounds, level = (floor.minimum, floor.maximum), row.challenger
        interval = row.challenger_interval
        # A level without an interval (ECE) is judged as it is. Where an interval straddles the
        # bound, the level itself decides whether the promotion is held back.
        point = Interval(value=level, low=level, high=level, confidence=0.95)
        told = {"metric": floor.metric, "level": level, "bounds": bounds}
        if place(interval or point, *bounds) == "beyond":
            found.broken.append(Reason.of("floor_broken", interval=interval, **told))
        elif place(point, *bounds) == "beyond":
            found.held_back.append(Reason.of("floor_doubtful", interval=interval, **told))
        else:
            found.held.append(Reason.of("floor_held", **told))
    _judge_guardrails(config, found)
    for segment in config.required_segments:
        row = found.find(config.target_metric, "margin", segment)
        if row is not None and row.relative_change is not None:
            facts = {"segment": segment, "allowed": -config.segment_margin}
            margin = (-config.segment_margin, None)
            found.judge_change("segment", row, row.relative_change, margin, facts)
    if not found.is_anchor:
        _judge_heads(config, heads, found)
    found.settle()
    if not found.is_anchor:
        if baselines is not None:
            _judge_baselines(baselines, config, found)
    _judge_target(config, found)
    _judge_sample(config, found)
    if comparison.num_days == 1:
        found.held.append(Reason.of("one_day"))
    return found


def _judge_target(config: ModelGateConfig, found: Examined) -> None:
    """Hold the change of the target metric against the margin, or that of the recipe.

    Where nothing was pooled, the error is taken from the interval's width.
    """
    comparison, name = found.comparison, config.target_metric
    row = found.find(name, "margin")
    if row is None:
        return
    interval = row.relative_change or _as_share(row)
    if interval is None:
        why = comparison.why_no_change(row)
        found.missing.append(Reason.of("target_without_interval", metric=name, why=why))
        return
    now, pooled = alone(interval), comparison.find_pooled(name)
    over_cycles = now
    if pooled is not None:
        now = Estimate(pooled.value, pooled.error)
        over_cycles = Estimate(pooled.pooled_value, pooled.pooled_error)
    change = found.change = Change(now, over_cycles)
    facts: dict[str, Any] = {"metric": row.metric, "level": row.challenger}
    facts |= {"baseline_level": row.baseline, "baseline": comparison.baseline_label}
    facts |= {"change": row.relative_change, "pooled": pooled, "days": row.day_share}
    facts["users"] = row.effective_users
    facts["difference"] = None if row.relative_change else row.difference
    margin = config.recipe_margin if found.is_anchor else margin_of(comparison, config.margin)
    sure = confidence_of_try(comparison.num_tries)
    low = over_cycles.low(NormalDist().inv_cdf(sure))
    said: dict[str, Any] = {"required": -margin, "low": (low, sure)}
    if is_surely_worse(change) if found.is_anchor else is_denied(change, margin):
        said = {} if found.is_anchor else {"required": -margin}
        code = "recipe_worse" if found.is_anchor else "target_lost"
        found.target = Reason.of(code, **facts, **said)
        found.broken.insert(0, found.target)
        return
    found.is_shown = is_shown(change, margin, comparison.num_tries)
    _hold_against_the_past(found, row, now.value, pooled.line if pooled else None)
    if comparison.num_tries > 1 and not found.is_anchor:
        found.held.append(Reason.of("tries", num_tries=comparison.num_tries, sure=sure))
    small = needed_of(comparison, now.error, margin)
    if small and small.power < POWER and not found.is_anchor:
        found.held.append(Reason.of("small_holdout", margin=margin, **small._asdict()))
    if found.is_anchor:
        code = "recipe_shown" if found.is_shown else "recipe_not_shown"
        found.target = Reason.of(code, **facts, **said)
        return
    if comparison.baseline_kind is BaselineKind.RANKING:
        # Against a ranking a model must be better in the stricter, two-sided sense.
        two_sided = NormalDist().inv_cdf((1 + sure) / 2)
        found.is_shown, said["low"] = min(interval.low, now.low(two_sided)) > 0, None
    if found.is_shown:
        code, said["is_loss_certain"] = "target_shown", comparison.is_loss_certain
    else:
        code, said["detectable"] = "target_not_shown", comparison.detectable_change
    found.target = Reason.of(code, **facts, **said)


def _judge_sample(config: ModelGateConfig, found: Examined) -> None:
    """Hold back what was judged on too few users, where the holdout has more."""
    comparison = found.comparison
    num_users, in_all = comparison.num_users, comparison.num_users_in_all
    if in_all and (needed := users_needed(comparison, config, LEAST_POWER)) > num_users:
        sizes = {"num_users": num_users, "in_all": in_all, "needed": needed}
        found.held_back.append(Reason.of("sample_small", **sizes))


def _hold_against_the_past(
    found: Examined, row: MetricComparison, lift: float, line: Interval | None
) -> None:
    """Hold back a lift that earlier cycles make implausible, and a line that only loses."""
    past, told = found.comparison, dict[str, Any](metric=row.metric)
    if past.plausible_lift is not None and lift > past.plausible_lift:
        told |= {"change": row.relative_change, "past": past.past_lifts}
        implausible = Reason.of("lift_implausible", plausible=past.plausible_lift, **told)
        found.held_back.insert(0, implausible)
    elif found.is_anchor and line and line.high < 0:
        found.held_back.append(Reason.of("line_worse", change=line, **told))


def _as_share(row: MetricComparison) -> Interval | None:
    """Return the difference as a share of the baseline's level, whose own error is left out.

    For a rare action, of which the baseline is not surely above zero: no relative change exists.
    """
    if row.difference is None or row.baseline is None:
        return None
    return row.difference.times(1 / (row.baseline or 1.0))


def void_reasons(
    comparison: Comparison, config: ModelGateConfig, heads: tuple[Head, ...]
) -> tuple[Reason, ...]:
    """Return why nothing follows from a comparison; () where something does.

    The same scores on both sides are suspicious but against the fresh anchor: two recipes may well
    make the same model, of the same rows.
    """
    void: list[Reason] = []
    ours, theirs = comparison.holdout_digest, comparison.baseline_holdout_digest
    if ours != theirs:
        other = theirs[:12] if theirs else "unknown"
        void.append(Reason.of("other_holdout", ours=ours[:12], theirs=other))
    void += comparison.seen
    if comparison.target_metric != config.target_metric:
        named = config.target_metric
        void.append(Reason.of("other_target", found=comparison.target_metric, metric=named))
    baseline, kind = comparison.baseline_model, comparison.baseline_kind
    if not comparison.is_first_cycle and baseline is None:
        void.append(Reason.of("no_baseline_model", kind=kind.value))
    bundle = comparison.challenger_model.bundle_digest
    if baseline is not None and baseline.bundle_digest == bundle:
        void.append(Reason.of("same_model", bundle=bundle[:12], model=baseline.label))
    if kind is not BaselineKind.ANCHOR and comparison.are_scores_identical is None:
        void.append(Reason.of("scores_not_compared"))
    elif kind is not BaselineKind.ANCHOR and comparison.are_scores_identical:
        void.append(Reason.of("same_scores", num_examples=comparison.num_examples))
    if not config.floors:
        void.append(Reason.of("no_floor"))
    guarded = {limit.metric for limit in config.guardrails}
    for head in heads:
        if not head.is_wanted and (metric := hits_name(head.name)) not in guarded:
            void.append(Reason.of("unguarded_head", head=head.name, metric=metric))
    if comparison.num_users < (least := config.min_users):
        void.append(Reason.of("few_users", num_users=comparison.num_users, min_users=least))
    for segment in config.required_segments:
        if not comparison.segment_users.get(segment):
            void.append(Reason.of("segment_empty", segment=segment))
    return tuple(void)


def _judge_guardrails(config: ModelGateConfig, found: Examined) -> None:
    """Hold relative changes against their bounds, whatever the baseline is.

    Where the baseline's level is zero, or nearly, the difference of the levels is judged.
    """
    for rail in config.guardrails:
        row = found.find(rail.metric, "guardrail")
        if row is None:
            continue
        bounds = (None if rail.max_decrease is None else -rail.max_decrease, rail.max_increase)
        if row.relative_change is not None:
            found.judge_change("guardrail", row, row.relative_change, bounds, {"bounds": bounds})
            _judge_spent(rail.metric, bounds, found)
            continue
        why = found.comparison.why_no_change(row)
        if row.difference is None or row.baseline is None:
            gap = Reason.of("guardrail_without_change", metric=rail.metric, why=why)
            found.missing.append(gap)
            continue
        allowed = [None if bound is None else bound * row.baseline for bound in bounds]
        facts = {"metric": rail.metric, "level": row.challenger, "baseline": row.baseline}
        facts["difference"] = row.difference
        if place(row.difference, *allowed) == "beyond":
            broken = Reason.of("guardrail_broken_by_difference", bounds=bounds, **facts)
            found.broken.append(broken)
        else:
            found.held.append(Reason.of("guardrail_held_by_difference", why=why, **facts))


def _judge_spent(metric: str, bounds: Bounds, found: Examined) -> None:
    """Hold back what the recipes up to this one have changed beyond a bound, or leave it open."""
    lowest, highest = _low(bounds[0]), _high(bounds[1])
    for each in (each for each in found.comparison.spent if each.metric == metric):
        total = Estimate(each.value, each.error)
        low, high = total.low(TWO_SIDED_95), total.high(TWO_SIDED_95)
        change = Interval(value=each.value, low=low, high=high, confidence=0.95)
        told = {"metric": metric, "change": change, "bounds": bounds}
        if is_spent(total, lowest, highest):
            found.held_back.append(Reason.of("guardrail_spent", **told))
        elif not is_within(total, lowest, highest):
            found.is_open = True
            found.held.append(Reason.of("guardrail_open", **told))


def _judge_heads(config: ModelGateConfig, heads: tuple[Head, ...], found: Examined) -> None:
    """Hold every head's probabilities to the least that a served head must be, whatever its weight.

    They must be finite. With enough positives to judge by, they must also differ, not surely rank
    worse than chance, and not surely be out of calibration.
    """
    known = {facts.head: facts for facts in found.comparison.heads}
    sound, least = [], config.min_head_positives
    for name in (head.name for head in heads):
        facts = known.get(name)
        if facts is None:
            found.missing.append(Reason.of("head_not_examined", head=name))
        elif facts.spread is None:
            found.broken.append(Reason.of("head_not_finite", head=name))
        elif (num := facts.num_positives) < least:
            few = Reason.of("head_not_judged", head=name, num_positives=num, least=least)
            found.held.append(few)
        elif facts.spread < _CONSTANT:
            found.broken.append(Reason.of("head_constant", head=name))
        else:
            area, ratio = (found.find(f"{m}.{name}", "head") for m in ("auc", "calibration_ratio"))
            bounds = (config.min_head_calibration, config.max_head_calibration)
            beyond = [
                _head_member(name, "head_below_chance", area, (_CHANCE, None), {}),
                _head_member(name, "head_out_of_calibration", ratio, bounds, {"bounds": bounds}),
            ]
            found.family += [member for member in beyond if member]
            is_odd = any(member and member.chance < FAMILY_RATE for member in beyond)
            sound += [] if is_odd else [name]
    if sound:
        found.held.append(Reason.of("heads_sound", heads=tuple(sound)))


def _head_member(
    head: str, code: str, row: MetricComparison | None, bounds: Bounds, facts: dict[str, Any]
) -> Member | None:
    """Return a head's level as a member of the family; None where there is none to judge.

    Whose baseline ranks no better than chance either is not judged by that: nobody can rank it.
    """
    if row is None or (interval := row.challenger_interval) is None:
        return None
    theirs = row.baseline_interval
    if code == "head_below_chance" and theirs is not None and theirs.low <= _CHANCE:
        return None
    told = {"head": head, "level": row.challenger, "interval": interval}
    return Member(chance_at(interval, bounds), Reason.of(code, **told, **facts), None)


def _judge_baselines(
    baselines: tuple[BaselineFacts, ...], config: ModelGateConfig, found: Examined
) -> None:
    """Hold the challenger of a first cycle against every baseline, and note which one beats it.

    Where `model_gate.first_champion_beats` is 'every_baseline', the first champion must beat each
    ranking: the whole two-sided interval of the change lies above zero. Against the logistic
    regression it must not be worse by more than the margin, in the sense of `policy.is_shown`. In
    other cycles a baseline that surely beats the challenger is a warning.
    """
    is_first = found.comparison.is_first_cycle and config.first_champion_beats == "every_baseline"
    if is_first and not baselines:
        found.missing.append(Reason.of("no_baselines"))
    for facts in baselines:
        is_model, interval = facts.kind == "regression", facts.change
        name = f"the {'' if is_model else 'ranking by '}{facts.name}"
        if not is_first:
            if interval is not None and interval.high < 0:
                found.held.append(Reason.of("baseline_better", baseline=name, change=interval))
            continue
        allowed = config.margin if is_model else 0.0
        # Where the ranking's target is not surely above zero, the difference is judged.
        gap = interval or (None if is_model else facts.difference)
        if gap is None:
            found.missing.append(Reason.of("baseline_missing", baseline=name, note=facts.note))
            continue
        change = Change(alone(gap), alone(gap))
        is_beaten = is_shown(change, allowed) if is_model else gap.low > 0
        difference = None if interval else gap
        beats = gap.high < 0 if difference else is_denied(change, allowed)
        said = {"baseline": name, "change": interval, "difference": difference}
        if beats:
            found.broken.append(Reason.of("baseline_beats", **said))
            continue
        code, kept = ("beaten", found.held) if is_beaten else ("doubtful", found.held_back)
        kept.append(Reason.of(f"baseline_{code}", required=-allowed, **said))
