"""The gate's self-test: it judges models whose right verdict is known, on this cycle's rows.

A verdict counts only after this test, which runs in every cycle (`run_self_test`):

- The statistics must give what is known otherwise: a bias that is put in must come out, the width
  must be that of many draws, and intervals must cover the truth as often as they claim.
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
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipelines.contracts.config import Limit
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Comparison, Decision, SelfTest
from pipelines.contracts.progress import tracked
from pipelines.contracts.reasons import BaselineKind, Interval, MetricComparison, Reason
from training.bundle.score_split import SplitScores
from training.data.reader import ExampleRows
from validation.model_gate.comparison import (
    ComparedModels,
    Holdout,
    RatioMetric,
    compare,
    measure_ratios,
    ratio_metrics,
)
from validation.model_gate.examine import Bounds, chance_at
from validation.model_gate.intervals import Cells, FloatArray, change_estimate
from validation.model_gate.policy import plausible_lift
from validation.model_gate.target_metric import hits_name
from validation.model_gate.verdict import decide

PLANTED_BIAS = 0.01
_NUM_DRAWS = 200
_BAND = 0.999  # Of the number of draws whose interval covers the truth.
_WIDEST = 1.25
"""How far a standard error may be from what the draws spread, either way: chance in 200 draws is
5 %, and the tail of unequal users is the rest."""
_FEW_USERS = 1.6
"""How much wider an interval is where three users make half of the difference."""
_FEWEST = 50
"""Groups of users on which the two sides differ; with fewer, an interval's width is mostly luck."""
_FAULTY_CALIBRATION = 2.0
_LEAK = 0.2
_SURE = 1e-4  # p-value of a fault that is broken in a family of as many as 500 bounds.


def _failed(said: str) -> HomefeedError:
    mend = "look into validation/model_gate before any model is judged"
    return HomefeedError(f"the model gate's self-test failed: {said}; {mend}")


def run_self_test(
    holdout: Holdout, challenger: SplitScores, baseline: SplitScores, comparison: Comparison
) -> SelfTest:
    """Judge models whose right verdict is known, on this cycle's rows and scores.

    1. The challenger against itself: no metric may differ, not even by a rounding.
    2. The intervals of the challenger against the baseline: see `check_intervals`.
    3. Models with one planted fault each: REJECT where the holdout is sure of the fault; of a leak,
       no promotion.
    4. The worst ranking (the target's actions last) as a challenger to the real one: REJECT.
    5. Labels shuffled within requests: the challenger must not be surely better than its own
       shuffled scores, or labels leak into the measure.
    6. The challenger's scores shuffled within requests, likewise: REJECT. If this one is not
       rejected, the gate is not broken, but as far as this holdout can tell the challenger ranks no
       better than chance: a doubt, which stands in the way of a promotion.

    Args:
        holdout: The rows.
        challenger: Its scores of them.
        baseline: Those of the other side.
        comparison: What the gate found of the two.

    Raises:
        HomefeedError: one of 1 to 5 came out wrong.
    """
    if not np.all(np.isfinite(challenger.ranking_score)):
        return SelfTest(doubts=(Reason.of("test_not_finite"),))
    model = comparison.challenger_model
    planted = model.model_copy(update={"name": "planted", "bundle_digest": "planted"})
    against_itself = ComparedModels(comparison.holdout, BaselineKind.CHAMPION, planted, model)
    copied = {name: given.copy() for name, given in challenger.probabilities.items()}
    copy = replace(challenger, ranking_score=challenger.ranking_score.copy(), probabilities=copied)
    same = compare(holdout, challenger, copy, against_itself).comparison
    differing = {
        row.metric
        for row in same.metrics
        if row.challenger != row.baseline
        or ((change := row.relative_change) and (change.low, change.high) != (0.0, 0.0))
    }
    if differing:
        said = f"the challenger against itself differs in {sorted(differing)}"
        raise _failed(f"{said}, expected no difference at all")
    if same.target_change is None:
        return SelfTest(doubts=(Reason.of("test_without_target"),))
    found = [Reason.of("tested_itself", num_numbers=len(same.metrics))]
    found += check_intervals(holdout, challenger, baseline)
    found += _judge_plants(holdout, challenger, against_itself)
    return _judge_rankings(holdout, challenger.ranking_score, against_itself, found)


def _judge_rankings(
    holdout: Holdout, ranking: np.ndarray, models: ComparedModels, found: list[Reason]
) -> SelfTest:
    """Judge rankings without any probabilities, 4 to 6 of `run_self_test`, by the target alone.

    Floors, guardrails and segments are left out: a rejection by them would prove nothing about the
    statistics, which are what is tested here.
    """
    rows, config = holdout.rows, holdout.config
    no_bounds = {"guardrails": (), "min_users": 2, "required_segments": ()}
    no_bounds["floors"] = (Limit(metric=config.target_metric, minimum=0.0),)
    wanted = tuple(head for head in holdout.heads if head.is_wanted)
    bare = replace(holdout, heads=wanted, config=config.model_copy(update=no_bounds))

    def compared(of: Holdout, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
        sides = SplitScores(ours, {}, ""), SplitScores(theirs, {}, "")
        return compare(of, *sides, models).comparison

    def judged(planted: np.ndarray) -> tuple[Decision, Interval | None]:
        comparison = compared(bare, planted, ranking)
        verdict = decide(comparison, None, None, bare.config, wanted)
        return verdict.decision, comparison.target_change

    decision, change = judged(-rows.labels[holdout.target_head.name].astype(np.float64))
    if decision is not Decision.REJECT:
        raise _failed(
            f"the worst possible ranking got {decision}, expected REJECT; the gate is broken, or "
            f"the holdout's requests have too few candidates to tell any ranking from another"
        )
    found.append(Reason.of("tested_worst", change=change))
    seed = config.seed
    shuffled = shuffle_within_requests(rows, ranking, seed)
    labels = {name: shuffle_within_requests(rows, of, seed + 1) for name, of in rows.labels.items()}
    # One comparison in a thousand may mislead: the test runs for years.
    careful = config.model_copy(update={"confidence": 0.999})
    blind = replace(holdout, rows=replace(rows, labels=labels), config=careful)
    lead = compared(blind, ranking, shuffled).target_change
    if lead is not None and lead.low > 0:
        raise _failed(
            f"with labels shuffled within requests the challenger is still better than chance, by "
            f"{lead.low:.2%} at least, expected no difference; something else enters the measure"
        )
    found.append(Reason.of("tested_labels", change=lead))
    decision, change = judged(shuffled)
    if decision is Decision.REJECT:
        return SelfTest(findings=(*found, Reason.of("tested_shuffled", change=change)))
    doubt = Reason.of("test_like_chance", decision=decision.value, change=change)
    return SelfTest(findings=tuple(found), doubts=(doubt,))


class _Plant(NamedTuple):
    """One faulty model. Where its bound is surely broken, it must not be promoted."""

    name: str
    scores: SplitScores
    metric: str
    # Of the challenger's level for a calibration, else of the relative change; None: a gain may be
    # no larger than is plausible where earlier cycles found no change.
    bounds: Bounds | None
    codes: tuple[str, ...]  # of the reasons for which it may be rejected; () for any
    segment: str = "all"


def _judge_plants(
    holdout: Holdout, challenger: SplitScores, models: ComparedModels
) -> Iterator[Reason]:
    """Judge the challenger with one fault after another, and yield what came of each."""
    config, masks = holdout.config, holdout.masks
    segments = tuple(name for name in config.required_segments if masks[name].any())
    # What makes a comparison void is no fault of a planted model.
    config = config.model_copy(update={"min_users": 2, "required_segments": segments})
    planted = _planted_models(holdout, challenger, segments)
    for plant in tracked(planted, "planted models"):
        comparison = compare(holdout, plant.scores, challenger, models).comparison
        gain = comparison.target_change
        most = plausible_lift(gain.error, config.seed_noise, ()) if gain else None
        # Nothing but its fault may keep a planted model from being promoted.
        update = {"plausible_lift": most, "num_users_in_all": None}
        comparison = comparison.model_copy(update=update)
        verdict = decide(comparison, None, None, config, holdout.heads)
        row = comparison.find(plant.metric, plant.segment)
        is_level = plant.metric.startswith("calibration_ratio")
        of = "challenger_interval" if is_level else "relative_change"
        interval: Interval | None = getattr(row, of, None)
        bounds = plant.bounds or (None, most)
        is_visible = interval is not None and chance_at(interval, bounds) < _SURE
        own = {"metric": plant.metric, "segment": plant.segment}
        is_named = any(
            reason.code in plant.codes and own.items() <= (own | dict(reason.facts)).items()
            for reason in verdict.grounds
        )
        # INCONCLUSIVE is no failure: a threshold that is missing makes every comparison void.
        is_rejected = verdict.decision is Decision.REJECT
        is_missed = verdict.decision is Decision.PROMOTE or (
            is_rejected and plant.codes and not is_named
        )
        if is_missed and is_visible:
            codes = " or ".join(plant.codes)
            expected = f"expected REJECT because of {codes} of {plant.metric}"
            if not codes:
                expected = "expected that a person is asked to look for a leak"
            raise _failed(f"{plant.name}: {verdict.decision}, {expected}")
        code = "tested_fault" if is_rejected or is_visible else "tested_fault_not_seen"
        yield Reason.of(code, fault=plant.name, decision=verdict.decision.value)


def _planted_models(
    holdout: Holdout, challenger: SplitScores, segments: tuple[str, ...]
) -> Iterator[_Plant]:
    """Yield the challenger with one fault after another.

    - **The probabilities of the target's head times 2**: out of calibration, REJECT where the
      ratio is surely above its floor's maximum, or above what is allowed to every head.
    - **A leak**: a share of what the target's users will do comes first: not promoted.
    - **A segment ranked by chance**, for each of the segments: a loss beyond its margin, REJECT.
    - **An unwanted action first**, for each guarded head: its guardrail breaks, REJECT.
    """
    config, name, ranking = holdout.config, holdout.target_head.name, challenger.ranking_score
    given = challenger.probabilities
    if name in given:
        metric = f"calibration_ratio.{name}"
        highest = [f.maximum for f in config.floors if f.metric == metric and f.maximum is not None]
        doubled = {**given, name: np.minimum(given[name] * _FAULTY_CALIBRATION, 1.0)}
        yield _Plant(
            f"The probabilities of '{name}' times {_FAULTY_CALIBRATION:g}",
            # The ranking is the same; its scores differ, or both sides would pass for one model.
            replace(challenger, ranking_score=ranking * _FAULTY_CALIBRATION, probabilities=doubled),
            metric,
            (None, min([*highest, config.max_head_calibration])),
            ("floor_broken", "head_out_of_calibration"),
        )
    is_known = np.random.default_rng(config.seed).random(len(ranking)) < _LEAK
    lead = (np.ptp(ranking) + 1.0) * (is_known & (holdout.rows.labels[name] > 0))
    leaked = replace(challenger, ranking_score=ranking + lead)
    yield _Plant(f"{_LEAK:.0%} of the labels known", leaked, config.target_metric, None, ())
    chance = shuffle_within_requests(holdout.rows, ranking, config.seed)
    for segment in segments:
        is_inside = holdout.masks[segment][holdout.rows.request_index]
        yield _Plant(
            f"Segment {segment} ranked by chance",
            replace(challenger, ranking_score=np.where(is_inside, chance, ranking)),
            config.target_metric,
            (-config.segment_margin, None),
            ("segment_broken",),
            segment,
        )
    rails = {rail.metric: rail.max_increase for rail in config.guardrails}
    for head in holdout.heads:
        limit = rails.get(hits_name(head.name))
        if not head.is_wanted and limit is not None and head.name in given:
            yield _Plant(
                f"Candidates that will get a '{head.name}' first",
                replace(challenger, ranking_score=given[head.name]),
                hits_name(head.name),
                (None, limit),
                ("guardrail_broken",),
            )


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

    A bias that is put into the challenger must come out, with its sign, and nothing besides. The
    interval may not be narrower than users alone make it; they are added up here once more, and not
    by the code under test. For its coverage see `_check_coverage`.

    Raises:
        HomefeedError: the estimate does not follow a planted bias, or the intervals are too narrow
            or too wide.
    """
    metrics = ratio_metrics(holdout, challenger, baseline)
    [metric] = [each for each in metrics if each.name == holdout.config.target_metric]

    def changed(of: RatioMetric) -> Interval | None:
        row = measure_ratios(holdout, [of], {"all": holdout.masks["all"]}).table[0]
        return row.relative_change if isinstance(row, MetricComparison) else None

    if (change := changed(metric)) is None:
        return ()
    biased = changed(replace(metric, challenger=metric.challenger * (1 + PLANTED_BIAS)))
    expected = (1 + PLANTED_BIAS) * (1 + change.value) - 1
    if biased is None or not math.isclose(biased.value, expected, abs_tol=1e-9):
        said = "nothing" if biased is None else f"{biased.value:+.4%}"
        raise _failed(
            f"the challenger's {metric.name} was raised by {PLANTED_BIAS:.0%}, and the change came "
            f"out as {said}, expected {expected:+.4%}; the sides are swapped or the estimate is "
            f"biased"
        )
    found = [Reason.of("tested_bias", bias=PLANTED_BIAS)]
    num_users = int(holdout.request_user.max()) + 1
    sides = np.zeros((2, num_users))
    np.add.at(sides[0], holdout.request_user, metric.challenger)
    np.add.at(sides[1], holdout.request_user, np.asarray(metric.baseline))
    if (num_different := int(np.count_nonzero(sides[0] != sides[1]))) < _FEWEST:
        return (*found, Reason.of("tested_few", num_users=num_different))
    total = sides[1].sum()
    by_users = math.sqrt(np.square(sides[0] - sides[0].sum() / total * sides[1]).sum()) / total
    if (error := change.error) < by_users / _WIDEST:
        raise _failed(
            f"its interval implies a standard error of {error:.4%}, and users alone make "
            f"{by_users:.4%}; the intervals are scaled, or users are left out"
        )
    return (*found, *_check_coverage(sides, holdout))


def _check_coverage(sides: FloatArray, holdout: Holdout) -> tuple[Reason, ...]:
    """Return how often the interval covers the truth where there is no difference, and its width.

    In each draw, users are drawn with replacement, and each user's two sides are swapped or not by
    lot, so that no side is better. The interval misses zero no more often than it claims; few
    users who make the difference make it cover more. And its width is that of what the draws
    spread.

    Args:
        sides: sums of challenger and baseline by user, (2, U).
        holdout: the rows, with the confidence.
    """
    from scipy.stats import binom

    config, num_users = holdout.config, sides.shape[1]
    rng = np.random.default_rng(config.seed)
    cells = Cells.of(np.arange(num_users), np.zeros(num_users, dtype=np.intp))
    values, errors, covered = [], [], 0
    for _ in range(_NUM_DRAWS):
        drawn = sides[:, rng.integers(0, num_users, num_users)]
        one, other = np.where(rng.random(num_users) < 0.5, drawn, drawn[::-1])
        change = change_estimate(one, other, cells)
        interval = change.interval(config.confidence) if change else None
        if change is not None and interval is not None:
            covered += interval.low <= 0 <= interval.high
            values.append(change.value)
            errors.append(interval.error)
    fewest = int(binom.interval(_BAND, _NUM_DRAWS, config.confidence)[0])
    if covered < fewest:
        said = f"of {_NUM_DRAWS} comparisons without a difference {covered} intervals cover zero"
        raise _failed(f"{said}, expected {fewest} at least")
    ratio = math.sqrt(np.mean(np.square(errors)) / np.var(values))
    if not 1 / _WIDEST <= ratio <= _WIDEST * _FEW_USERS:
        raise _failed(
            f"intervals are {ratio:.2f} times as wide as {_NUM_DRAWS} comparisons without a "
            f"difference spread; expected {1 / _WIDEST:g} to {_WIDEST * _FEW_USERS:g}; the "
            f"intervals are scaled or the pairing of the two sides is lost"
        )
    counted = {"covered": covered, "fewest": fewest}
    coverage = Reason.of("tested_coverage", num_draws=_NUM_DRAWS, **counted)
    return Reason.of("tested_width", ratio=ratio), coverage
