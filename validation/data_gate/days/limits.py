"""How far a day, and all judged days together, are from what the days before let expect.

What is usual is the history's median, and the median of the same weekday where there are weeks
enough. A limit is the largest of three: the kind's floor, Z robust standard deviations, and MARGIN
times the largest deviation that the history has had itself. So a number that has never moved has
a narrow limit, and a number that moves by itself a wide one.

    effect     judged value - usual value, on the kind's scale
    day        the effect on one day
    run        the mean effect over all judged days, against means over as many days of the history

Counts by hour and by category give numbers too: the hour about which a day's events lie, and the
share of each day that has no value, or one that was never seen before. How much a category tells of
which rows were acted upon is counted over many days together, because of a single day a few
positives say little.

Whether users and pins of the weeks before come back is judged by the few that are followed. Volumes
move by themselves, and a fifth of all users can be lost in what a volume may move; who was there in
the last four weeks and is there again in the next two moves little, so a loss shows there. A day's
profile has the smallest hashes of its users and of its pins. Hashes up to the smallest of the
largest ones, of the days that have more than are kept, are known of every day. So sets of several
days can be compared: they are a sample of all ids, the same one on every day (Beyer et al., SIGMOD
2007).

Not for what a number is (`kinds`), nor for who is told (`gate`). Tested in
tests/validation/data_gate/days/test_limits.py.
"""

import cmath
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.contracts.day_profile import DayProfile, Number
from validation.data_gate.days.kinds import DISTANCE, Kind, kind_of
from validation.data_gate.days.queries import NUM_FOLLOWED

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NULL = "(null)"
_HOURS, _CENTRE = ".hour", ".centre"
FEWEST_ABOUT_AN_HOUR = 10
"""So many events have to lie about an hour before a day has one, see `_centre`."""


class Series(NamedTuple):
    """One number on some days, on the scale on which it is judged."""

    days: Ints  # Days since the epoch, ascending.
    values: Floats
    noise: Floats  # What chance alone gives, as a standard deviation.


class Named(NamedTuple):
    """A number's name and kind, its history, and what is judged."""

    name: str
    kind: Kind
    history: Series
    judged: Series


def all_series(history: Sequence[DayProfile], judged: Sequence[DayProfile]) -> Iterator[Named]:
    """Yield every number that some day of the history has, with both series."""
    seen = _values_seen(history)
    before = [_numbers(day, seen) for day in history]
    now = [_numbers(day, seen) for day in judged]
    for name in sorted({name for numbers in before for name in numbers}):
        kind = kind_of(name)
        series = [_series(name, kind, history, before), _series(name, kind, judged, now)]
        if name.endswith(_CENTRE):
            series = _unwound(*series)
        yield Named(name, kind, *series)


def count_matrix(name: str, days: Sequence[DayProfile], keys: Sequence[str]) -> Floats:
    """Return the [days, keys] counts of one name; zeros where a day has none."""
    rows = [[day.counts.get(name, {}).get(key, 0) for key in keys] for day in days]
    return np.array(rows, dtype=np.float64).reshape(len(days), len(keys))


def _numbers(day: DayProfile, seen: dict[str, set[str]]) -> dict[str, Number]:
    """Return a day's numbers, and those that its counts give."""
    found = dict(day.numbers)
    for name, counts in day.counts.items():
        total = sum(counts.values())
        if name.endswith(_HOURS):
            if (centre := _centre(counts)).num >= FEWEST_ABOUT_AN_HOUR:
                found[f"{name}{_CENTRE}"] = centre
        elif total:
            new = sum(num for key, num in counts.items() if key not in seen.get(name, ()))
            found[f"{name}.never_seen"] = Number(value=new / total, num=total)
            found[f"{name}.null"] = Number(value=counts.get(_NULL, 0) / total, num=total)
    return found


def _unwound(history: Series, judged: Series) -> list[Series]:
    """Return series of hours without the jump at midnight: all within 12 hours of the history."""
    if len(history.days) == 0:
        return [history, judged]
    turns = np.exp(2j * np.pi * history.values / 24)
    middle = float(np.angle(turns.mean())) * 24 / (2 * np.pi)
    return [
        each._replace(values=(each.values - middle + 12) % 24 + middle - 12)
        for each in (history, judged)
    ]


def _values_seen(history: Sequence[DayProfile]) -> dict[str, set[str]]:
    seen: dict[str, set[str]] = {}
    for day in history:
        for name, counts in day.counts.items():
            seen.setdefault(name, set()).update(counts)
    return seen


def _centre(counts: dict[str, int]) -> Number:
    """Return the direction, in hours, of the mean of the events' times on the clock's circle.

    Where events are spread evenly over the day, the direction says nothing. So the number stands
    with as many events as would fix it as well if all of them lay about it: the square of the mean
    resultant length times the events (Mardia and Jupp, Directional Statistics, 2000).
    """
    total = sum(
        num * cmath.exp(2j * math.pi * (int(hour) + 0.5) / 24) for hour, num in counts.items()
    )
    num_events = sum(counts.values())
    if num_events == 0 or total == 0:
        return Number(value=0.0, num=0)
    hour = cmath.phase(total) * 24 / (2 * math.pi) % 24
    return Number(value=hour, num=int(abs(total) ** 2 / num_events))


def _series(
    name: str, kind: Kind, days: Sequence[DayProfile], numbers: Sequence[dict[str, Number]]
) -> Series:
    """Return one number's series. No rows of a kind are a number too: 0 of them."""
    none = Number(value=0.0, num=0)
    is_count = name.endswith(".rows")
    found = [
        (day.day, of_day[name] if name in of_day else none)
        for day, of_day in zip(days, numbers, strict=True)
        if name in of_day or is_count
    ]
    return Series(
        np.array([day for day, _ in found], dtype=np.int64),
        np.array([kind.judged(number) for _, number in found], dtype=np.float64),
        np.array([kind.noise(number) for _, number in found], dtype=np.float64),
    )


def shares_told(name: str, days: Sequence[DayProfile], length: int) -> Floats:
    """Return what a category tells in each run of so many days, one after another.

    Args:
        name: The category's counts, as `impressions.surface`.
        days: By day, at least `length` of them.
        length: Days of a run.

    Returns:
        Eta squared of each run, [len(days) - length + 1]; see `eta_squared`.
    """
    keys = sorted({key for day in days for key in day.counts.get(name, {})})
    rows = count_matrix(name, days, keys)
    hits = np.array(
        [[day.acted_upon.get(name, {}).get(key, 0) for key in keys] for day in days],
        dtype=np.float64,
    ).reshape(rows.shape)
    runs = zip(_sums(rows, length), _sums(hits, length), strict=True)
    return np.array([eta_squared(of_rows, of_hits) for of_rows, of_hits in runs])


def eta_squared(rows: Floats, hits: Floats) -> float:
    """Return the share of the variance of "was acted upon" that a category's values explain.

    What chance alone explains, (values - 1) / rows, is taken off; it is 0 where nothing or
    everything was acted upon.

    Args:
        rows: [values] Rows of each value.
        hits: [values] Those of them that were acted upon.
    """
    rows, hits = rows[rows > 0], hits[rows > 0]
    num, rate = rows.sum(), hits.sum() / max(1.0, rows.sum())
    if not 0 < rate < 1:
        return 0.0
    between = (rows * (hits / rows - rate) ** 2).sum() / (num * rate * (1 - rate))
    return max(0.0, float(between - (len(rows) - 1) / num))


def _sums(counts: Floats, length: int) -> Floats:
    """Return the sums over each run of rows, [rows - length + 1, columns]."""
    sums = np.cumsum(np.vstack([np.zeros(counts.shape[1]), counts]), axis=0)
    return np.asarray(sums[length:] - sums[:-length])


BEFORE_DAYS, AFTER_DAYS = 28, 14
"""Ids of so many days are looked for in so many days after them."""
FEWEST_IDS = 50
MOST_MISSING = 1
"""A closed day is told by itself; with more of them too few come back for want of days."""
RETURNING = Kind("share", day_floor=math.inf, run_floor=0.06, critical=0.3)
FOLLOWED = ("users", "pins")


def name_of(followed: str) -> str:
    """Return the name of the share of followed ids that come back."""
    return f"impressions.{followed}_come_back"


def known_ids(days: Sequence[DayProfile], followed: str) -> dict[int, frozenset[int]]:
    """Return the ids of each day that would be known of every day if they had been there."""
    of_days = {day.day: day.followed[followed] for day in days if day.followed.get(followed)}
    if not of_days:
        return {}
    # A day of fewer ids has all of its ids there, and bounds nothing.
    full = [ids[-1] for ids in of_days.values() if len(ids) >= NUM_FOLLOWED]
    largest = min(full, default=math.inf)
    return {day: frozenset(each for each in ids if each <= largest) for day, ids in of_days.items()}


def share_back(
    ids: Mapping[int, frozenset[int]], first: int, num_days: int
) -> tuple[float, int] | None:
    """Return which share of the ids of the weeks before a day come back, and of how many.

    Args:
        ids: By day, since the epoch.
        first: The first day on which they are looked for.
        num_days: How many days they are looked for.

    Returns:
        None where too few days or ids are known.
    """
    before = [ids[day] for day in range(first - BEFORE_DAYS, first) if day in ids]
    after = [ids[day] for day in range(first, first + num_days) if day in ids]
    wanted = frozenset().union(*before)
    is_enough = 2 * len(before) >= BEFORE_DAYS and len(after) >= num_days - MOST_MISSING
    if not is_enough or len(wanted) < FEWEST_IDS:
        return None
    return len(wanted & frozenset().union(*after)) / len(wanted), len(wanted)


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
