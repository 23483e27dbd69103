"""The numbers of several days as series that can be judged, one for each name.

Counts by hour and by category give numbers too: the hour about which a day's events lie, and the
share of each day that has no value, or one that was never seen before. Not for limits (`limits`).
"""

import cmath
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.contracts.judged.day_profile import DayProfile, Number
from validation.data_gate.days.kinds import Kind, kind_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NULL = "(null)"
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
            found[f"{name}.null"] = Number(value=counts.get(NULL, 0) / total, num=total)
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
