"""The gate's self-test: it judges models whose right verdict is known, on this cycle's rows.

A verdict counts only after this test, which runs in every cycle (`run_self_test`):

- The statistics must give what is known otherwise: a bias that is put in must come out, the width
  must be that of the linearised error, and intervals must cover the truth as often as they claim.
  Scaled intervals, lost pairing and swapped sides are found this way.
- A model compared with itself must show no difference, and models with a planted fault must be
  rejected. A planted model is the challenger with one fault, judged against the challenger itself.
  Where the holdout is too small to see the fault, nothing can be asked of the gate, and that is
  said.

Not for the challenger's verdict, which takes the self-test into account
(`validation.model_gate.verdict`).

Letters: N examples, G groups of users, D draws.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipelines.contracts.config import Limit, ModelGateConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Comparison, Decision, SelfTest
from pipelines.contracts.reasons import BaselineKind, Interval, MetricComparison, Reason
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.bootstrap import UserSums, paired_bootstrap
from validation.model_gate.comparison import (
    ComparedModels,
    Holdout,
    Mask,
    RatioMetric,
    bootstrap_metrics,
    compare,
    ratio_metrics,
)
from validation.model_gate.examine import Place, alone, place
from validation.model_gate.ranking_metrics import top_k_hits
from validation.model_gate.target_metric import TOP_K, hits_name
from validation.model_gate.verdict import decide_on_comparison

PLANTED_BIAS = 0.01
_NUM_DRAWS, _DRAW_RESAMPLES = 200, 400
_BAND = 0.999  # Of the number of draws whose interval covers the truth.
_WIDEST = 1.25
"""How far the bootstrap's error may be from the linearised one, either way. Chance among 2,000
resamples is 2 %, and the tail of few, unequal users is the rest."""
_FEWEST = 50
"""Groups of users on which the two sides differ; with fewer, an interval's width is mostly luck."""
_FAULTY_CALIBRATION = 2.0
_FAULTY_SEGMENT = 0.3
"""Share of a segment's target metric that a planted model loses."""


class SelfTestFailedError(HomefeedError):
    """The gate's own statistics or rules are wrong; no verdict of it can be trusted."""


def _failed(said: str, file: str = "") -> SelfTestFailedError:
    mend = f"; fix validation/model_gate/{file} before any model is judged" if file else ""
    return SelfTestFailedError(f"the model gate's self-test failed: {said}{mend}")


@dataclass(frozen=True)
class _Trial:
    """What a planted model is judged on: the rows, and the challenger in the champion's place."""

    holdout: Holdout
    challenger: SplitScores
    models: ComparedModels

    def judge_ranking(self, ranking: np.ndarray) -> tuple[Decision, Interval | None]:
        """Return the decision on a planted ranking by the target metric alone, and its interval.

        Floors, guardrails and segments are left out: a rejection by them would prove nothing about
        the statistics, which are what is tested here.
        """
        config = self.holdout.config.model_copy(
            update={
                "floors": (Limit(metric=self.holdout.config.target_metric, minimum=0.0),),
                "guardrails": (),
                "min_users": 2,
                "required_segments": (),
            }
        )
        wanted = tuple(head for head in self.holdout.heads if head.is_wanted)
        holdout = replace(self.holdout, heads=wanted, config=config)
        comparison = self._compare(holdout, ranking, self.challenger.ranking_score)
        decision = decide_on_comparison(comparison, config, wanted).decision
        return decision, _change_of(comparison)

    def _compare(self, holdout: Holdout, *rankings: np.ndarray) -> Comparison:
        digest = self.challenger.holdout_digest
        ranking, baseline = (SplitScores(each, {}, digest) for each in rankings)
        return compare(holdout, ranking, baseline, self.models)

    def blind_lead(self, shuffled: np.ndarray) -> Interval | None:
        """Return the challenger's lead over its shuffled scores where the labels are shuffled too.

        What is left of it is a leak. The confidence is that of one comparison in a thousand: the
        test runs for years.
        """
        rows, config = self.holdout.rows, self.holdout.config
        labels = {
            head: shuffle_within_requests(rows, label, config.bootstrap_seed + 1)
            for head, label in rows.labels.items()
        }
        careful = config.model_copy(update={"confidence": 0.999})
        blind = replace(self.holdout, rows=replace(rows, labels=labels), config=careful)
        return _change_of(self._compare(blind, self.challenger.ranking_score, shuffled))


def run_self_test(
    holdout: Holdout, challenger: SplitScores, baseline: SplitScores, models: ComparedModels
) -> SelfTest:
    """Judge models whose right verdict is known, on this cycle's rows and scores.

    1. The challenger against itself: no metric may differ, not even by a rounding.
    2. The intervals of the challenger against the baseline: see `check_intervals`.
    3. The worst ranking (the target's actions last) as a challenger to the real one: REJECT.
    4. Models with one planted fault each: REJECT where the holdout is sure of the fault.
    5. Labels shuffled within requests: the challenger must not be surely better than its own
       shuffled scores, or labels leak into the measure.
    6. The challenger's scores shuffled within requests, likewise: REJECT. If this one is not
       rejected, the gate is not broken, but as far as this holdout can tell the challenger ranks no
       better than chance: a doubt, which stands in the way of a promotion.

    Raises:
        SelfTestFailedError: one of 1 to 5 came out wrong.
    """
    if not np.all(np.isfinite(challenger.ranking_score)):
        return SelfTest(doubts=(Reason.of("test_not_finite"),))
    planted = models.challenger.model_copy(update={"name": "planted", "bundle_digest": "planted"})
    against_itself = ComparedModels(
        models.holdout, BaselineKind.CHAMPION, planted, models.challenger
    )
    trial = _Trial(holdout, challenger, against_itself)
    same = compare(holdout, challenger, challenger, against_itself)
    _require_no_difference(same)
    if _change_of(same) is None:
        return SelfTest(doubts=(Reason.of("test_without_target"),))
    found = [Reason.of("tested_itself", num_numbers=len(same.metrics))]
    found += check_intervals(holdout, challenger, baseline)
    worst = -np.asarray(holdout.rows.labels[holdout.target.head.name], dtype=np.float64)
    decision, change = trial.judge_ranking(worst)
    if decision is not Decision.REJECT:
        raise _failed(
            f"the worst possible ranking got {decision} ({_span(change)}), expected REJECT; either "
            f"the gate is broken or the holdout's requests have too few candidates to tell any "
            f"ranking from another"
        )
    found.append(Reason.of("tested_worst", change=change))
    found += _judge_plants(trial)
    seed = holdout.config.bootstrap_seed
    shuffled = shuffle_within_requests(holdout.rows, challenger.ranking_score, seed)
    lead = trial.blind_lead(shuffled)
    if lead is not None and lead.low > 0:
        raise _failed(
            f"with labels shuffled within requests the challenger is still better than chance "
            f"({_span(lead)}), expected no difference; something else enters the measure",
            "ranking_metrics.py",
        )
    found.append(Reason.of("tested_labels", change=lead))
    decision, change = trial.judge_ranking(shuffled)
    if decision is not Decision.REJECT:
        doubt = Reason.of("test_like_chance", decision=decision.value, change=change)
        return SelfTest(findings=tuple(found), doubts=(doubt,))
    return SelfTest(findings=(*found, Reason.of("tested_shuffled", change=change)))


def _change_of(comparison: Comparison) -> Interval | None:
    return comparison.target.relative_change if comparison.target is not None else None


def _span(change: Interval | None) -> str:
    return "no interval" if change is None else f"{change.low:+.1%} to {change.high:+.1%}"


def _require_no_difference(same: Comparison) -> None:
    """Refuse a gate that sees differences between a model and itself."""
    differing = {
        row.metric
        for row in same.metrics
        if row.challenger != row.baseline
        or ((change := row.relative_change) and (change.low, change.high) != (0.0, 0.0))
    }
    if differing:
        said = f"the challenger against itself differs in {sorted(differing)}"
        raise _failed(f"{said}, expected no difference at all", "comparison.py")


@dataclass(frozen=True)
class Plant:
    """One faulty model. Where its bound is surely broken, the decision must be REJECT."""

    name: str
    scores: SplitScores
    metric: str
    codes: tuple[str, ...]  # of the reasons for which it may be rejected
    segment: str = "all"
    of_level: bool = False  # the bound is on the challenger's level; else on the relative change
    minimum: float | None = None
    maximum: float | None = None


def _judge_plants(trial: _Trial) -> list[Reason]:
    """Judge the challenger with one fault after another."""
    masks, config = trial.holdout.masks, trial.holdout.config
    segments = tuple(name for name in config.required_segments if masks[name].any())
    # What makes a comparison void is no fault of a planted model.
    config = config.model_copy(update={"min_users": 2, "required_segments": segments})
    holdout = replace(trial.holdout, config=config)
    found = []
    for plant in planted_models(holdout, trial.challenger):
        comparison = compare(holdout, plant.scores, trial.challenger, trial.models)
        verdict = decide_on_comparison(comparison, config, holdout.heads)
        decision, row = verdict.decision, comparison.find(plant.metric, plant.segment)
        of = "challenger_interval" if plant.of_level else "relative_change"
        interval: Interval | None = getattr(row, of, None)
        own = {"metric": plant.metric, "segment": plant.segment}
        is_named = any(
            reason.code in plant.codes and own.items() <= (own | dict(reason.facts)).items()
            for reason in verdict.grounds
        )
        said = {"fault": plant.name, "decision": decision.value}
        # INCONCLUSIVE is no failure: a threshold that is missing makes every comparison void.
        is_missed = decision is Decision.PROMOTE or (decision is Decision.REJECT and not is_named)
        is_visible = (
            interval is not None and place(interval, plant.minimum, plant.maximum) is Place.BEYOND
        )
        if interval is None or (decision is not Decision.REJECT and not is_visible):
            reason = Reason.of("tested_fault_not_seen", **said)
        else:
            code = "tested_fault_of_level" if plant.of_level else "tested_fault"
            reason = Reason.of(code, metric=plant.metric, interval=interval, **said)
        if is_missed and is_visible:
            codes = " or ".join(plant.codes)
            said_of = f"{reason} Expected REJECT because of {codes} of {plant.metric}"
            raise _failed(said_of, "examine.py or verdict.py")
        found.append(reason)
    return found


def planted_models(holdout: Holdout, challenger: SplitScores) -> Iterator[Plant]:
    """Yield the challenger with one fault after another.

    - **The probabilities of the target's head times 2**: out of calibration, REJECT where the
      ratio is surely above its floor's maximum, or above what is allowed to every head.
    - **A segment 30 % worse**, for each required segment: a loss beyond its margin, REJECT.
    - **An unwanted action first**, for each guarded head: its guardrail breaks, REJECT.
    - **Scores rounded to tenths**: ties cost order; a loss beyond the margin is REJECT.
    """
    config, target, ranking = holdout.config, holdout.target, challenger.ranking_score
    name = target.head.name
    if name in challenger.probabilities:
        metric = f"calibration_ratio.{name}"
        highest = [f.maximum for f in config.floors if f.metric == metric and f.maximum is not None]
        doubled = np.minimum(challenger.probabilities[name] * _FAULTY_CALIBRATION, 1.0)
        yield Plant(
            f"The probabilities of '{name}' times {_FAULTY_CALIBRATION:g}",
            # The ranking is the same; its scores differ, or both sides would pass for one model.
            SplitScores(
                ranking * _FAULTY_CALIBRATION,
                {**challenger.probabilities, name: doubled},
                challenger.holdout_digest,
            ),
            metric,
            ("floor_broken", "head_out_of_calibration"),
            of_level=True,
            maximum=min([*highest, config.max_head_calibration]),
        )
    for segment in config.required_segments:
        yield Plant(
            f"Segment {segment} {_FAULTY_SEGMENT:.0%} worse",
            replace(challenger, ranking_score=_worse_in(holdout, ranking, holdout.masks[segment])),
            target.name,
            ("segment_broken",),
            segment,
            minimum=-config.segment_margin,
        )
    rails = {rail.metric: rail.max_increase for rail in config.guardrails}
    for head in holdout.heads:
        metric = hits_name(head.name)
        limit = rails.get(metric)
        if not head.is_wanted and limit is not None and head.name in challenger.probabilities:
            yield Plant(
                f"Candidates that will get a '{head.name}' first",
                replace(challenger, ranking_score=challenger.probabilities[head.name]),
                metric,
                ("guardrail_broken",),
                maximum=limit,
            )
    low, high = float(ranking.min()), float(ranking.max())
    if high > low:
        yield Plant(
            "Scores rounded to tenths of their range",
            replace(challenger, ranking_score=np.round((ranking - low) / (high - low), 1)),
            target.name,
            ("target_lost",),
            minimum=-config.margin,
        )


def _worse_in(holdout: Holdout, ranking: np.ndarray, segment: Mask) -> np.ndarray:
    """Return the ranking (N,) with as many of a segment's requests shuffled as lose the share.

    Where a ranking by chance loses less than that, the whole segment is ranked by chance.
    """
    rows, seed = holdout.rows, holdout.config.bootstrap_seed
    label = rows.labels[holdout.target.head.name]
    chance = shuffle_within_requests(rows, ranking, seed)
    had, left = (top_k_hits(rows, scores, label, k=TOP_K) for scores in (ranking, chance))
    requests = np.flatnonzero(segment)
    order = np.random.default_rng(seed).permutation(requests)
    lost = np.cumsum((had - left)[order])
    enough = np.flatnonzero(lost >= _FAULTY_SEGMENT * had[requests].sum())
    is_shuffled = np.zeros(len(segment), dtype=bool)
    is_shuffled[order[: enough[0] + 1] if len(enough) else order] = True
    return np.where(is_shuffled[rows.request_index], chance, ranking)


def shuffle_within_requests(rows: ExampleRows, scores: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores (N,), permuted at random among the candidates of each request."""
    request = np.asarray(rows.request_index)
    lottery = np.random.default_rng(seed).random(len(scores))
    shuffled = np.empty_like(scores)
    # Both orders group by request. Within a request the first is by lot, the second as it was.
    shuffled[np.lexsort((lottery, request))] = scores[np.argsort(request, kind="stable")]
    return shuffled


def check_intervals(
    holdout: Holdout, challenger: SplitScores, baseline: SplitScores
) -> tuple[Reason, ...]:
    """Return what was found; nothing where the target metric has no interval.

    Raises:
        SelfTestFailedError: the estimate does not follow a planted bias, or the intervals are too
            narrow or too wide.
    """
    metrics = ratio_metrics(holdout, challenger, baseline)
    [metric] = [each for each in metrics if each.name == holdout.target.name]
    if (change := _change(holdout, metric)) is None:
        return ()
    found = [_check_bias(holdout, metric, change)]
    columns = []
    for values in (metric.challenger, metric.baseline, metric.denominator):
        # Added up here, and not by the code under test; without a denominator users count.
        total = np.zeros((len(holdout.groups), 1))
        group = holdout.user_group if values is None else holdout.request_group
        np.add.at(total[:, 0], group, 1 if values is None else values)
        columns.append(total)
    sums = UserSums(*columns)
    num_different = int(np.count_nonzero(sums.challenger != sums.baseline))
    if num_different < _FEWEST:
        return (*found, Reason.of("tested_few", num_users=num_different))
    return (*found, _check_width(sums, change), _check_coverage(sums, holdout.config))


def _change(holdout: Holdout, metric: RatioMetric) -> Interval | None:
    """Return the relative change of one metric over all users, as the gate computes it."""
    table = bootstrap_metrics(holdout, [metric], {"all": holdout.masks["all"]}).table
    return next((r.relative_change for r in table if isinstance(r, MetricComparison)), None)


def _check_bias(holdout: Holdout, metric: RatioMetric, change: Interval) -> Reason:
    """Put a bias into the challenger: it must come out, with its sign, and nothing besides."""
    biased = replace(metric, challenger=metric.challenger * (1 + PLANTED_BIAS))
    found = _change(holdout, biased)
    expected = (1 + PLANTED_BIAS) * (1 + change.value) - 1
    if found is None or not math.isclose(found.value, expected, abs_tol=1e-9):
        said = "nothing" if found is None else f"{found.value:+.4%}"
        raise _failed(
            f"the challenger's {metric.name} was raised by {PLANTED_BIAS:.0%}, and the change came "
            f"out as {said}, expected {expected:+.4%}; the sides are swapped or the estimate is "
            f"biased",
            "comparison.py",
        )
    return Reason.of("tested_bias", bias=PLANTED_BIAS)


def _check_width(sums: UserSums, change: Interval) -> Reason:
    """Hold the interval's width against the linearised error (the delta method)."""
    total = float(sums.baseline.sum())
    relative = sums.challenger.sum() / total - 1
    residuals = sums.challenger - (1 + relative) * sums.baseline
    num_groups = len(residuals)
    variance = float(np.square(residuals).sum()) * num_groups / (num_groups - 1)
    expected, found = math.sqrt(variance) / total, alone(change).error
    if not expected / _WIDEST <= found <= expected * _WIDEST:
        raise _failed(
            f"its interval implies a standard error of {found:.4%}, the linearised one is "
            f"{expected:.4%}; expected a ratio from {1 / _WIDEST:g} to {_WIDEST:g}; the intervals "
            f"are scaled or the pairing of the two sides is lost",
            "bootstrap.py",
        )
    return Reason.of("tested_width", ratio=found / expected)


def _check_coverage(sums: UserSums, config: ModelGateConfig) -> Reason:
    """Count how often the interval covers the truth where there is no difference.

    In each draw, users are drawn with replacement, and each user's two sides are swapped or not by
    lot, so that no side is better. The interval covers zero in so many of the draws as it claims.
    """
    from scipy.stats import binom

    rng = np.random.default_rng(config.bootstrap_seed)
    num_groups = len(sums.challenger)
    drawn = rng.integers(0, num_groups, (num_groups, _NUM_DRAWS))
    is_swapped = rng.random(drawn.shape) < 0.5
    one, other, divisor = (
        of[drawn, 0] for of in (sums.challenger, sums.baseline, sums.denominators)
    )
    planted = UserSums(np.where(is_swapped, other, one), np.where(is_swapped, one, other), divisor)
    estimates = paired_bootstrap(planted, _DRAW_RESAMPLES, config.confidence, config.bootstrap_seed)
    changes = [e.relative_change for e in estimates]
    covered = sum(change is not None and change.low <= 0 <= change.high for change in changes)
    fewest, most = (int(end) for end in binom.interval(_BAND, _NUM_DRAWS, config.confidence))
    if not fewest <= covered <= most:
        said = f"of {_NUM_DRAWS} comparisons without a difference {covered} intervals cover zero"
        raise _failed(f"{said}, expected {fewest} to {most}", "bootstrap.py")
    counted = {"covered": covered, "fewest": fewest, "most": most}
    return Reason.of("tested_coverage", num_draws=_NUM_DRAWS, **counted)
