"""How far a snapshot has shifted from the last accepted one, and how far snapshots usually shift.

A shift is told when it is larger than the recipe's bound, and larger than the accepted snapshots
before it have shifted by themselves. So a head that comes in bursts, or a category that changes
with every campaign, has a wide limit, and a steady one has the recipe's. What is usual is known
only from FEWEST_EARLIER shifts on. Until then a label rate is held against the recipe's bound
where both sides have FEWEST_POSITIVES, and features are not judged.

Not for the shift of single days (`validation.data_gate.days`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from validation.data_gate.gx_runner import NAN, Check
from validation.data_gate.snapshot_profile import SEQUENCE_LENGTH, Measures

MOST_EARLIER = 12
"""So many shifts are kept: half a year of fortnights."""
FEWEST_EARLIER = 4
MARGIN = 1.5
"""A limit is so many times the largest earlier shift; twice as many after only FEWEST_EARLIER."""
FEWEST_POSITIVES = 500
"""Label rates of fewer positives move by more than a tenth by chance, as actions come in bursts."""

STEADY, RATE, FEATURE = "label_rate_is_steady", "label_rate_shift", "feature_shift"
MOVE = "feature_move"
"""The measures: from training to holdout; from the last accepted snapshot; of a feature, the
population stability index, and the mean distance of its quantiles in standard deviations."""
LARGEST_MOVE = 0.2
_UNORDERED = ("circle", "weekday")
"""Scales whose bins are in no order that a distance could follow."""

Earlier = Mapping[str, Sequence[float]]
"""The sizes of earlier shifts, oldest first, by '<measure>/<head or feature>'."""


class Shift(NamedTuple):
    """One shift: of a head's label rate, or of a feature's distribution."""

    measure: str
    partition: str  # head or feature
    size: float  # ln of a rate's quotient, or how far a feature's distribution shifted
    bound: float  # the recipe's, on the same scale
    limit_factor: float = 1.0  # the recipe's
    has_enough: bool = True  # of what it was measured on

    @property
    def key(self) -> str:
        """Its name among earlier shifts."""
        return f"{self.measure}/{self.partition}"

    @property
    def is_rate(self) -> bool:
        """Whether it is one of label rates."""
        return self.measure in (STEADY, RATE)

    def limit(self, earlier: Earlier) -> float | None:
        """Return what its size may be at most; None where nobody can tell yet."""
        before = [abs(size) for size in earlier.get(self.key, ())]
        if len(before) < FEWEST_EARLIER:
            return self.bound if self.is_rate and self.has_enough else None
        usual = MARGIN * (1 + FEWEST_EARLIER / len(before)) * max(before)
        return self.limit_factor * max(self.bound, usual)

    def phrase(self, limit: float) -> str:
        """Return what was found and what is allowed, as people read it."""
        if self.is_rate:
            low, high = (format(math.expm1(sign * limit), "+.0%") for sign in (-1, 1))
            return f"{self.partition}: {math.expm1(self.size):+.1%}, allowed {low} to {high}"
        return f"{self.partition}: {self.size:.3f}, allowed {limit:.3f}"


def shifts_of(
    snapshot: Snapshot, now: Measures, before: Measures, config: DataGateConfig
) -> tuple[Shift, ...]:
    """Return every shift that can be measured.

    Args:
        snapshot: Its heads are those that count.
        now: Its measures.
        before: Those of the last accepted snapshot; empty ones where there is none.
        config: The recipe's bounds.
    """
    features, factor = snapshot.features, config.limit_factor
    bound = math.log1p(config.max_label_rate_change)
    found = []
    for head in features.head_names:
        if head not in now.positives:
            continue
        positives, examples = now.positives[head], now.examples
        pairs = {STEADY: [(positives[s], examples[s]) for s in (SPLIT_HOLDOUT, SPLIT_TRAINING)]}
        if head in before.positives:  # A head that is new has not shifted.
            pairs[RATE] = [(m.positives[head].sum(), m.examples.sum()) for m in (now, before)]
        for measure, ((hits, rows), (hits_before, rows_before)) in pairs.items():
            if rows and rows_before and hits + hits_before:
                # Half a positive more, so that a rate that fell to nothing has a size too.
                size = math.log((hits + 0.5) / rows) - math.log((hits_before + 0.5) / rows_before)
                enough = bool(max(hits, hits_before) >= FEWEST_POSITIVES)
                found.append(Shift(measure, head, size, bound, factor, enough))
    ordered = {SEQUENCE_LENGTH}
    ordered |= {each.name for each in features.numeric_held if each.meaning.scale not in _UNORDERED}
    for name, counts in sorted(now.histograms.items()):
        reference = before.histograms.get(name)
        if reference is None or len(reference) != len(counts):
            continue
        psi = population_stability_index(counts, reference)
        found.append(Shift(FEATURE, name, psi, config.max_population_stability_index, factor))
        if name in ordered and counts.any() and reference.any():
            size = quantile_distance(counts, reference)
            found.append(Shift(MOVE, name, size, LARGEST_MOVE, factor))
    return tuple(found)


def population_stability_index(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """Return sum (p - q) ln(p / q) over bins; 0 means equal shares, 0.25 a marked shift.

    Half a row is added to each bin, so that an empty bin gives a finite number. Two samples of n
    and m rows from one distribution have an expected index of about (bins - 1)(1/n + 1/m) instead
    of 0, which is why the gate wants a minimum number of rows (Yurdakul, Statistical Properties of
    Population Stability Index, 2018).

    Args:
        now: (bins,) rows per bin.
        before: (bins,) rows per bin of the reference.
    """
    p, q = (now + 0.5) / (now + 0.5).sum(), (before + 0.5) / (before + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())


def quantile_distance(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """Return the mean distance between the quantiles of two histograms, in deviations of `before`.

    It is the Wasserstein distance of order 1: the integral over u of |Q_now(u) - Q_before(u)|, with
    a bin's number as its place. Where all of `before` lies in one bin, a bin is the unit. Unlike
    the population stability index it grows with how far values move, so that a small move of all
    of them is told from noise in single bins.

    Args:
        now: (bins,) rows per bin, not all 0; bins in the order of their values.
        before: (bins,) rows per bin of the reference, not all 0.
    """
    p, q = now / now.sum(), before / before.sum()
    places = np.arange(len(q))
    variance = float((q * places**2).sum() - (q * places).sum() ** 2)
    unit = float(np.sqrt(max(variance, 0.0))) or 1.0
    return float(np.abs(np.cumsum(p - q)).sum()) / unit


def kept_shifts(shifts: Sequence[Shift], earlier: Earlier) -> dict[str, list[float]]:
    """Return the sizes that a later snapshot is held against, with those of this one."""
    kept = {key: list(sizes) for key, sizes in earlier.items()}
    for shift in shifts:
        kept.setdefault(shift.key, []).append(shift.size)
    return {key: sizes[-MOST_EARLIER:] for key, sizes in sorted(kept.items())}


def shift_checks(
    shifts: Sequence[Shift], earlier: Earlier, is_measured: bool, not_judged: str
) -> tuple[Check, ...]:
    """Return the checks whose limits come from earlier shifts: each shift as a multiple of its own.

    Args:
        shifts: Of the snapshot.
        earlier: Of the accepted snapshots before it.
        is_measured: Whether all of the snapshot was. Where not, a shift is not known: NaN.
        not_judged: Why shift against the last accepted snapshot cannot be judged, or nothing.
    """
    few = f"fewer than {FEWEST_EARLIER} earlier shifts are known"
    no_head = f"{few}, and no head has {FEWEST_POSITIVES} positives"
    checks = []
    for measure, description, without in (
        (STEADY, "Label rate in the holdout against training, per head.", f"{no_head} in a window"),
        (RATE, "Change of each head's label rate against the last accepted snapshot.", no_head),
        (FEATURE, "Population stability index of each feature against the last accepted snapshot.",
         few),
        (MOVE, "How far each number's quantiles moved from the last accepted snapshot's, in "
         "standard deviations.", few),
    ):  # fmt: skip
        own = (shift for shift in shifts if shift.measure == measure)
        known = [(shift, limit) for shift in own if (limit := shift.limit(earlier)) is not None]
        values = {shift.partition: abs(shift.size) / limit for shift, limit in known}
        values = values if is_measured else {"snapshot": NAN}
        phrases = {shift.partition: shift.phrase(limit) for shift, limit in known}
        why = "" if measure == STEADY else not_judged
        checks.append(Check(measure, Severity.WARNING, description, measure, values, "limits",
                            maximum=1.0, not_judged=why or ("" if values else without),
                            phrases=phrases))  # fmt: skip
    return tuple(checks)
