"""How far a day, and all judged days together, are from what the days before let expect.

What is usual is the history's median, and the median of the same weekday where there are weeks
enough. A limit is the largest of three: the kind's floor, Z robust standard deviations, and MARGIN
times the largest deviation that the history has had itself. So a number that has never moved has
a narrow limit, and a number that moves by itself a wide one.

    effect     judged value - usual value, on the kind's scale
    day        the effect on one day
    run        the mean effect over all judged days, against means over as many days of the history

Not for what a number is (`kinds`), nor for who is told (`validation.data_gate.log_checks`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipelines.contracts.judged.day_profile import DayProfile, Number
from validation.data_gate.days.kinds import DISTANCE, Kind, kind_of
from validation.data_gate.days.returning import (
    AFTER_DAYS,
    FOLLOWED,
    RETURNING,
    known_ids,
    name_of,
    share_back,
)
from validation.data_gate.days.series import Floats, Ints, Named, all_series, count_matrix
from validation.data_gate.days.telling import shares_told

Level = Literal["day", "run"]

HISTORY_DAYS = 84
"""Only so many days before the judged ones count, because people and products change."""
FEWEST_DAYS = 14
"""With a shorter history nothing is judged."""
WEEKDAY_DAYS = 28
"""From so long a history on, weekdays are told apart."""
FEWEST_DAYS_OF_STATE = 42
"""A state looks back over four weeks, so that at the beginning of a log it only fills up."""
LONGEST_RUN = 14
FEWEST_RUNS = 8
"""With fewer earlier fortnights, however they overlap, nobody knows how many come back."""
Z, MARGIN = 6.0, 1.5
SURE = 1.5
"""A deviation of so many times its limit is no bad luck of a small log, and may stop a cycle."""
RARE = 50.0
"""A volume of fewer rows a day comes in bursts, and its floors are these."""
RARE_DAY_FLOOR, RARE_RUN_FLOOR = 3.0, 1.5
TELLS = ".tells"
FEWEST_OF_A_DAY, FEWEST_OF_A_RUN = 20.0, 100.0
"""Positives that a segment or surface must usually have before its label rate says anything."""


@dataclass(frozen=True)
class Deviation:
    """The largest deviation of one number, on one level."""

    name: str
    level: Level
    kind: Kind
    day: int  # The day, or the first judged one; of ids that come back, their worst run's first.
    found: float  # On the kind's scale.
    usual: float
    limit: float

    @property
    def effect(self) -> float:
        """By how much it deviates, on the kind's scale."""
        return self.found - self.usual

    @property
    def times_limit(self) -> float:
        """The deviation as a multiple of the limit; above 1 it is told."""
        return abs(self.effect) / self.limit

    @property
    def is_harmful(self) -> bool:
        """Whether most likely a model is harmed: over all days it is sure, and large enough."""
        is_sure = self.level == "run" and self.times_limit > SURE
        return is_sure and abs(self.effect) >= self.kind.critical


def deviations(
    history: Sequence[DayProfile], judged: Sequence[DayProfile], limit_factor: float = 1.0
) -> tuple[Deviation, ...]:
    """Return the largest deviation of every number, and of every count, on both levels.

    Args:
        history: Earlier days, by day.
        judged: The days that are judged, by day, none of them in the history.
        limit_factor: All limits are so many times as wide.

    Returns:
        Nothing where the history has fewer than FEWEST_DAYS days.
    """
    if not judged:
        return ()
    history = [day for day in history if day.day >= judged[0].day - HISTORY_DAYS]
    found: list[Deviation] = []
    for named in all_series(history, judged):
        if len(named.history.days) >= _fewest_days(named.name) and len(named.judged.days):
            found += _of_series(named)
    names = {name for day in history for name in day.counts}
    for name in sorted(names):
        if len(history) >= _fewest_days(name):
            found += _of_counts(name, history, judged)
    for name in sorted({name for day in judged for name in day.acted_upon}):
        found += _of_told(name, history, judged)
    found += [each for what in FOLLOWED for each in _of_ids(what, history, judged)]
    return tuple(replace(each, limit=each.limit * limit_factor) for each in found)


def _of_ids(
    followed: str, history: Sequence[DayProfile], judged: Sequence[DayProfile]
) -> list[Deviation]:
    """Return the lowest share of the users or pins of four weeks that come back in the next two.

    That more come back than before does no harm, and is not told.
    """
    ids = known_ids((*history, *judged), followed)
    num_days = _run_length(len(history), min(len(judged), AFTER_DAYS))
    first, end = judged[0].day, judged[-1].day + 1

    def shares(start: int, stop: int) -> list[tuple[float, int, int]]:
        found = ((share_back(ids, day, num_days), day) for day in range(start, stop))
        return [(*share, day) for share, day in found if share is not None]

    usual = shares(history[0].day, first - num_days + 1) if history else []
    now = shares(first, end - num_days + 1)
    if len(usual) < FEWEST_RUNS or not now:
        return []
    values = np.array([share for share, _, _ in usual])
    middle = float(np.median(values))
    share, num, day = min(now)
    noise = RETURNING.noise(Number(value=middle, num=num))
    limit = max(
        RETURNING.run_floor * _short_history(len(history)),
        MARGIN * float(np.abs(values - middle).max()),
        Z * max(_robust(values - middle), noise),
    )
    found = min(share, middle)
    return [Deviation(name_of(followed), "run", RETURNING, day, found, middle, limit)]


def _of_told(
    name: str, history: Sequence[DayProfile], judged: Sequence[DayProfile]
) -> list[Deviation]:
    """Return by how much more a category tells of the label than it did; less does no harm."""
    history = [day for day in history if name in day.acted_upon]
    length = _run_length(len(history), len(judged))
    if len(history) < length + FEWEST_RUNS - 1:
        return []
    usual, kind = shares_told(name, history, length), kind_of(TELLS)
    middle, found = float(np.median(usual)), float(shares_told(name, judged, len(judged))[0])
    limit = max(
        kind.run_floor * _short_history(len(history)),
        MARGIN * float(np.abs(usual - middle).max()),
        Z * _robust(usual - middle),
    )
    day = judged[0].day
    return [Deviation(f"{name}{TELLS}", "run", kind, day, max(found, middle), middle, limit)]


def _fewest_days(name: str) -> int:
    return FEWEST_DAYS_OF_STATE if name.startswith("users.state") else FEWEST_DAYS


def _of_series(named: Named) -> list[Deviation]:
    kind, before, now = named.kind, named.history, named.judged
    usual_before, usual = _usual(before.days, before.values, now.days)
    residuals, effects = before.values - usual_before, now.values - usual
    floors = _floors(named)
    scale = np.maximum(_robust(residuals), now.noise)
    limits = np.maximum(max(floors[0], MARGIN * np.abs(residuals).max()), Z * scale)
    worst = int(np.argmax(np.abs(effects) / limits))
    of_day = Deviation(
        named.name, "day", kind, int(now.days[worst]),
        float(now.values[worst]), float(usual[worst]), float(limits[worst]),
    )  # fmt: skip
    is_told_of_day, is_told_of_run = _has_enough(named)
    means = _running_means(residuals, _run_length(len(before.days), len(now.days)))
    noise = float(np.median(now.noise)) / np.sqrt(len(now.days))
    limit = max(
        floors[1],
        MARGIN * float(np.abs(means).max()),
        Z * max(_robust(means - np.median(means)), noise),
    )
    mean, mean_usual = float(now.values.mean()), float(usual.mean())
    of_run = Deviation(named.name, "run", kind, int(now.days[0]), mean, mean_usual, limit)
    return [of_day] * is_told_of_day + [of_run] * is_told_of_run


def _has_enough(named: Named) -> tuple[bool, bool]:
    """Return whether a number may be judged by the day, and over all days: rates need positives."""
    if named.name.endswith(TELLS):
        return True, False  # Over all days it is counted together: see `_of_told`.
    if named.kind.scale != "rate":
        return True, True
    of_a_day = _typical(named)
    of_a_run = of_a_day * len(named.judged.days)
    return of_a_day >= FEWEST_OF_A_DAY, of_a_run >= FEWEST_OF_A_RUN


def _of_counts(
    name: str, history: Sequence[DayProfile], judged: Sequence[DayProfile]
) -> list[Deviation]:
    """Return how far the judged days' shares by hour or category lie from the history's."""
    keys = sorted({key for day in (*history, *judged) for key in day.counts.get(name, {})})
    before, now = (count_matrix(name, days, keys) for days in (history, judged))
    days = np.array([day.day for day in judged])
    before, days, now = before[before.any(axis=1)], days[now.any(axis=1)], now[now.any(axis=1)]
    if len(before) < FEWEST_DAYS or len(now) == 0:
        return []
    usual = before.sum(axis=0)
    times = _short_history(len(before))
    own, distances = jensen_shannon(before, usual), jensen_shannon(now, usual)
    limit = max(times * DISTANCE.day_floor, MARGIN * float(own.max()))
    worst = int(np.argmax(distances))
    of_day = Deviation(name, "day", DISTANCE, int(days[worst]), float(distances[worst]), 0.0, limit)
    length = _run_length(len(before), len(now))
    sums = np.cumsum(np.vstack([np.zeros(len(keys)), before]), axis=0)
    own = jensen_shannon(sums[length:] - sums[:-length], usual)
    limit = max(times * DISTANCE.run_floor, MARGIN * float(own.max()))
    whole = float(jensen_shannon(now.sum(axis=0)[None], usual)[0])
    return [of_day, Deviation(name, "run", DISTANCE, int(days[0]), whole, 0.0, limit)]


def jensen_shannon(counts: Floats, usual: Floats) -> Floats:
    """Return the Jensen-Shannon distance of each row of counts from the usual counts, in [0, 1].

    It is the square root of the divergence in bits (Endres and Schindelin, 2003).

    Args:
        counts: [rows, keys], no row all zero.
        usual: [keys], not all zero.
    """
    p = counts / counts.sum(axis=1, keepdims=True)
    q = np.broadcast_to(usual / usual.sum(), p.shape)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.sqrt(np.clip(divergence, 0.0, 1.0))


def _relative_entropy(p: Floats, middle: Floats) -> Floats:
    ratio = np.divide(p, middle, out=np.ones_like(middle), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=1))


def _usual(days: Ints, values: Floats, wanted: Ints) -> tuple[Floats, Floats]:
    """Return what is usual on the days of the history and on other days."""
    level = float(np.median(values))
    extra = np.zeros(7)
    if len(days) >= WEEKDAY_DAYS:
        for weekday in range(7):
            of_weekday = values[days % 7 == weekday]
            if len(of_weekday) >= 3:
                extra[weekday] = np.median(of_weekday) - level
    return level + extra[days % 7], level + extra[wanted % 7]


def _robust(residuals: Floats) -> float:
    """Return the standard deviation that normal residuals of the same median would have."""
    return 1.4826 * float(np.median(np.abs(residuals)))


def _run_length(num_before: int, num_judged: int) -> int:
    """Return over how many days of the history a mean is taken, so that there are several."""
    return min(num_judged, LONGEST_RUN, max(3, num_before // 2))


def _running_means(values: Floats, length: int) -> Floats:
    return np.convolve(values, np.ones(length) / length, "valid")


def _floors(named: Named) -> tuple[float, float]:
    """Return the floors of a day and of a run; with a short history they are higher."""
    day, run = named.kind.day_floor, named.kind.run_floor
    is_volume = named.name.endswith((".rows", ".per_request", ".per_user", ".label_rate"))
    if is_volume and _typical(named) < RARE:
        day, run = RARE_DAY_FLOOR, RARE_RUN_FLOOR
    times = _short_history(len(named.history.days))
    return day * times, run * times


def _typical(named: Named) -> float:
    """Return how many rows, or positives, a day of the history has; its noise says so."""
    return 1.0 / float(np.median(named.history.noise)) ** 2


def _short_history(num_days: int) -> float:
    """Return by what floors are multiplied: 2 after the fewest days, 1.17 after twelve weeks."""
    return 1.0 + FEWEST_DAYS / num_days
