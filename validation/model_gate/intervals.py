"""How sure a difference between two models on the same rows is: users vary, and so do days.

A metric is a ratio of sums over requests, such as hits per request or loss per example. Its
estimate moves by an *influence* of each request (the delta method; Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 21), and the influences of both models are taken
together, so that what the two share cancels. Requests of one user are not independent, nor are
those of one day, whose weather everybody shares. The variance is therefore clustered both ways:
that of the sums by user, plus that of the sums by day, minus that of the sums by user and day,
which both of the others count (Cameron, Gelbach and Miller, Robust Inference With Multiway
Clustering, Journal of Business & Economic Statistics 29(2), 2011). Where days add nothing, the
difference of the last two is noise, and what is below zero counts as zero.

A variance that few users or few days make is known badly, and an interval by the normal
distribution is then too narrow. The quantile is that of Student's distribution. Each part's degrees
of freedom are one less than the number of days, or than the *effective* number of users,
(sum q)^2 / sum q^2 of the squared influences q, which heavy users lower; the sum's degrees are
Satterthwaite's (An Approximate Distribution of Estimates of Variance Components, Biometrics 2(6),
1946). docs/statistics.md has the coverage that this was chosen by.

Users are counted in groups. A user's group is a hash of the user's id, so there are at most
`MAX_GROUPS`, however many users there are. Grouping at random changes no expectation, because users
are independent. The same user falls into the same group in every cycle, so that cycles can be
pooled. Not for deciding (`validation.model_gate.verdict`).

Letters: M requests, G groups of users, C cells, which are a group on a day.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.hashing import mix
from pipelines.contracts.reasons import Interval

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

POWER = 0.8
MAX_GROUPS = 16_384
_GROUP_SALT = 907
_TWO_SIDED = 0.975
_NORMAL = NormalDist()


def user_groups(user_id: NDArray[np.int64]) -> tuple[IntArray, IntArray]:
    """Return the numbers of the groups that the users fall into, and each row's place among them.

    Groups without a user are left out, so that few users are groups of one, bar collisions. A
    user's group has the same number in every holdout.
    """
    numbers = (mix(user_id, _GROUP_SALT) % MAX_GROUPS).astype(np.intp)
    groups, place = np.unique(numbers, return_inverse=True)
    return groups, place


@dataclass(frozen=True)
class Cells:
    """Which group of users made each request, and on which day."""

    of_request: IntArray  # (M,) each request's cell
    group: IntArray  # (C,) each cell's group, from 0 on
    day: IntArray  # (C,) each cell's day, from 0 on
    num_groups: int
    num_days: int  # that have a request

    @classmethod
    def of(cls, group: IntArray, day: NDArray[np.integer]) -> Self:
        """Return the cells of requests (M,), of these groups and days."""
        days, place = np.unique(day, return_inverse=True)
        num_groups, num_days = int(group.max(initial=-1)) + 1, len(days)
        keys, of_request = np.unique(group * num_days + place, return_inverse=True)
        return cls(of_request, keys // num_days, keys % num_days, num_groups, num_days)

    def sums(self, values: FloatArray, mask: NDArray[np.bool_] | None = None) -> FloatArray:
        """Return the sums of values of requests (M,) in each cell, (C,); of those in the mask."""
        chosen = slice(None) if mask is None else mask
        weights = np.asarray(values, dtype=np.float64)[chosen]
        summed = np.bincount(self.of_request[chosen], weights, len(self.group))
        return summed.astype(np.float64)

    def by_group(self, values: FloatArray) -> FloatArray:
        """Return the sums over days of values of cells (C,), (G,)."""
        return np.bincount(self.group, values, self.num_groups).astype(np.float64)


class Part(NamedTuple):
    """A part of a variance, and how well it is known: its degrees of freedom."""

    variance: float
    freedom: float

    def scaled(self, weight: float) -> "Part":
        """Return the variance of a part that counts with this weight."""
        return Part(self.variance * weight**2, self.freedom)


NOTHING = Part(0.0, 1.0)


def total(parts: Iterable[Part]) -> Part:
    """Return the sum of independent parts, with Satterthwaite's degrees of freedom."""
    some = [part for part in parts if part.variance > 0]
    variance = math.fsum(part.variance for part in some)
    if not some or math.isinf(variance):
        return Part(variance, math.inf)
    noise = math.fsum(part.variance**2 / part.freedom for part in some)
    return Part(variance, variance**2 / noise if noise else math.inf)


def reach(part: Part, confidence: float) -> float:
    """Return half the width of the interval at a confidence; inf where one unit is all there is."""
    from scipy.stats import t

    if part.variance == 0 or math.isinf(part.variance):
        return part.variance
    return math.sqrt(part.variance) * float(t.ppf((1 + confidence) / 2, max(part.freedom, 1.0)))


def error_of(parts: Iterable[Part]) -> float:
    """Return the standard error with which 1.96 of it reach as far as the 95 % interval."""
    return reach(total(parts), 2 * _TWO_SIDED - 1) / _NORMAL.inv_cdf(_TWO_SIDED)


def user_part(influences: FloatArray) -> Part:
    """Return what users add: influences by group (G,); one group alone tells nothing: inf."""
    squares = np.square(influences)
    num = int(np.count_nonzero(squares))
    if num == 0:
        return NOTHING
    if num == 1:
        return Part(math.inf, math.inf)
    summed = float(squares.sum())
    effective = summed**2 / float(np.square(squares).sum())
    return Part(summed * num / (num - 1), max(effective - 1, 1.0))


def day_part(influences: FloatArray, cells: Cells) -> Part:
    """Return what days add that users share, from influences by cell (C,); 0 of one day alone."""
    if cells.num_days < 2:
        return NOTHING
    squares = np.square(np.bincount(cells.day, influences, cells.num_days))
    by_day = float(squares.sum()) * cells.num_days / (cells.num_days - 1)
    added = by_day - float(np.square(influences).sum())
    if added <= 0:
        return NOTHING
    # What is known as badly as the days' whole variance is the part of it that is left.
    return Part(added, (cells.num_days - 1) * (added / by_day) ** 2)


@dataclass(frozen=True)
class Measured:
    """A number with its influences and the parts of its variance."""

    value: float
    influences: FloatArray  # (C,)
    users: Part
    days: Part

    @classmethod
    def of(cls, value: float, influences: FloatArray, cells: Cells) -> Self:
        """Return the number whose influences by cell these are."""
        users = user_part(cells.by_group(influences))
        return cls(value, influences, users, day_part(influences, cells))

    @property
    def error(self) -> float:
        """The standard error, as `error_of` has it."""
        return error_of((self.users, self.days))

    @property
    def day_share(self) -> float:
        """How much of the variance is the days'."""
        whole = self.users.variance + self.days.variance
        return self.days.variance / whole if whole else 0.0

    @property
    def effective_users(self) -> float:
        """How many equally active users would make it as uncertain as these do."""
        return self.users.freedom + 1

    def interval(self, confidence: float, lowest: float = -math.inf) -> Interval | None:
        """Return the interval; None where one user is all there is.

        Args:
            confidence: e.g. 0.95.
            lowest: what the number cannot fall below: 0 of a level, -1 of a relative change.
        """
        half = reach(total((self.users, self.days)), confidence)
        if not math.isfinite(half):
            return None
        low = max(self.value - half, min(lowest, self.value))
        return Interval(value=self.value, low=low, high=self.value + half, confidence=confidence)


def ratio_estimate(numerator: FloatArray, denominator: FloatArray, cells: Cells) -> Measured | None:
    """Return sum(numerator) / sum(denominator), of cells (C,); None where it does not exist."""
    whole, part = float(denominator.sum()), float(numerator.sum())
    if whole == 0 or not math.isfinite(whole) or not math.isfinite(part):
        return None
    ratio = part / whole
    return Measured.of(ratio, (numerator - ratio * denominator) / whole, cells)


def change_estimate(challenger: FloatArray, baseline: FloatArray, cells: Cells) -> Measured | None:
    """Return (challenger - baseline) / baseline of sums over cells (C,); None at a baseline of 0.

    Identical sides give exactly zero, with no rounding on the way.
    """
    return ratio_estimate(challenger - baseline, baseline, cells)


def smallest_detectable_change(relative_standard_error: float, confidence: float) -> float:
    """Return the true relative change that a test at this confidence finds 80 times in 100.

    It is `(z_{1-a/2} + z_{0.8}) * se` with a = 1 - confidence (Bloom, Minimum detectable effects,
    Evaluation Review 19(5), 1995), which is 2.80 standard errors at 95 %. Where the holdout cannot
    show a change of the size that matters, finding no difference says nothing.
    """
    multiplier = _NORMAL.inv_cdf(1 - (1 - confidence) / 2) + _NORMAL.inv_cdf(POWER)
    return multiplier * relative_standard_error
