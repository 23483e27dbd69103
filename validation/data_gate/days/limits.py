"""How far a day, and all judged days together, are from what the days before let expect.

What is usual is the median of the history's last four weeks, and what the same weekday usually has
more or less, where there are weeks enough. A limit is the largest of three: the kind's floor, Z
robust standard deviations, and MARGIN times the largest deviation that the history has had itself
from the weeks around it (`_steps`). So a number that has never moved has a narrow limit, and a
number that moves or grows by itself a wide one. A change that is smaller than the
floor is never told, however sure it is: a gate that cries over what does no harm is not read.

    effect     judged value - usual value, on the kind's scale
    day        the effect on one day
    run        the mean effect over all judged days, against means over as many days of the history

    scale      a number v is judged as            an effect of e means
    relative   ln v                               a factor of exp(e); 0.69 is twice as much
    share      v                                  e of 1
    rate       ln of v with half a positive more  a factor of exp(e)
    seconds    sign(v) ln(1 + |v|)                from 1 s on, about a factor of exp(e)
    amount     v                                  e, in the number's own unit

Counts by hour and by category give numbers too: the hour about which a day's events lie, and the
share of each day that has no value, or one that was never seen before. How much otherwise than
before a category tells of which rows were acted upon is counted over many days together, because of
a single day a few positives say little.

Whether users and pins of the weeks before come back is judged by the few that are followed. Volumes
move by themselves, and a fifth of all users can be lost in what a volume may move; who was there in
the last four weeks and is there again in the next two moves little, so a loss shows there. A day's
profile has the smallest hashes of its users and of its pins. Hashes up to the smallest of the
largest ones, of the days that have more than are kept, are known of every day. So sets of several
days can be compared: they are a sample of all ids, the same one on every day (Beyer et al., SIGMOD
2007).

Not for who is told (`gate`). Tested in tests/validation/data_gate/days/test_limits.py.
"""

import cmath
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from pipelines.contracts.day_profile import DayProfile, Number
from validation.data_gate.days.moments import PAIR, PREFIX, is_judged, range_of
from validation.data_gate.days.queries import NUM_FOLLOWED

Floats = npt.NDArray[np.float64]
Scale = Literal["relative", "share", "rate", "seconds", "amount"]
Level = Literal["day", "run"]

HISTORY_DAYS = 84
"""Only so many days before the judged ones count, because people and products change."""
FEWEST_DAYS = 14
"""With a shorter history nothing is judged."""
WEEKDAY_DAYS = 28
"""From so long a history on, weekdays are told apart."""
FEWEST_DAYS_OF_STATE = 49
"""A state looks back over four weeks, so that at the beginning of a log it only fills up. What rows
give together moves with it, and hundreds of numbers need weeks of their own."""
RECENT_DAYS = 28
"""So many of the history's last days say what is usual now, where it has twice as many."""
LONGEST_RUN = 14
FEWEST_RUNS = 8
"""With fewer earlier fortnights, however they overlap, nobody knows how many come back."""
OF_ALL = 200.0
"""Usual rows that each value of a category has besides its own; see `told_otherwise`."""
Z, MARGIN = 6.0, 1.5
SURE = 1.5
"""A deviation of so many times its limit is no bad luck of a small log, and may stop a cycle."""
RARE, RARE_FLOORS = 50.0, (3.0, 1.5)
"""A volume of fewer rows a day comes in bursts, and its floors are these."""
FEWEST_ABOUT_AN_HOUR = 10
"""So many events have to lie about an hour before a day has one, see `_centre`."""
BEFORE_DAYS, AFTER_DAYS = 28, 14
"""Ids of so many days are looked for in so many days after them."""
FEWEST_IDS = 50
DRAWN_DAYS = 28
"""So many days before the judged ones are drawn beside what is told."""
KIND_AND_STATE = "actions.kind_and_state"
"""Counts of actions by type and by the user's state: who does what."""
LEAST_SHARE = 0.02
"""Of the history's rows: values that are rarer are not judged by themselves."""
LEAST_DEVIATION = 0.001
"""Of the rows of a quantity, in which its mean is judged."""
MOST_MISSING = 1
"""A closed day is told by itself; with more of them too few come back for want of days."""


@dataclass(frozen=True)
class Kind:
    """How a number is judged: its scale, and how much of a change matters."""

    scale: Scale
    day_floor: float  # Effects on one day below it are never told.
    run_floor: float  # The same, of the mean effect over all judged days.
    critical: float  # A mean effect from which on a model is at risk; infinite where none is.
    offset: float = 1e-9  # Is added to a number before its logarithm is taken.
    spread: float = 1.0  # Standard deviation of the judged value for one row; see `noise`.
    within: tuple[float, float] = (-math.inf, math.inf)  # What the number itself can be.

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the number itself, in its own unit."""
        ranges = {"share": (0.0, 1.0), "rate": (0.0, 1.0), "relative": (0.0, math.inf)}
        return ranges.get(self.scale, self.within)

    def judged(self, number: Number) -> float:
        """Return the number on the scale on which it is judged."""
        value = number.value
        match self.scale:
            case "relative":
                return math.log(max(value, 0.0) + self.offset)
            case "rate":
                return math.log((value * number.num + 0.5) / max(number.num, 1))
            case "seconds":
                return math.copysign(math.log1p(abs(value)), value)
        return value

    def noise(self, number: Number) -> float:
        """Return the standard deviation that chance alone gives to the judged value."""
        num = max(number.num, 1)
        if self.scale == "share":
            share = min(max(number.value, 0.0), 1.0)
            # One row more is added, so that a share of 0 or 1 of few rows is not taken for sure.
            return math.sqrt(share * (1 - share) / num + 1 / num**2)
        if self.scale == "rate":
            return 1 / math.sqrt(number.value * number.num + 0.5)
        return self.spread / math.sqrt(num)

    def natural(self, judged: float) -> float:
        """Return the number that has a judged value."""
        match self.scale:
            case "relative":
                return math.exp(judged) - self.offset
            case "rate":
                return math.exp(judged)
            case "seconds":
                return math.copysign(math.expm1(abs(judged)), judged)
        return judged


_VOLUME = Kind("relative", day_floor=0.6, run_floor=0.18, critical=0.9, offset=0.5)
_RATIO = Kind("relative", day_floor=0.5, run_floor=0.15, critical=0.7)
_MEAN = Kind("relative", day_floor=0.15, run_floor=0.05, critical=0.4, spread=0.5)
_CONCENTRATION = Kind("relative", day_floor=1.0, run_floor=0.5, critical=2.0, spread=0.5)
_SHARE = Kind("share", day_floor=0.05, run_floor=0.02, critical=0.1)
_RARE = Kind("share", day_floor=0.005, run_floor=0.002, critical=0.05)
_SECONDS = Kind(
    "seconds", day_floor=1.0, run_floor=0.5, critical=2.0, spread=2.0, within=(0.0, math.inf)
)
RETURNING = Kind("share", day_floor=math.inf, run_floor=0.06, critical=0.3)
HOURS_FLOOR = 0.25
"""One hour more or less, as when clocks are changed, is below it (see `centre`)."""
TOGETHER, MOST_DAYS = 1.2, (0.02, 0.98)
MOMENT = Kind("amount", day_floor=math.inf, run_floor=0.03, critical=math.inf)
DEVIATION = Kind("relative", math.inf, run_floor=0.08, critical=math.inf, offset=0.01)
CORRELATION = Kind(
    "amount", day_floor=math.inf, run_floor=0.06, critical=math.inf, within=(-1.0, 1.0)
)
"""Of quantities of rows, which are shares, logarithms and cosines (`moments`)."""
NEWCOMERS = Kind("rate", day_floor=math.inf, run_floor=0.3, critical=math.inf)
DISTANCE = Kind("amount", day_floor=0.6, run_floor=0.3, critical=0.6, spread=1.0)
"""Of counts by hour or category: the Jensen-Shannon distance from what is usual, in [0, 1]."""

_KINDS = {
    **dict.fromkeys(("rows", "requests", "users"), _VOLUME),
    **dict.fromkeys(("per_request", "per_user", "mean_propensity"), _RATIO),
    **dict.fromkeys(
        ("requests_per_user", "pins_per_request", "places_used", "embedding_length"), _MEAN
    ),
    **dict.fromkeys(("busiest_user", "busiest_pin"), _CONCENTRATION),
    **dict.fromkeys(
        ("pin_repeated", "place_repeated", "acted_upon_before", "shown_before", "early",
         "zero_embedding", "embedding_repeated"), _RARE
    ),
    "different_pins": Kind("relative", day_floor=0.4, run_floor=0.1, critical=0.7),
    "mean_position": Kind("relative", day_floor=0.1, run_floor=0.05, critical=0.4),
    "centre": Kind("amount", day_floor=2.0, run_floor=1.3, critical=3.0, spread=4.0),  # hours
    "never_seen": Kind("share", day_floor=0.15, run_floor=0.08, critical=0.3),
    # A model that leans on a category which tells of the label has nothing to lean on where it
    # serves, so whatever is sure is critical. In eight weeks of autumn the sample's mailers come to
    # tell otherwise by 0.021 of the variance, and nothing is wrong with them.
    "tells": Kind("amount", day_floor=0.1, run_floor=0.012, critical=0.012, within=(0.0, 1.0)),
    "of_all": Kind("rate", day_floor=math.inf, run_floor=0.2, critical=math.inf),
    "by_weekday": Kind("amount", math.inf, run_floor=0.5, critical=math.inf),
    "row_age_days": Kind(
        "amount", day_floor=3.0, run_floor=2.0, critical=14.0, within=(0.0, math.inf)
    ),
    # Users whose past grows come nearer to each other, month after month, and that harms nobody.
    "spread": Kind(
        "amount", day_floor=0.15, run_floor=0.08, critical=0.3, spread=0.5, within=(0.0, 1.0)
    ),
    "like_themselves": Kind(
        "amount", day_floor=0.15, run_floor=0.06, critical=0.3, spread=0.5, within=(-1.0, 1.0)
    ),
}  # fmt: skip


def kind_of(name: str) -> Kind:
    """Return the kind of a number; what has none of its own is a share or a time."""
    last = name.rpartition(".")[2]
    if name.startswith(PREFIX):
        is_of_hours = PAIR not in name and ".hour_" in name
        found = CORRELATION if PAIR in name else DEVIATION if last == "deviation" else MOMENT
        if found is MOMENT:
            quantity = name.removesuffix(".mean").split(".", 2)[-1]
            found = replace(found, within=range_of(quantity))
        return replace(found, run_floor=HOURS_FLOOR) if is_of_hours else found
    return _KINDS.get(last, _SECONDS if last.endswith("_s") else _SHARE)


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
    unit: float = 1.0  # What 1 on the scale is of the number itself.
    series: tuple[float, ...] = ()  # The days before and the judged ones, on the kind's scale.
    days: tuple[int, ...] = ()  # Those of the series, since the epoch.
    num_judged: int = 0  # How many of the series are judged.

    @property
    def effect(self) -> float:
        """By how much it deviates, on the kind's scale."""
        return self.found - self.usual

    @property
    def times_limit(self) -> float:
        """The deviation as a multiple of the limit; above 1 it is told."""
        return abs(self.effect) / self.limit

    @property
    def risk(self) -> float:
        """How far it is on its way to what harms a model; 0 where it is not sure over all days."""
        is_sure = self.level == "run" and self.times_limit > SURE
        return abs(self.effect) / self.kind.critical if is_sure else 0.0


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
    seen: dict[str, Counter[str]] = {}
    for day in history:
        for name, counts in day.counts.items():
            seen.setdefault(name, Counter()).update(counts)
    before, now = ([(day.day, _numbers(day, seen)) for day in days] for days in (history, judged))
    found: list[Deviation] = []
    for name in sorted({n for _, of in before for n in of if not n.startswith(PREFIX)}):
        series = _series(name, before), _series(name, now)
        if len(series[0].days) >= _fewest_days(name) and len(series[1].days):
            drawn = (*series[0].values[-DRAWN_DAYS:], *series[1].values)
            days = (*series[0].days[-DRAWN_DAYS:], *series[1].days)
            found += [replace(each, series=drawn, days=days, num_judged=len(series[1].days))
                      for each in _of_series(name, *series)]  # fmt: skip
    for name in sorted({name for day in history for name in day.counts}):
        if len(history) >= _fewest_days(name):
            found += _of_counts(name, history, judged)
    for name in sorted({name for day in judged for name in day.acted_upon}):
        found += _of_told(name, history, judged)
    found += _of_moments(history, judged)
    for followed in ("users", "pins"):
        found += _of_ids(followed, history, judged)
    return tuple(replace(each, limit=each.limit * limit_factor) for each in found)


def _limits(floor: float, own: Floats, noise: Any = 0.0) -> Any:
    """Return the limit, or those of each noise.

    Args:
        floor: What is never told.
        own: The history's own deviations.
        noise: What chance alone gives, as a standard deviation.
    """
    least = max(floor, MARGIN * np.abs(own).max())
    # The standard deviation that normal deviations of the same median would have.
    robust = 1.4826 * np.median(np.abs(own))
    return np.maximum(least, Z * np.maximum(robust, noise))


def _fewest_days(name: str) -> int:
    is_of_state = name.startswith(("users.state", KIND_AND_STATE))
    return FEWEST_DAYS_OF_STATE if is_of_state else FEWEST_DAYS


def _run_length(num_before: int, num_judged: int) -> int:
    """Return over how many days of the history a mean is taken, so that there are several."""
    return min(num_judged, LONGEST_RUN, max(3, num_before // 2))


def _short_history(num_days: int) -> float:
    """Return by what floors are multiplied: 2 after the fewest days, 1.17 after twelve weeks."""
    return 1.0 + FEWEST_DAYS / num_days


def _steps(values: Floats, length: int) -> tuple[Any, Floats]:
    """Return the median of the last days, and how far runs lay from the days around them.

    People and products move on, so that a run lies further from days long before than from those
    just before. So each run is held against the RECENT_DAYS before it, as the judged days are, and
    against as many after it. A short history is one stretch.

    Args:
        values: [days] or [days, numbers], NaN where a day has none.
        length: Days of a run.

    Returns:
        The medians, and the runs' means less the medians of the days around them, [steps] or
        [steps, numbers].
    """
    num = RECENT_DAYS if len(values) >= 2 * RECENT_DAYS else len(values)
    runs = np.nanmean(sliding_window_view(values, length, axis=0), axis=-1)
    medians = np.nanmedian(sliding_window_view(values, num, axis=0), axis=-1)
    if num == len(values):
        return medians[-1], runs - medians
    before, after = runs[num:] - medians[:-length], runs[:-num] - medians[length:]
    return medians[-1], np.concatenate([before, after])


class _Series(NamedTuple):
    """One number on some days, on the scale on which it is judged."""

    days: npt.NDArray[np.int64]  # Days since the epoch, ascending.
    values: Floats
    noise: Floats  # What chance alone gives, as a standard deviation.


def _numbers(day: DayProfile, seen: Mapping[str, Counter[str]]) -> dict[str, Number]:
    """Return a day's numbers, and those that its counts give; `seen` are the history's counts."""
    found = dict(day.numbers)
    for name, counts in day.counts.items():
        total = sum(counts.values())
        if name.endswith(".hour"):
            if (centre := _centre(counts)).num >= FEWEST_ABOUT_AN_HOUR:
                found[f"{name}.centre"] = centre
        elif total:
            new = sum(num for key, num in counts.items() if key not in seen.get(name, ()))
            found[f"{name}.never_seen"] = Number(value=new / total, num=total)
            found[f"{name}.null"] = Number(value=counts.get("(null)", 0) / total, num=total)
            usual = seen.get(name, Counter[str]()) if name == KIND_AND_STATE else Counter[str]()
            for key, num in usual.items():
                if counts.get(key) and num >= LEAST_SHARE * usual.total():
                    share = Number(value=counts[key] / total, num=total)
                    found[f"{name}.{key}.of_all"] = share
    return found


def _centre(counts: dict[str, int]) -> Number:
    """Return the direction, in hours, of the mean of the events' times on the clock's circle.

    Where events are spread evenly over the day, the direction says nothing. So the number stands
    with as many events as would fix it as well if all of them lay about it: the square of the mean
    resultant length times the events (Mardia and Jupp, Directional Statistics, 2000).
    """
    total = sum(
        num * cmath.exp(2j * math.pi * (int(hour) + 0.5) / 24) for hour, num in counts.items()
    )
    if total == 0:
        return Number(value=0.0, num=0)
    hour = cmath.phase(total) * 24 / (2 * math.pi) % 24
    return Number(value=hour, num=int(abs(total) ** 2 / sum(counts.values())))


def _series(name: str, days: Sequence[tuple[int, dict[str, Number]]]) -> _Series:
    """Return one number's series. No rows of a kind are a number too: 0 of them."""
    none = Number(value=0.0, num=0) if name.endswith(".rows") else None
    kind = kind_of(name)
    found = [(day, number) for day, all_of in days if (number := all_of.get(name, none))]
    return _Series(
        np.array([day for day, _ in found]),
        np.array([kind.judged(number) for _, number in found]),
        np.array([kind.noise(number) for _, number in found]),
    )


def _of_series(name: str, before: _Series, now: _Series) -> list[Deviation]:
    """Return how far a number lies from its history, on its worst day and over all days."""
    kind, num_before, num_now = kind_of(name), len(before.days), len(now.days)
    if name.endswith(".centre"):
        # Without the jump at midnight: all hours within 12 hours of the history's.
        turns = np.exp(2j * np.pi * before.values / 24)
        start = np.angle(turns.mean()) * 24 / (2 * np.pi) - 12
        before, now = (
            each._replace(values=(each.values - start) % 24 + start) for each in (before, now)
        )
    level, extra = np.median(before.values), np.zeros(7)
    for weekday in range(7) if num_before >= WEEKDAY_DAYS else ():
        of_weekday = before.values[before.days % 7 == weekday]
        if len(of_weekday) >= 3:
            extra[weekday] = np.median(of_weekday) - level
    residuals = before.values - (level + extra[before.days % 7])
    length = _run_length(num_before, num_now)
    recent, steps = _steps(residuals, length)
    usual = level + recent + extra[now.days % 7]
    # How many rows a day of the history has: its noise says so.
    typical = 1.0 / np.median(before.noise) ** 2
    is_volume = name.endswith((".rows", ".per_request", ".per_user"))
    is_rare = is_volume and typical < RARE
    floors = RARE_FLOORS if is_rare else (kind.day_floor, kind.run_floor)
    day_floor, run_floor = (floor * _short_history(num_before) for floor in floors)
    limits = _limits(day_floor, residuals, now.noise)
    worst = int(np.argmax(np.abs(now.values - usual) / limits))
    noise = np.median(now.noise) / np.sqrt(num_now)
    limit = _limits(run_floor, steps, noise)
    of_day = Deviation(
        name, "day", kind, now.days[worst], now.values[worst], usual[worst], limits[worst]
    )
    of_run = Deviation(name, "run", kind, now.days[0], now.values.mean(), usual.mean(), limit)
    if name.endswith(".tells"):
        return [of_day]  # Over all days it is counted together: see `_of_told`.
    return [of_day, of_run, *_of_weekdays(name, before, now, extra, residuals)]


def _of_weekdays(
    name: str, before: _Series, now: _Series, extra: Floats, residuals: Floats
) -> list[Deviation]:
    """Return how far a volume's week is from the usual one, where weekdays explain most of it.

    What is judged is the slope of the days on what their weekdays usually have more or less: about
    1, and below 0 where a Sunday's rows stand on a Wednesday.
    """
    kind, pattern = _KINDS["by_weekday"], extra[before.days % 7]
    if kind_of(name) is not _VOLUME or len(now.days) < 7 or pattern.var() <= residuals.var():
        return []
    level, length = np.median(before.values), _run_length(len(before.days), len(now.days))

    def slope(days: npt.NDArray[np.int64], values: Floats) -> float:
        usual = extra[days % 7] - extra[days % 7].mean()
        return float((usual * (values - level)).sum() / (usual**2).sum())

    starts = range(len(before.days) - length + 1)
    own = np.array([slope(before.days[n : n + length], before.values[n : n + length])
                    for n in starts])  # fmt: skip
    found, usual = slope(now.days, now.values), float(np.median(own))
    limit = _limits(kind.run_floor * _short_history(len(before.days)), own - usual)
    return [Deviation(f"{name}.by_weekday", "run", kind, now.days[0], found, usual, limit)]


def _of_moments(history: Sequence[DayProfile], judged: Sequence[DayProfile]) -> list[Deviation]:
    """Return how far what rows give together lies from the history, over all judged days.

    A mean is judged in the rows' usual standard deviation. There are hundreds of these numbers, so
    that their floors, and what chance gives, are wider by TOGETHER; chance is how far MOST_DAYS
    lie from each other.
    """
    if len(history) < FEWEST_DAYS_OF_STATE:
        return []
    names = sorted({name for day in history for name in day.numbers if name.startswith(PREFIX)})
    kinds, length = [kind_of(name) for name in names], _run_length(len(history), len(judged))
    raw, raw_now = (
        np.array([[day.numbers[n].value if n in day.numbers else np.nan for n in names]
                  for day in days]).reshape(len(days), len(names))
        for days in (history, judged)
    )  # fmt: skip
    is_log = np.array([kind.scale == "relative" for kind in kinds], dtype=bool)
    before, now = (
        np.where(is_log, np.log(np.maximum(of, 0) + DEVIATION.offset), of) for of in (raw, raw_now)
    )
    is_known = np.isfinite(before).sum(axis=0) >= FEWEST_DAYS_OF_STATE
    is_known &= 2 * np.isfinite(now).sum(axis=0) >= len(judged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of numbers that no day of a run has.
        spread = dict(zip(names, np.nanmedian(raw, axis=0), strict=True))
        level, of_weekday = np.nanmedian(before, axis=0), np.zeros((7, len(names)))
        weekdays, weekdays_now = (np.array([d.day for d in days]) % 7 for days in (history, judged))
        for weekday in range(7):
            found = np.nanmedian(before[weekdays == weekday], axis=0) - level
            of_weekday[weekday] = np.nan_to_num(found)
        residuals = before - level - of_weekday[weekdays]
        recent, own = _steps(residuals, length)
        effects = np.nanmean(now - level - of_weekday[weekdays_now], axis=0) - recent
        of_most_days = np.nanquantile(residuals, MOST_DAYS, axis=0)
        noises = np.nanstd(np.clip(residuals, *of_most_days), axis=0) / np.sqrt(length)
    found, days = [], tuple(day.day for day in (*history[-DRAWN_DAYS:], *judged))
    for n in np.flatnonzero(is_known):
        name, kind, of_runs = names[n], kinds[n], own[:, n][np.isfinite(own[:, n])]
        if not len(of_runs) or not is_judged(name):
            continue
        unit = 1.0
        if name.endswith(".mean"):
            unit = max(spread[f"{name.removesuffix('mean')}deviation"], LEAST_DEVIATION)
        floor = kind.run_floor * _short_history(len(history))
        limit = _limits(TOGETHER * floor, of_runs / unit, TOGETHER * noises[n] / unit)
        drawn = np.concatenate([before[-DRAWN_DAYS:, n], now[:, n]]) / unit
        usual = (level[n] + recent[n]) / unit
        drawn = np.where(np.isfinite(drawn), drawn, usual)
        found.append(
            Deviation(name, "run", kind, judged[0].day, usual + effects[n] / unit, usual, limit,
                      unit, tuple(drawn), days, len(judged))
        )  # fmt: skip
    return found


def _count_matrix(days: Sequence[Mapping[str, int]], keys: Sequence[str]) -> Floats:
    """Return [days, keys] counts; zeros where a day has none."""
    rows = [[counts.get(key, 0) for key in keys] for counts in days]
    return np.array(rows, dtype=np.float64).reshape(len(days), len(keys))


def _sums(counts: Floats, length: int) -> Floats:
    """Return the sums over each run of rows, [rows - length + 1, columns]."""
    return sliding_window_view(counts, length, axis=0).sum(axis=-1)


def _of_counts(
    name: str, history: Sequence[DayProfile], judged: Sequence[DayProfile]
) -> list[Deviation]:
    """Return how far the judged days' shares by hour or category lie from the history's."""
    from scipy.spatial.distance import jensenshannon

    of_days = [[day.counts.get(name, {}) for day in days] for days in (history, judged)]
    keys = sorted({key for counts in of_days for of_day in counts for key in of_day})
    before, now = (_count_matrix(counts, keys) for counts in of_days)
    days = np.array([day.day for day in judged])
    before, days, now = before[before.any(axis=1)], days[now.any(axis=1)], now[now.any(axis=1)]
    if len(before) < FEWEST_DAYS or len(now) == 0:
        return []
    usual, found = before.sum(axis=0), []
    of_levels: tuple[tuple[Level, float, int, Floats], ...] = (
        ("day", DISTANCE.day_floor, 1, now),
        ("run", DISTANCE.run_floor, _run_length(len(before), len(now)), now.sum(axis=0)[None]),
    )
    for level, floor, length, rows in of_levels:
        # It is the square root of the divergence in bits (Endres and Schindelin, 2003). Of shares
        # that are all but equal, rounding may make the divergence negative.
        own, distances = (
            np.nan_to_num(jensenshannon(counts, usual[None], base=2, axis=1))
            for counts in (_sums(before, length), rows)
        )
        worst = int(np.argmax(distances))
        limit = max(_short_history(len(before)) * floor, MARGIN * own.max())
        found.append(Deviation(name, level, DISTANCE, days[worst], distances[worst], 0.0, limit))
    return found


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


def told_otherwise(rows: Floats, hits: Floats, usual_rows: Floats, usual_hits: Floats) -> float:
    """Return the share of the variance of "was acted upon" by which a category tells otherwise.

    Where each value keeps its usual rate, but for a factor that all values share, it is 0, less or
    more by what chance explains. So a label that leaks into a column is seen whether the column
    tells more by it or less. Each value has OF_ALL usual rows more, of the rate of all, so that
    one that was hardly ever seen has no rate of its own.

    Args:
        rows: [values] Rows of each value.
        hits: [values] Those of them that were acted upon.
        usual_rows: [values] Likewise, of the days that these are held against.
        usual_hits: [values]
    """
    num, rate = rows.sum(), hits.sum() / max(1.0, rows.sum())
    if not 0 < rate < 1 or not usual_hits.sum():
        return 0.0
    of_all = usual_hits.sum() / usual_rows.sum()
    usual = (usual_hits + OF_ALL * of_all) / (usual_rows + OF_ALL)
    expected = rows * usual * (hits.sum() / (rows * usual).sum())
    between = ((hits - expected) ** 2 / np.maximum(rows, 1)).sum() / (num * rate * (1 - rate))
    return float(between - (np.count_nonzero(rows) - 1) / num)


def _of_told(
    name: str, history: Sequence[DayProfile], judged: Sequence[DayProfile]
) -> list[Deviation]:
    """Return how much otherwise a category tells of the label, in its worst run of days."""
    history = [day for day in history if name in day.acted_upon]
    length, days = _run_length(len(history), len(judged)), (*history, *judged)
    if (num := len(history)) < length + FEWEST_RUNS - 1:
        return []
    keys = sorted({key for day in days for key in day.counts.get(name, {})})
    rows = _count_matrix([day.counts.get(name, {}) for day in days], keys)
    hits = _count_matrix([day.acted_upon.get(name, {}) for day in days], keys)
    before, of_before = rows[:num].sum(axis=0), hits[:num].sum(axis=0)
    runs = list(zip(_sums(rows, length), _sums(hits, length), strict=True))
    # A run of the history is held against the rest of it.
    rest = ((r, h, before - r, of_before - h) for r, h in runs[: num - length + 1])
    usual = np.array([told_otherwise(*each) for each in rest])
    now = [told_otherwise(r, h, before, of_before) for r, h in runs[num:]]
    worst, kind, middle = int(np.argmax(now)), _KINDS["tells"], float(np.median(usual))
    limit = _limits(kind.run_floor * _short_history(num), usual - middle)
    found = max(now[worst], middle)
    return [Deviation(f"{name}.tells", "run", kind, judged[worst].day, found, middle, limit)]


def _of_ids(
    followed: str, history: Sequence[DayProfile], judged: Sequence[DayProfile]
) -> list[Deviation]:
    """Return the lowest share of the users or pins of four weeks that come back in the next two.

    The lowest share of those of two weeks that are new follows: they were not there in the four
    weeks before. That more come back, or are new, than before does no harm, and is not told.
    """
    ids = known_ids((*history, *judged), followed)
    num_days = _run_length(len(history), min(len(judged), AFTER_DAYS))
    start, first, end = min(ids, default=0), judged[0].day, judged[-1].day + 1
    found = []
    for of, kind in (("come_back", RETURNING), ("new", NEWCOMERS)):
        runs = ((share_back(ids, day, num_days, of == "new"), day)
                for day in range(start, end - num_days + 1))  # fmt: skip
        shares = [(Number(value=share[0], num=share[1]), day) for share, day in runs if share]
        known = [(kind.judged(share), share.num, day) for share, day in shares]
        usual = [judged for judged, _, day in known if day <= first - num_days]
        now = [each for each in known if each[2] >= first]
        if len(usual) < FEWEST_RUNS or not now:
            continue
        values, middle = np.array(usual), float(np.median(usual))
        judged_share, num, day = min(now)
        noise = kind.noise(Number(value=kind.natural(middle), num=num))
        limit = _limits(kind.run_floor * _short_history(len(history)), values - middle, noise)
        name = f"impressions.{followed}_{of}"
        found.append(Deviation(name, "run", kind, day, min(judged_share, middle), middle, limit))
    return found


def known_ids(days: Sequence[DayProfile], followed: str) -> dict[int, frozenset[int]]:
    """Return the ids of each day that would be known of every day if they had been there."""
    of_days = {day.day: day.followed[followed] for day in days if day.followed.get(followed)}
    # A day of fewer ids has all of its ids there, and bounds nothing.
    full = [ids[-1] for ids in of_days.values() if len(ids) >= NUM_FOLLOWED]
    largest = min(full, default=math.inf)
    return {day: frozenset(each for each in ids if each <= largest) for day, ids in of_days.items()}


def share_back(
    ids: Mapping[int, frozenset[int]], first: int, num_days: int, is_of_new: bool = False
) -> tuple[float, int] | None:
    """Return which share of the ids of the weeks before a day come back, and of how many.

    Or else, which share of the ids from that day on are new.

    Args:
        ids: By day, since the epoch.
        first: The first day on which they are looked for.
        num_days: How many days they are looked for.
        is_of_new: The second share is asked for.

    Returns:
        None where too few days or ids are known.
    """
    before = [ids[day] for day in range(first - BEFORE_DAYS, first) if day in ids]
    after = [ids[day] for day in range(first, first + num_days) if day in ids]
    wanted, other = frozenset().union(*before), frozenset().union(*after)
    is_enough = 2 * len(before) >= BEFORE_DAYS and len(after) >= num_days - MOST_MISSING
    if not is_enough or len(wanted) < FEWEST_IDS:
        return None
    if is_of_new:
        return len(other - wanted) / max(1, len(other)), len(other)
    return len(wanted & other) / len(wanted), len(wanted)
