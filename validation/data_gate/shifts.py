"""How far a snapshot has shifted from the last accepted one, and how far snapshots usually shift.

A shift is told when it is larger than the recipe's bound, and larger than the accepted snapshots
before it have shifted by themselves. So a head that comes in bursts, or a category that changes
with every campaign, has a wide limit, and a steady one has the recipe's. What is usual is known
only from FEWEST_EARLIER shifts on. Until then a label rate is held against the recipe's bound
where both sides have FEWEST_POSITIVES, and features are not judged.

Not for the shift of single days (`validation.data_gate.days`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import DataGateConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from validation.data_gate.snapshot_profile import (
    SEQUENCE_LENGTH,
    Measures,
    population_stability_index,
    quantile_distance,
)

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
    limit_factor: float  # the recipe's
    has_enough: bool  # of what it was measured on
    is_rate: bool

    @property
    def key(self) -> str:
        """Its name among earlier shifts."""
        return f"{self.measure}/{self.partition}"

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
    bound = math.log1p(config.max_label_rate_change)
    found = list(_rate_shifts(snapshot.features.head_names, now, before, bound))
    for name, counts in sorted(now.histograms.items()):
        if name in before.histograms and len(before.histograms[name]) == len(counts):
            psi = population_stability_index(counts, before.histograms[name])
            largest = config.max_population_stability_index
            found.append(Shift(FEATURE, name, psi, largest, 1.0, has_enough=True, is_rate=False))
    found += _moves(snapshot, now, before)
    return tuple(shift._replace(limit_factor=config.limit_factor) for shift in found)


def _moves(snapshot: Snapshot, now: Measures, before: Measures) -> Iterator[Shift]:
    """Yield how far the quantiles of numbers moved, where both snapshots have some."""
    held = snapshot.features.numeric_held
    ordered = [each.name for each in held if each.meaning.scale not in _UNORDERED]
    for name in (*ordered, SEQUENCE_LENGTH):
        counts, reference = (each.histograms.get(name) for each in (now, before))
        if counts is None or reference is None or len(counts) != len(reference):
            continue
        if counts.any() and reference.any():
            size = quantile_distance(counts, reference)
            yield Shift(MOVE, name, size, LARGEST_MOVE, 1.0, has_enough=True, is_rate=False)


def _rate_shifts(
    heads: Sequence[str], now: Measures, before: Measures, bound: float
) -> Iterator[Shift]:
    for head in heads:
        if head not in now.positives:
            continue
        holdout, training = (
            (int(now.positives[head][split]), int(now.examples[split]))
            for split in (SPLIT_HOLDOUT, SPLIT_TRAINING)
        )
        yield from _rate_shift(STEADY, head, holdout, training, bound)
        if head in before.positives:  # A head that is new has not shifted.
            rates = ((int(m.positives[head].sum()), int(m.examples.sum())) for m in (now, before))
            yield from _rate_shift(RATE, head, next(rates), next(rates), bound)


def _rate_shift(
    measure: str, head: str, now: tuple[int, int], before: tuple[int, int], bound: float
) -> Iterator[Shift]:
    """Yield the shift between two rates, each given as (positives, examples), where there are any.

    Half a positive is added to each, so that a rate that fell to nothing has a size too.
    """
    if now[1] == 0 or before[1] == 0 or now[0] + before[0] == 0:
        return
    size = math.log((now[0] + 0.5) / now[1]) - math.log((before[0] + 0.5) / before[1])
    has_enough = max(now[0], before[0]) >= FEWEST_POSITIVES
    yield Shift(measure, head, size, bound, 1.0, has_enough, is_rate=True)


def kept_shifts(shifts: Sequence[Shift], earlier: Earlier) -> dict[str, list[float]]:
    """Return the sizes that a later snapshot is held against, with those of this one."""
    own = {shift.key: shift.size for shift in shifts}
    return {
        key: [*earlier.get(key, ()), *([own[key]] if key in own else [])][-MOST_EARLIER:]
        for key in sorted({*earlier, *own})
    }


def shift_tables(
    shifts: Sequence[Shift], earlier: Earlier, is_measured: bool
) -> dict[str, pd.DataFrame]:
    """Return, by measure, each judged shift as a multiple of its limit.

    Args:
        shifts: Of the snapshot.
        earlier: Of the accepted snapshots before it.
        is_measured: Whether all of the snapshot was. Where not, a shift is not known: NaN.
    """
    unknown = [] if is_measured else [("snapshot", float("nan"))]
    rows = {measure: list(unknown) for measure in (STEADY, RATE, FEATURE, MOVE)}
    for shift in shifts:
        if (limit := shift.limit(earlier)) is not None:
            rows[shift.measure].append((shift.partition, abs(shift.size) / limit))
    return {
        measure: pd.DataFrame(found, columns=["partition", measure])
        for measure, found in rows.items()
    }


def shift_phrases(shifts: Sequence[Shift], earlier: Earlier) -> dict[tuple[str, str], str]:
    """Return what is said of each judged shift, by (partition, column)."""
    return {
        (shift.partition, shift.measure): shift.phrase(limit)
        for shift in shifts
        if (limit := shift.limit(earlier)) is not None
    }
