"""Comparison of two models on the same holdout rows: facts, by metric and segment.

Not for permission (`validation.model_gate.verdict`), for making scores
(`training.bundle.score_split`), nor for the definition of a top 3
(`validation.model_gate.ranking_metrics`). The offline numbers have one limit: both models are read
on candidates that the model serving at the time chose to show, so a challenger that would have
chosen differently is judged on the other model's list.

Letters: N examples, M requests, G groups of users.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from heapq import nsmallest
from itertools import count, product
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import TOP_K, Head, ModelGateConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.progress import tracked
from pipelines.contracts.reasons import (
    AbsenceKind,
    AbsentMetric,
    BaselineKind,
    HeadFacts,
    Interval,
    MetricComparison,
    RankedPin,
    RankedRequest,
    Reason,
    ReliabilityBin,
)
from pipelines.contracts.time import Window
from validation.model_gate.intervals import (
    Cells,
    FloatArray,
    Measured,
    change_estimate,
    ratio_estimate,
    reach,
    smallest_detectable_change,
    total,
    user_groups,
)
from validation.model_gate.pooling import Influences, Key, deciding
from validation.model_gate.ranking_metrics import (
    area_under_curve,
    expected_calibration_error,
    is_in_top,
    places_in,
)
from validation.model_gate.target_metric import (
    DIVERSITY,
    GINI,
    NEW,
    POPULAR,
    hits_name,
    target_head,
    volume_name,
)

if TYPE_CHECKING:
    from training.bundle.score_split import SplitScores
    from training.data.reader import ExampleRows

Mask = NDArray[np.bool_]
Side = Literal["challenger", "baseline"]
Row = MetricComparison | AbsentMetric
Kept = TypeVar("Kept")
_SIDES: tuple[Side, Side] = ("challenger", "baseline")
NUM_RELIABILITY_BINS = 10
"""As many as people read at a glance; bins hold equal numbers of examples, not equal widths."""
NUM_SHOWN, FIRST_SHOWN, MOST_PINS, LONGEST_ID = 10, 5, 15, 64
"""Of requests, of each side's first candidates, of a request's pins, and of letters of an id."""
FIELLER = 0.95
_LOWEST_PROBABILITY = 1e-7  # float32 rounds nearer values to 0, whose log loss would be infinite


@dataclass(frozen=True)
class ComparedModels:
    """Who is compared, on what: fields of a `Comparison`."""

    holdout: Window
    baseline_kind: BaselineKind
    challenger_model: ModelRef
    baseline_model: ModelRef | None
    differences: tuple[Reason, ...] = ()  # where the two recipes differ
    seen: tuple[Reason, ...] = ()  # why the holdout was no holdout for a side
    baseline_name: str = ""  # of a first cycle's baseline


@dataclass(frozen=True)
class Holdout:
    """The rows that both sides are read on, and the heads and thresholds by which.

    Who made each request, and in which group a user is drawn, is counted once.
    """

    rows: "ExampleRows"
    heads: tuple[Head, ...]
    config: ModelGateConfig
    known_pins: NDArray[np.int64] | None = None
    """Rows of the pins that the training window has shown; None: nobody asks what is new."""
    pin_vectors: NDArray[np.floating[Any]] | None = None
    """Embeddings of the snapshot's pins, (pins, E); None: nobody asks how unlike pins are."""

    @cached_property
    def target_head(self) -> Head:
        """The head of the target metric.

        Raises:
            ConfigurationError: no head gives it.
        """
        return target_head(self.config, self.heads)

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Which requests (M,) belong to each segment: at a request, a user is core or not.

        Where some requests show candidates that were drawn at random, they are a segment too.
        """
        is_core = np.asarray(self.rows.is_core, dtype=bool)
        masks = {"all": np.ones_like(is_core), "core": is_core, "non_core": ~is_core}
        explores = np.asarray(self.rows.is_exploration, dtype=bool)
        return masks | ({"exploration": explores} if explores.any() else {})

    @cached_property
    def request_user(self) -> NDArray[np.intp]:
        """The user of each request, from 0 on, (M,)."""
        return np.unique(self.rows.user_id, return_inverse=True)[1]

    @cached_property
    def user_groups(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The groups that have a user here, (G,), and each user's place among them."""
        return user_groups(np.unique(self.rows.user_id))

    @cached_property
    def cells(self) -> Cells:
        """The group and day of each request, (M,)."""
        return Cells.of(self.user_groups[1][self.request_user], self.rows.day)

    @cached_property
    def shown_pins(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the pins that are shown, ascending, and each example's place among them, (N,)."""
        return np.unique(self.rows.pin_row, return_inverse=True)

    @cached_property
    def exposures(self) -> dict[str, FloatArray]:
        """What is asked of a model's first places, by metric: 1 for such pins, else 0, (N,).

        Popular are the hundredth part of the shown pins that was shown most; new are those that
        the training window has not shown. A model that feeds on what it has shown itself shows
        more of the first and fewer of the second from cycle to cycle.
        """
        pins, of_pins = self.shown_pins
        most = np.argsort(-np.bincount(of_pins), kind="stable")[: math.ceil(len(pins) / 100)]
        found = {POPULAR: np.isin(of_pins, most)}
        if self.known_pins is not None:
            found[NEW] = np.isin(self.rows.pin_row, self.known_pins, invert=True)
        return {name: of.astype(np.float64) for name, of in found.items()}

    @cached_property
    def shown(self) -> list[int]:
        """The requests that people are shown, by a hash of their ids: whatever came of them."""
        ids = self.rows.request_id.tolist()
        return nsmallest(NUM_SHOWN, range(len(ids)), lambda m: zlib.crc32(ids[m].encode()))

    def count_users(self, mask: Mask) -> int:
        """Return the number of users who made some of these requests."""
        return len(np.unique(self.request_user[mask]))

    def share_of_user(self, mask: Mask) -> FloatArray:
        """Return what part of its user each of these requests is, (M,): they add up to users."""
        num_requests = np.bincount(self.request_user[mask], minlength=self.request_user.max() + 1)
        return 1 / np.maximum(num_requests, 1)[self.request_user]

    def per_request(self, values: FloatArray) -> FloatArray:
        """Return the sums of values of examples (N,) in each request, (M,)."""
        rows = self.rows
        return np.bincount(rows.request_index, values, len(rows.user_id)).astype(np.float64)

    @cached_property
    def _kept(self) -> dict[tuple[str, int], tuple[FloatArray, Any]]:
        return {}

    def once(self, of: FloatArray, what: str, compute: Callable[[], Kept]) -> Kept:
        """Return what is computed of an array, which is kept with it: planted models share most."""
        key = what, id(of)
        if key not in self._kept:
            self._kept[key] = of, compute()
        return cast(Kept, self._kept[key][1])

    def hits(self, score: FloatArray, head: str) -> FloatArray:
        """Return a head's labels in the top 3 per request (M,); NaN if a score is not finite."""
        return self.once(score, "hits", partial(self._hits, score))[head]

    def _hits(self, score: FloatArray) -> dict[str, FloatArray]:
        top = self.top(score)
        return {head.name: self.per_request(self.rows.labels[head.name] * top)
                for head in self.heads}  # fmt: skip

    def top(self, score: FloatArray) -> FloatArray:
        """Return 1 where an example is in the top 3 (N,); NaN if a score is not finite."""
        # Where a score is not finite no order exists, so no top 3.
        if not np.all(np.isfinite(score)):
            return np.full(len(score), np.nan)
        return self.once(score, "top", partial(is_in_top, self.rows, score, TOP_K))

    @cached_property
    def _directions(self) -> NDArray[np.float32]:
        """The shown pins' embeddings, each of length 1, or 0 where it is zero; (E, pins shown)."""
        assert self.pin_vectors is not None
        vectors = self.pin_vectors[self.shown_pins[0]].T.astype(np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=0), np.finfo(np.float32).tiny)

    def diversity(self, score: FloatArray) -> FloatArray:
        """Return how unlike the pins of each top 3 are, (M,); NaN if a score is not finite.

        It is 1 less the mean cosine of each two, 0 to 2, as the intra-list distance of Ziegler et
        al. (WWW 2005), and 0 where there is one pin. A zero embedding is at right angles to all.
        """
        return self.once(score, "diversity", partial(self._diversity, score))

    def _diversity(self, score: FloatArray) -> FloatArray:
        if not np.all(np.isfinite(score)):
            return np.full(len(self.rows.user_id), np.nan)
        chosen = np.flatnonzero(self.top(score))
        request, pins = self.rows.request_index[chosen], self.shown_pins[1][chosen]
        # The square of a sum is the sum of squares and of each two's products.
        products = np.zeros(len(self.rows.user_id))
        for axis in self._directions:
            of_axis = axis[pins]
            products += np.bincount(request, of_axis, len(products)) ** 2
            products -= np.bincount(request, of_axis**2, len(products))
        num = np.bincount(request, minlength=len(products))
        return np.where(num > 1, 1 - products / np.maximum(num * (num - 1), 1), 0.0)

    def of_head(self, head: str, scores: "SplitScores") -> "HeadNumbers | None":
        """Return what a side's probabilities of a head come to; None where it has none."""
        if (given := scores.probabilities.get(head)) is None:
            return None
        return self.once(given, f"of head {head}", partial(_measured, self, head, given))


@dataclass(frozen=True)
class HeadNumbers:
    """What probabilities of one head come to on a holdout."""

    log_loss: FloatArray  # Sum per request, (M,).
    predicted: FloatArray  # Sum of the probabilities, likewise.
    bins: list[tuple[float, float]]  # Mean predicted and observed, in ascending order.
    spread: float | None  # Between the least and the largest; None: one is not finite.
    # AUC and ECE by metric and segment, with the interval, or why there is none.
    levels: "dict[tuple[str, str], tuple[float, Interval | None] | AbsenceKind]"


@dataclass(frozen=True)
class RatioMetric:
    """One metric as a sum per request (M,) on both sides, over a shared denominator."""

    name: str
    challenger: FloatArray
    baseline: FloatArray | None
    denominator: FloatArray | None  # None: the number of users


@dataclass(frozen=True)
class Found:
    """One comparison, and how much each group of users moves its deciding changes."""

    comparison: Comparison
    influences: Influences


def compare(
    holdout: Holdout, challenger: "SplitScores", baseline: "SplitScores", models: ComparedModels
) -> Found:
    """Return every metric of both sides on the same rows, with intervals over users and days.

    Metrics, by segment: `<head>_volume_at_3` of the target metric's head (its actions in the top 3,
    mean per request; higher is better), `hit_at_3.<head>` (the same per user, as TransAct reports
    it; lower is better for an unwanted head), `log_loss.<head>`, `calibration_ratio.<head>` (sum
    predicted / sum observed; 1 is right), `auc.<head>`, `ece.<head>`. A metric that cannot be
    computed has no row; why not stands in `absent`.

    Raises:
        ConfigurationError: no head gives the target metric.
        DataContractError: the holdout is empty.
    """
    rows, config, num_examples = holdout.rows, holdout.config, len(holdout.rows.request_index)
    if num_examples == 0:
        raise DataContractError(
            "the holdout has no examples, expected at least one request; check "
            "snapshot.holdout_days and that the event log reaches as_of"
        )
    metrics = ratio_metrics(holdout, challenger, baseline)
    found = measure_ratios(holdout, metrics, holdout.masks)
    table = found.table + _pooled_metrics(holdout, challenger, baseline)
    table += _evenness(holdout, challenger, baseline)
    error, everybody = found.target_error, holdout.masks["all"]
    comparison = Comparison(
        holdout_digest=challenger.holdout_digest,
        baseline_holdout_digest=baseline.holdout_digest,
        **vars(models),
        num_users=holdout.count_users(everybody),
        num_users_in_all=rows.num_users_in_all,
        num_requests=len(rows.user_id),
        num_examples=num_examples,
        segment_users={name: holdout.count_users(mask) for name, mask in holdout.masks.items()},
        metrics=tuple(row for row in table if isinstance(row, MetricComparison)),
        absent=tuple(row for row in table if isinstance(row, AbsentMetric)),
        target_metric=config.target_metric,
        smallest_detectable_change=error and smallest_detectable_change(error, config.confidence),
        num_days=holdout.cells.num_days,
        are_scores_identical=bool(np.array_equal(challenger.ranking_score, baseline.ranking_score)),
        reliability=(
            ReliabilityBin(side=side, head=head.name, mean_predicted=mean, mean_observed=observed)
            for side, scores in zip(_SIDES, (challenger, baseline), strict=True)
            for head in holdout.heads
            if (numbers := holdout.of_head(head.name, scores))
            for mean, observed in numbers.bins
        ),
        requests=tuple(_ranked(holdout, challenger.ranking_score, baseline.ranking_score)),
        heads=tuple(
            HeadFacts(
                head=name,
                num_positives=int(rows.labels[name].sum(dtype=np.int64)),
                spread=numbers.spread,
            )
            for name in (head.name for head in holdout.heads)
            if (numbers := holdout.of_head(name, challenger))
        ),
    )
    return Found(comparison, found.influences)


@dataclass(frozen=True)
class Measurements:
    """What the rows say of every ratio metric in every segment."""

    table: list[Row]
    target_error: float | None  # standard error of the target's relative change over all users
    influences: Influences


def measure_ratios(
    holdout: Holdout, metrics: list[RatioMetric], masks: Mapping[str, Mask]
) -> Measurements:
    """Measure every metric in every segment, of requests (M,), with intervals."""
    config = holdout.config
    table: list[Row] = []
    changes: dict[Key, Measured] = {}
    shares = {segment: holdout.share_of_user(mask) for segment, mask in masks.items()}
    pairs = list(product(masks.items(), metrics))
    for (segment, mask), metric in tracked(pairs, "metrics by segment"):
        divisor = shares[segment] if metric.denominator is None else metric.denominator
        rows, change = _measure(holdout, metric, segment, mask, divisor)
        table += rows
        if change is not None:
            changes[metric.name, segment] = change
    target = changes.get((config.target_metric, "all"))
    decides = deciding(config)
    return Measurements(
        table,
        target.error if target and math.isfinite(target.error) else None,
        Influences.of(
            holdout.user_groups[0],
            holdout.cells,
            {key: change for key, change in changes.items() if key in decides},
        ),
    )


def _measure(
    holdout: Holdout, metric: RatioMetric, segment: str, mask: Mask, divisor: FloatArray
) -> tuple[list[Row], Measured | None]:
    """Return the rows of one metric in one segment, and its relative change."""
    confidence, cells, name = holdout.config.confidence, holdout.cells, metric.name
    if not mask.any():
        return [_absent(name, segment, "challenger", AbsenceKind.EMPTY_SEGMENT)], None
    whole, ours = cells.sums(divisor, mask), cells.sums(metric.challenger, mask)
    mine = ratio_estimate(ours, whole, cells)
    if mine is None:
        kind = AbsenceKind.NOT_FINITE if whole.any() else AbsenceKind.NO_ACTION
        return [_absent(name, segment, "challenger", kind)], None
    theirs = None if metric.baseline is None else cells.sums(metric.baseline, mask)
    other = None if theirs is None else ratio_estimate(theirs, whole, cells)
    row = MetricComparison(
        metric=name,
        segment=segment,
        challenger=mine.value,
        baseline=None,
        relative_change=None,
        challenger_interval=mine.interval(confidence, lowest=0.0),
    )
    if theirs is None:
        return [row], None
    if other is None:
        return [row, _absent(name, segment, "baseline", AbsenceKind.NOT_FINITE)], None
    difference = ratio_estimate(ours - theirs, whole, cells)
    # A relative change is one of a level that is surely above zero (Fieller 1954).
    is_above = other.value > reach(total((other.users, other.days)), FIELLER)
    change = change_estimate(ours, theirs, cells) if is_above else None
    found = {
        "baseline": other.value,
        "baseline_interval": other.interval(confidence, lowest=0.0),
        "difference": difference.interval(confidence) if difference else None,
    }
    if change is not None:
        found |= {
            "relative_change": change.interval(confidence, lowest=-1.0),
            "day_share": change.day_share,
            "effective_users": change.effective_users,
        }
    return [row.model_copy(update=found)], change


def ratio_metrics(
    holdout: Holdout, challenger: "SplitScores", baseline: "SplitScores"
) -> list[RatioMetric]:
    """Return the metrics that are ratios of sums over users: those that get an interval.

    Of each head its volume and hits, and where it has probabilities log loss and calibration ratio;
    of the first places, how many go to popular and to new pins, and how unlike these pins are.
    """
    metrics, rows = [], holdout.rows
    num_of_M = holdout.per_request(np.ones(len(rows.request_index)))
    for name in (head.name for head in holdout.heads):
        ours, theirs = (holdout.hits(s.ranking_score, name) for s in (challenger, baseline))
        if name == holdout.target_head.name:
            requests = np.ones(len(rows.user_id))
            metrics.append(RatioMetric(volume_name(name), ours, theirs, requests))
        metrics.append(RatioMetric(hits_name(name), ours, theirs, None))
        mine, other = (holdout.of_head(name, side) for side in (challenger, baseline))
        if mine is None:
            continue
        observed = holdout.per_request(rows.labels[name])
        for metric, of, divisor in (
            ("log_loss", attrgetter("log_loss"), num_of_M),
            ("calibration_ratio", attrgetter("predicted"), observed),
        ):
            others = of(other) if other else None
            metrics.append(RatioMetric(f"{metric}.{name}", of(mine), others, divisor))
    places = np.minimum(np.diff(rows.first_example), TOP_K).astype(np.float64)
    tops = [holdout.top(side.ranking_score) for side in (challenger, baseline)]
    for name, is_such in holdout.exposures.items():
        ours, theirs = (holdout.per_request(is_such * top) for top in tops)
        metrics.append(RatioMetric(name, ours, theirs, places))
    if holdout.pin_vectors is not None:
        ours, theirs = (holdout.diversity(side.ranking_score) for side in (challenger, baseline))
        metrics.append(RatioMetric(DIVERSITY, ours, theirs, (places > 1).astype(np.float64)))
    return metrics


def log_losses(label: FloatArray, probability: FloatArray) -> FloatArray:
    """Return -log p(label) per example, in nats."""
    clipped = np.clip(probability, _LOWEST_PROBABILITY, 1 - _LOWEST_PROBABILITY)
    return -(label * np.log(clipped) + (1 - label) * np.log1p(-clipped))


def _absent(metric: str, segment: str, side: Side, kind: AbsenceKind) -> AbsentMetric:
    return AbsentMetric(metric=metric, segment=segment, side=side, kind=kind)


def _pooled_metrics(
    holdout: Holdout, challenger: "SplitScores", baseline: "SplitScores"
) -> list[Row]:
    """Return AUC and ECE, which are not ratios of sums over users.

    AUC has an interval from its influence per group of users; ECE has none.
    """
    found: list[Row] = []
    for head, segment, metric in product(holdout.heads, holdout.masks, ("auc", "ece")):
        name, levels = f"{metric}.{head.name}", list[tuple[float | None, Interval | None]]()
        for side, scores in zip(_SIDES, (challenger, baseline), strict=True):
            numbers = holdout.of_head(head.name, scores)
            if numbers is None:
                break
            level = numbers.levels[metric, segment]
            if isinstance(level, AbsenceKind):
                found.append(_absent(name, segment, side, level))
                break
            levels.append(level)
        if levels:
            (mine, interval), (other, another) = (*levels, (None, None))[:2]
            found.append(
                MetricComparison(
                    metric=name,
                    segment=segment,
                    challenger=mine,
                    baseline=other,
                    relative_change=None,
                    challenger_interval=interval,
                    baseline_interval=another,
                )
            )
    return found


def _evenness(holdout: Holdout, challenger: "SplitScores", baseline: "SplitScores") -> list[Row]:
    """Return the Gini coefficient of both sides' first places over the pins of the holdout.

    0: each pin has as many of them; near 1: few pins have them all (Gini 1912).
    """
    levels, (_, of_pins) = [], holdout.shown_pins
    for scores in (challenger, baseline):
        shown = np.sort(np.bincount(of_pins, holdout.top(scores.ranking_score)))
        ranks = np.arange(1, len(shown) + 1)
        levels.append(float((2 * ranks - len(shown) - 1) @ shown / (len(shown) * shown.sum())))
    if not np.isfinite(levels).all():
        return [_absent(GINI, "all", "challenger", AbsenceKind.NOT_FINITE)]
    sides = {"challenger": levels[0], "baseline": levels[1]}
    return [MetricComparison(metric=GINI, segment="all", relative_change=None, **sides)]


def _measured(holdout: Holdout, head: str, given: FloatArray) -> HeadNumbers:
    """Return what probabilities (N,) come to; they are sorted once, for all segments."""
    rows, is_finite = holdout.rows, bool(np.isfinite(given).all())
    label, probability = rows.labels[head].astype(np.float64), given.astype(np.float64)
    order, levels = np.argsort(probability, kind="stable"), dict[tuple[str, str], Any]()
    for segment, mask in holdout.masks.items():
        chosen = order[mask[rows.request_index[order]]]
        cell = holdout.cells.of_request[rows.request_index[chosen]]
        of_segment = probability[chosen], rows.labels[head][chosen], cell, holdout
        levels |= {(metric, segment): _level(metric, *of_segment) for metric in ("auc", "ece")}
    bins = np.array_split(order, NUM_RELIABILITY_BINS) if is_finite else []
    return HeadNumbers(
        holdout.per_request(log_losses(label, probability)),
        holdout.per_request(probability),
        [(float(given[rows].mean()), float(label[rows].mean())) for rows in bins if len(rows)],
        float(np.ptp(given)) if is_finite else None,
        levels,
    )


def _level(
    metric: str,
    probability: np.ndarray,
    label: np.ndarray,
    cell: NDArray[np.intp],
    holdout: Holdout,
) -> tuple[float, Interval | None] | AbsenceKind:
    """Return AUC or ECE of a segment's examples with its interval, or why there is none."""
    if len(label) == 0:
        return AbsenceKind.EMPTY_SEGMENT
    if not np.all(np.isfinite(probability)):
        return AbsenceKind.NOT_FINITE
    if metric == "ece":
        if len(label) < NUM_RELIABILITY_BINS:
            return AbsenceKind.FEW_EXAMPLES
        return expected_calibration_error(probability, label), None
    if label.min() == label.max():
        return AbsenceKind.ONE_LABEL
    area, influences = area_under_curve(probability, label)
    by_cell = np.bincount(cell, influences, len(holdout.cells.group)).astype(np.float64)
    found = Measured.of(area, by_cell, holdout.cells).interval(holdout.config.confidence, 0.0)
    return area, found and found.model_copy(update={"high": min(found.high, 1.0)})


def _ranked(holdout: Holdout, ours: FloatArray, theirs: FloatArray) -> Iterator[RankedRequest]:
    """Yield the requests that are shown, ranked by both sides' scores; none that has no order."""
    rows = holdout.rows
    for request in holdout.shown if np.isfinite([ours, theirs]).all() else ():
        places = (places_in(rows, score, request).tolist() for score in (ours, theirs))
        pins = [
            RankedPin(
                pin_id=int(rows.pin_ids[rows.pin_row[n]]),
                challenger=mine,
                baseline=other,
                actions=tuple(head.name for head in holdout.heads if rows.labels[head.name][n]),
            )
            for n, mine, other in zip(count(rows.first_example[request]), *places, strict=False)
        ]
        shown = [p for p in pins if p.actions or min(p.challenger, p.baseline) <= FIRST_SHOWN]
        shown.sort(key=lambda pin: min(pin.challenger, pin.baseline))
        name = rows.request_id[request][:LONGEST_ID]
        yield RankedRequest(
            request_id=name, num_candidates=len(pins), pins=tuple(shown[:MOST_PINS])
        )
