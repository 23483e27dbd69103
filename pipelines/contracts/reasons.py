"""What is known of one metric, and why a verdict is what it is: codes and facts, told by templates.

Whoever compares, digests or counts reasons takes code and facts; `sentence` is made in this module
alone, from the table of templates, and nothing reads it back. Not for finding reasons
(`validation.model_gate`, `training.bundle.serving_check`), nor for what follows from all of them
(`pipelines.contracts.judgement`).
"""

from collections.abc import Callable
from enum import StrEnum
from statistics import NormalDist
from string import Formatter
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from pipelines.contracts.base import Frozen


class Interval(Frozen):
    """An estimate with its interval."""

    value: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)

    @property
    def in_percent(self) -> str:
        """A change for the end of its row: '+1.20 % (-0.10 to +2.50)'."""
        numbers = (100 * self.value, 100 * self.low, 100 * self.high)
        return "{:+.2f} % ({:+.2f} to {:+.2f})".format(*numbers)

    @property
    def error(self) -> float:
        """Its standard error, by its upper half: the lower one may be cut short at zero."""
        return (self.high - self.value) / NormalDist().inv_cdf((1 + self.confidence) / 2)

    def times(self, factor: float) -> "Interval":
        """Return the estimate of so many times what this one is of."""
        low, high = sorted((factor * self.low, factor * self.high))
        told = {"value": factor * self.value, "low": low, "high": high}
        return self.model_copy(update=told)


class MetricComparison(Frozen):
    """One metric in one segment, both sides, on the same rows."""

    metric: str
    segment: str  # 'all', 'core', 'non_core' or 'exploration'.
    challenger: float
    # None where the baseline has no such number: popularity has no probabilities.
    baseline: float | None
    # (challenger - baseline) / baseline; None where the baseline is 0 or absent, or where the
    # metric has no interval (auc, ece).
    relative_change: Interval | None
    # challenger - baseline; it is there where the baseline is 0 too.
    difference: Interval | None = None
    challenger_interval: Interval | None = None  # Of the level itself.
    baseline_interval: Interval | None = None  # Of the level itself.
    # Of the relative change: how much of its variance is that of days, which users share, and how
    # many users as active as each other would make it as uncertain as these do.
    day_share: float | None = None
    effective_users: float | None = None


class AbsenceKind(StrEnum):
    """Why a metric has no value, or no change. Only the first is the fault of a side's scores."""

    NOT_FINITE = "not_finite"
    EMPTY_SEGMENT = "empty_segment"
    NO_ACTION = "no_action"
    FEW_EXAMPLES = "few_examples"
    ONE_LABEL = "one_label"
    NOT_OF_BASELINE = "not_of_baseline"
    ZERO_BASELINE = "zero_baseline"


_WHY_ABSENT = {
    AbsenceKind.NOT_FINITE: "The {side}'s scores hold NaN or infinity.",
    AbsenceKind.EMPTY_SEGMENT: "The segment has no users in the holdout.",
    AbsenceKind.NO_ACTION: "No example has the action.",
    AbsenceKind.FEW_EXAMPLES: "There are fewer examples than bins.",
    AbsenceKind.ONE_LABEL: "All examples have the same label, so no order of them is better.",
    AbsenceKind.NOT_OF_BASELINE: "The baseline has no such number.",
    AbsenceKind.ZERO_BASELINE: "The baseline's {metric} is not surely above zero.",
}


class AbsentMetric(Frozen):
    """A number that could not be computed, and why."""

    metric: str
    segment: str  # 'all', 'core', 'non_core' or 'exploration'.
    side: Literal["challenger", "baseline"]
    kind: AbsenceKind

    @property
    def reason(self) -> str:
        """A sentence for people."""
        return _WHY_ABSENT[self.kind].format(side=self.side, metric=self.metric)


class HeadFacts(Frozen):
    """What is known of one head's probabilities on the challenger's side."""

    head: str
    num_positives: int = Field(ge=0)  # Holdout examples with the action.
    spread: float | None  # Largest minus smallest probability; None where one is not finite.


class ReliabilityBin(Frozen):
    """One point of a calibration plot: what was predicted and what happened, all segments."""

    side: Literal["challenger", "baseline"]
    head: str
    mean_predicted: float  # Mean predicted probability of the bin.
    mean_observed: float  # Share of the bin's examples that had the action.


class RankedPin(Frozen):
    """A candidate of a request: where both sides put it, and what its user did."""

    pin_id: int
    challenger: int = Field(ge=1)  # Its place in that side's ranking, the first is 1.
    baseline: int = Field(ge=1)
    actions: tuple[str, ...] = ()  # The heads whose action it had.


class RankedRequest(Frozen):
    """A request of the holdout, ranked by both sides."""

    request_id: str = Field(max_length=64)  # Cut where it is longer.
    num_candidates: int
    pins: tuple[RankedPin, ...]  # The first of both sides, and what was acted upon.


class Spent(Frozen):
    """What a guarded metric changed by over recipes, one after another."""

    metric: str
    value: float  # Relative changes, each against the recipe accepted before, added up.
    error: float = Field(ge=0)  # Standard error of `value`.


class PooledChange(Frozen):
    """A relative change with its standard errors, alone and with earlier cycles of the pair."""

    metric: str
    segment: str
    value: float  # On this cycle's holdout.
    error: float = Field(ge=0)  # Standard error of `value`.
    pooled_value: float  # Mean over the cycles, by inverse variance.
    pooled_error: float = Field(ge=0)  # Standard error of `pooled_value`.
    num_cycles: int = Field(ge=1)  # Cycles that are pooled, this one included.
    # Of all recipes of the line, alike; None where there is no other, or it is surely better.
    line: Interval | None = None
    # Of a guarded metric, from the accepted recipe to the newest of the line.
    since_accepted: Spent | None = None


class BaselineKind(StrEnum):
    """What the challenger was compared with."""

    CHAMPION = "champion"
    ANCHOR = "anchor"  # The accepted recipe, trained in this cycle on the same rows.
    RANKING = "ranking"  # First cycle: the best baseline orders candidates by one number.
    REGRESSION = "regression"  # First cycle: the best baseline is a logistic regression.


RANDOM = "a random order"
"""The baseline that says what chance alone finds."""
POPULARITY = "popularity, 28 days"
REGRESSION = "logistic regression"


class BaselineFacts(Frozen):
    """How a simple baseline does on the holdout by the target metric, over all users."""

    name: str  # As in 'popularity, 7 days'; see validation.model_gate.
    kind: Literal["ranking", "regression"]
    description: str  # What it ranks by, a sentence for people.
    level: Interval | None  # Its target metric; None: see `note`.
    # Challenger against it, relative; None where its target is not surely above zero.
    change: Interval | None
    # Challenger minus it; it is there where its target is 0 too.
    difference: Interval | None = None
    note: str = ""  # Why a number is missing.


class LinePoint(Frozen):
    """A model that a cycle promoted, against a simple way to rank (`BaselineFacts`)."""

    reference: str  # Name of the baseline.
    as_of: AwareDatetime  # Of the cycle.
    value: float  # Logarithm of the model's target metric over the reference's.
    error: float = Field(gt=0)  # Standard error of `value`.


ONE_SIDED_95 = 1.645
FEW_USERS = 30
"""Where fewer make a difference, its interval is wide for them, and people are told."""

_TARGET = (
    "{metric} is {level:.4f} against {baseline_level:.4f} of {baseline}: {change:change}"
    "{difference:as_difference}.{days:days}{users:few_users}{pooled:pooled}"
)
_CHANGED = "changed by {change:change}{num_cycles:cycles}{is_anchor: against the fresh anchor}"
_SEGMENT = f"n segment {{segment}} {{metric}} {_CHANGED}"
_PLACES = {
    "broken": ("beyond", "."),
    "doubtful": ("perhaps beyond", ": this holdout cannot tell."),
    "not_seen": ("perhaps beyond", ": this holdout sees changes of {seen:size} and more."),
}
"""Where a change lies, seen from its bound, and what ends the sentence."""
_DIFFERENCE = (
    "{metric} is {level:.4f} against {baseline:.4f}, a difference of {difference.value:+.4f}"
    "{difference:level}"
)
_BEYOND = "{found:.3g}, beyond the {limit:.3g}"

TEMPLATES = {
    # The comparison is void.
    "other_holdout": "The two sides were not scored on the same holdout (challenger {ours}, "
    "baseline {theirs}); score both again on one snapshot.",
    "holdout_seen": "{model} was trained on rows from {start} to {end}, which overlap the holdout "
    "from {holdout_start} to {holdout_end}: it has seen answers that it would be judged on.",
    "other_target": "The comparison is about the target metric '{found}', and the configuration "
    "names '{metric}'.",
    "no_baseline_model": "The baseline is called the {kind}, but no {kind} model is named.",
    "same_model": "The same model stands on both sides (bundle {bundle}): {model} would be "
    "compared with itself.",
    "scores_not_compared": "Nobody checked whether both sides give the same scores.",
    "same_scores": "Both sides give the same score to each of the {num_examples:,} holdout "
    "examples: the same model seems to stand on both sides.",
    "no_floor": "No absolute floor is configured; set model_gate.floors.",
    "unguarded_head": "Head {head!r} is unwanted and no guardrail bounds '{metric}'; set "
    "model_gate.guardrails.",
    "few_users": "The holdout has {num_users:,} users, expected at least {min_users:,} "
    "(model_gate.min_users).",
    "one_day": "All requests of the holdout are of one day: the intervals are those of users, and "
    "know nothing of how days differ.",
    "segment_empty": "The required segment '{segment}' has no users in the holdout.",
    # The target metric.
    "not_computed": "'{metric}' was not computed in segment '{segment}', so its {rule} cannot be "
    "judged{why:why}",
    "target_without_interval": "The relative change of the target metric '{metric}' has no "
    "interval: {why:passing}.",
    "target_lost": f"{_TARGET} The interval lies wholly below {{required:below}}.",
    "target_shown": f"{_TARGET} {{low:end}} is above the {{required:percent}} required."
    "{is_loss_certain: The loss is certain, and smaller than the margin.}",
    "target_not_shown": f"{_TARGET} {{low:end}} is not above the {{required:percent}} required, "
    "and the interval does not lie wholly below that: this holdout cannot tell. It can see a "
    "change of {detectable} four times in five.",
    "lift_implausible": "{metric} changed by {change:change}, more than the {plausible:percent} "
    "that {past:lifts}: the label may leak into what the model is told. A person has to look "
    "before it is promoted.",
    "recipe_worse": f"{_TARGET} The recipe is surely worse than the accepted one.",
    "line_worse": "Together, the recipe and those of its name before it changed {metric} by "
    "{change:change} against the accepted one, each by itself too little to tell.",
    "recipe_shown": f"{_TARGET} {{low:end}} is above the {{required:percent}} required of a "
    "recipe.",
    "recipe_not_shown": f"{_TARGET} {{low:end}} is not above the {{required:percent}} required of "
    "a recipe.",
    "tries": "It is try {num_tries} on requests of this holdout, so {sure:.2%} are demanded in "
    "place of 95 %: all tries together are wrong at most 1.5 times as often as one.",
    "small_holdout": "The holdout is small: alone, it promotes an equal model in {power:.0%} of "
    "cycles. Four in five, with a margin of {margin:size}, take {users:users_or}a holdout of about "
    "{days:,} such days (snapshot.holdout_days), or evidence pooled over more cycles.",
    "sample_small": "Of {in_all:,} users {num_users:,} were scored, and the bounds take about "
    "{needed:,} of them: write that as model_gate.sample_users, or more, and begin a new cycle.",
    # Bounds.
    "floor_broken": "The challenger's {metric} is {level:.4f}{interval:level}, outside its floor "
    "{bounds:floor}.",
    "floor_doubtful": "The challenger's {metric} is {level:.4f}{interval:level}, outside its floor "
    "{bounds:floor}, though not surely.",
    "floor_held": "{metric} {level:.4f} holds its floor {bounds:floor}.",
    "guardrail_held": f"{{metric}} {_CHANGED}, within its guardrail {{bounds:rail}}.",
    **{
        f"guardrail_{code}": f"{{metric}} {_CHANGED}, {where} its guardrail {{bounds:rail}}{end}"
        for code, (where, end) in _PLACES.items()
    },
    "guardrail_spent": "{metric} changed by {change:change} over all recipes accepted one after "
    "another, this one included: more likely than not beyond its guardrail {bounds:rail}. If that "
    "is wanted, accept the recipe by hand: `homefeed anchor set --recipe NAME --reason ...`.",
    "guardrail_open": "{metric} changed by {change:change} over all recipes since a person looked: "
    "not yet shown to lie within its guardrail {bounds:rail}, so that later recipes are held to "
    "the recipe accepted before.",
    "guardrail_without_change": "The relative change of '{metric}' could not be computed "
    "({why:passing}), so its guardrail cannot be judged.",
    "guardrail_broken_by_difference": f"{_DIFFERENCE}, beyond its guardrail {{bounds:rail}}.",
    "guardrail_held_by_difference": f"{_DIFFERENCE}; {{why:passing}}, so its guardrail was judged "
    "by the difference.",
    **{
        f"segment_{code}": f"I{_SEGMENT}, {where} the {{allowed:percent}} allowed{end}"
        for code, (where, end) in _PLACES.items()
    },
    "segment_loses": f"Note: i{_SEGMENT}.",
    # Heads.
    "head_not_examined": "Head '{head}' was not examined.",
    "head_not_finite": "Head '{head}': its probabilities hold NaN or infinity.",
    "head_not_judged": "Head '{head}' was not judged: {num_positives} positives in the holdout, "
    "fewer than {least}.",
    "head_constant": "Head '{head}' gives every candidate the same probability.",
    "head_below_chance": "Head '{head}' ranks worse than chance: its AUC is {level:.4f}"
    "{interval:level}.",
    "head_out_of_calibration": "Head '{head}' is out of calibration: predicted / observed is "
    "{level:.4f}{interval:level}, outside {bounds:range}.",
    "heads_sound": "Heads that differ, rank no worse than chance and are in calibration: "
    "{heads:list}.",
    # Simple baselines.
    "no_baselines": "No simple baseline was measured, and no model serves.",
    "baseline_better": "Warning: {baseline:first} beats the challenger: its change is "
    "{change:change}.",
    "baseline_missing": "The challenger could not be held against {baseline}: {note}",
    "baseline_beaten": "Against {baseline}: {change:change}{difference:as_difference}, above the "
    "{required:percent} required.",
    "baseline_beats": "{baseline:first} beats the challenger: "
    "{change:change}{difference:as_difference}.",
    "baseline_doubtful": "Against {baseline}: {change:change}{difference:as_difference}, not "
    "surely above the {required:percent} required of a first champion.",
    # The fresh anchor, and what is on record of recipes.
    "anchor_promoted": "In its place {model} is promoted, the accepted recipe made fresh: "
    "{because}",
    "anchor_not_promoted": "The accepted recipe made fresh, {model}, is not promoted either: "
    "{because}",
    "anchor_unreliable": "The accepted recipe cannot be relied upon.",
    "on_record": "{text}",
    "line_lost": "Over {num_cycles} champions, the lead over the {reference} has surely fallen "
    "from its best by more than {margin:size}, so no changed recipe or code is promoted until a "
    "person has looked; the accepted recipe still is. Look at the long-term line, then accept "
    "what is right: `homefeed anchor set --recipe NAME --reason ...`.",
    # The serving check.
    "serving_figures": "Serving check: {num_candidates} candidates in {latency_p50_ms:.1f} ms "
    "(median of {num_calls} calls; p99 {latency_p99_ms:.1f} ms{processor_p99_ms:processor}), "
    "{peak_memory_mib:.0f} MiB at peak. {golden_difference:golden}",
    "serving_golden": f"Serving check: golden rows differ by {_BEYOND} allowed.",
    "serving_slow": "Serving check: a call takes {found:.3g} ms of the processor (p99), beyond the "
    "{limit:.3g} ms allowed.",
    "serving_waits": "Serving check: a call takes {found:.3g} times as long as the champion's "
    "beside it (median), beyond the {limit:.3g} that serving.max_wall_ratio allows.",
    "serving_memory": "Serving check: peak memory is {found:.3g} MiB, beyond the {limit:.3g} MiB "
    "allowed.",
    "serving_saturated": f"Serving check: share of scores at 0 or 1 is {_BEYOND} allowed.",
    "serving_constant": "Serving check: every golden row got the same score.",
    # The gate's test of itself.
    "not_tested": "Self-test: the gate was not tested on this holdout.",
    "test_not_finite": "Self-test: not possible, the challenger's scores are not finite.",
    "test_without_target": "Self-test: not possible, the challenger's target metric is zero.",
    "test_like_chance": "Self-test: the challenger's own scores, shuffled within requests, got "
    "{decision} ({change:span}), not REJECT: on this holdout the challenger cannot be told from "
    "chance.",
    "tested_itself": "The challenger against itself: no difference in {num_numbers} numbers.",
    "tested_bias": "A bias of {bias:.0%} in the challenger moved the change by exactly that.",
    "tested_few": "The two sides differ for {num_users} users: too few for the rest.",
    "tested_width": "Intervals are {ratio:.2f} times as wide as comparisons without a difference "
    "spread.",
    "tested_coverage": "Of {num_draws} comparisons without a difference, {covered} intervals cover "
    "zero ({fewest} at least expected).",
    "tested_worst": "The worst possible ranking: REJECT ({change:span}).",
    "tested_fault": "{fault}: {decision}.",
    "tested_fault_not_seen": "{fault}: {decision}; on this holdout no bound is surely broken.",
    "tested_labels": "Labels shuffled within requests: no lead is left ({change:span}).",
    "tested_shuffled": "The challenger's scores, shuffled within requests: REJECT ({change:span}).",
    # Where two recipes differ.
    "recipes_differ": "The {first}'s {what}: {ours}; the {second}'s: {theirs}.",
}
"""The sentence of each code; placeholders name its facts, and `_Words` has what follows a colon."""

_Found = Interval | AbsentMetric | PooledChange | tuple[float | None, float | None]
Fact = _Found | tuple[str, ...] | tuple[float, ...] | bool | int | float | str | None


class Reason(Frozen):
    """One thing that was found, by its code; `facts` are what the code's template names."""

    code: str
    facts: dict[str, Fact] = {}  # Shares and levels, and what they are.
    because: "Reason | None" = None  # What this one follows from.

    @classmethod
    def of(cls, code: str, *, because: Any = None, **facts: Any) -> Self:
        """Return a reason of these facts, each a `Fact`.

        Raises:
            ValidationError: there is no such code, or its template names other facts.
        """
        return cls(code=code, facts=facts, because=because)

    @model_validator(mode="after")
    def _fits_its_template(self) -> Self:
        if self.code not in TEMPLATES:
            raise ValueError(f"reason {self.code!r}: expected one of {sorted(TEMPLATES)}")
        parsed = _WORDS.parse(TEMPLATES[self.code])
        named = {name.partition(".")[0] for _, name, _, _ in parsed if name} - {"because"}
        if named != set(self.facts):
            raise ValueError(
                f"reason {self.code!r}: found facts {sorted(self.facts)}, expected {sorted(named)}"
            )
        return self

    @property
    def sentence(self) -> str:
        """The reason for people, in one or more full sentences."""
        return _WORDS.format(TEMPLATES[self.code], because=self.because, **self.facts)

    def __str__(self) -> str:
        """Return the sentence: pages show it as it is."""
        return self.sentence

    @property
    def repeatable(self) -> "Reason | None":
        """What of the reason judging again finds again: a serving check measures anew."""
        if self.code.startswith("serving_"):
            return None
        inner = self.because.repeatable if self.because else None
        return self.model_copy(update={"because": inner})


def percent(share: float) -> str:
    """Return a signed percentage with two decimals."""
    return "0 %" if share == 0 else f"{share * 100:+.2f} %"


class _Words(Formatter):
    """Writes a fact by the word behind its placeholder's colon; other words are Python's own."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        if isinstance(value, bool):
            return format_spec if value else ""
        write = _WRITE.get(format_spec)
        return super().format_field(value, format_spec) if write is None else write(value)


_WORDS = _Words()


def _span(interval: Interval, write: Callable[[float], str]) -> str:
    span = f"{write(interval.low)} to {write(interval.high)}"
    return f"({interval.confidence * 100:g} % interval {span})"


def _pooled(row: PooledChange | None) -> str:
    if row is None or row.num_cycles == 1:
        return ""
    reach = ONE_SIDED_95 * row.pooled_error
    low, high = row.pooled_value - reach, row.pooled_value + reach
    return (
        f" Pooled over {row.num_cycles} cycles it is {percent(row.pooled_value)} "
        f"({percent(low)} to {percent(high)}, one-sided 95 % each way)."
    )


def _floor(bounds: tuple[float | None, float | None]) -> str:
    low, high = bounds
    if high is None:
        return f"of at least {low:g}"
    return f"of at most {high:g}" if low is None else f"from {low:g} to {high:g}"


_WRITE: dict[str, Callable[[Any], str]] = {
    "change": lambda i: "" if i is None else f"{percent(i.value)} {_span(i, percent)}",
    "level": lambda i: "" if i is None else f" {_span(i, '{:.4f}'.format)}",
    "as_difference": lambda i: (
        ""
        if i is None
        else f"{i.value:+.4f} {_span(i, '{:+.4f}'.format)}, as a difference, because the "
        f"baseline is not surely above zero"
    ),
    "span": lambda i: "no interval" if i is None else f"{i.low:+.1%} to {i.high:+.1%}",
    "pooled": _pooled,
    "few_users": lambda num: (
        f" Few users make it, as if there were {num:.0f}." if num and num < FEW_USERS else ""
    ),
    "days": lambda share: f" Days make {share:.0%} of its variance." if share else "",
    "users_or": lambda num: f"about {num:,} such users, " if num else "",
    "lifts": lambda past: (
        f"{len(past)} earlier cycles make plausible, which changed it by {percent(min(past))} to "
        f"{percent(max(past))}"
        if past
        else "is plausible where few earlier cycles are known (model_gate.first_lift)"
    ),
    "cycles": lambda num: f", pooled over {num} cycles" if num > 1 else "",
    "percent": percent,
    "size": lambda share: f"{100 * share:.2f} %",
    "below": lambda share: percent(share) if share else "zero",
    "end": lambda found: (
        "Its lower end"
        if found is None
        else f"Its lower end, {percent(found[0])} at one-sided {100 * found[1]:.4g} %,"
    ),
    "floor": _floor,
    "rail": lambda b: (
        f"[{'-inf' if b[0] is None else percent(b[0])}, {'inf' if b[1] is None else percent(b[1])}]"
    ),
    "processor": lambda ms: "" if ms is None else f", of which the processor {ms:.1f} ms",
    "range": lambda bounds: f"{bounds[0]:g} to {bounds[1]:g}",
    "list": ", ".join,
    "first": lambda text: f"{text[:1].upper()}{text[1:]}",
    "why": lambda absent: "." if absent is None else f": {absent.reason}",
    "passing": lambda absent: f"{absent.reason[:1].lower()}{absent.reason[1:-1]}",
    "golden": lambda by: (
        "The stored example rows get exactly the scores they had after training."
        if by == 0
        else f"The scores of the stored example rows differ by at most {by:.1e} from those they "
        f"had after training."
    ),
}
