"""What kind of number each of a day's numbers is: its scale, and how much of a change matters.

    scale      a number v is judged as            an effect of e means
    relative   ln v                               a factor of exp(e); 0.69 is twice as much
    share      v                                  e of 1
    rate       ln of v with half a positive more  a factor of exp(e)
    seconds    sign(v) ln(1 + |v|)                from 1 s on, about a factor of exp(e)
    amount     v                                  e, in the number's own unit

A change that is smaller than the kind's floor is never told, however sure it is: a gate that cries
over what does no harm is not read. Not for how sure a change is (`limits`).
"""

import math
from dataclasses import dataclass
from typing import Literal

from pipelines.contracts.day_profile import Number

Scale = Literal["relative", "share", "rate", "seconds", "amount"]


@dataclass(frozen=True)
class Kind:
    """How a number is judged."""

    scale: Scale
    day_floor: float  # Effects on one day below it are never told.
    run_floor: float  # The same, of the mean effect over all judged days.
    critical: float  # A mean effect from which on a model is at risk; infinite where none is.
    offset: float = 1e-9  # Is added to a number before its logarithm is taken.
    spread: float = 1.0  # Standard deviation of the judged value for one row; see `noise`.

    def judged(self, number: Number) -> float:
        """Return the number on the scale on which it is judged."""
        value = number.value
        if self.scale == "relative":
            return math.log(max(value, 0.0) + self.offset)
        if self.scale == "rate":
            return math.log((value * number.num + 0.5) / max(number.num, 1))
        if self.scale == "seconds":
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
        if self.scale == "relative":
            return math.exp(judged) - self.offset
        if self.scale == "rate":
            return math.exp(judged)
        if self.scale == "seconds":
            return math.copysign(math.expm1(abs(judged)), judged)
        return judged


_VOLUME = Kind("relative", day_floor=0.6, run_floor=0.18, critical=0.9, offset=0.5)
_RATIO = Kind("relative", day_floor=0.5, run_floor=0.15, critical=0.7)
# What all rows together lose is told by their own rate, and that one may be critical.
_LABEL_RATE = Kind("rate", day_floor=0.5, run_floor=0.15, critical=math.inf)
_MEAN = Kind("relative", day_floor=0.15, run_floor=0.05, critical=0.4, spread=0.5)
_CONCENTRATION = Kind("relative", day_floor=1.0, run_floor=0.5, critical=2.0, spread=0.5)
_SHARE = Kind("share", day_floor=0.05, run_floor=0.02, critical=0.1)
_RARE = Kind("share", day_floor=0.005, run_floor=0.002, critical=0.05)
_SECONDS = Kind("seconds", day_floor=1.0, run_floor=0.5, critical=2.0, spread=2.0)
_POSITION = Kind("relative", day_floor=0.1, run_floor=0.05, critical=0.4)
_AGE = Kind("amount", day_floor=3.0, run_floor=2.0, critical=14.0)
_COSINE = Kind("amount", day_floor=0.15, run_floor=0.06, critical=0.3, spread=0.5)
# Users whose past grows come nearer to each other, month after month, and that harms nobody.
_SPREAD = Kind("amount", day_floor=0.15, run_floor=0.08, critical=0.3, spread=0.5)

_KINDS = {
    "rows": _VOLUME,
    "requests": _VOLUME,
    "users": _VOLUME,
    "per_request": _RATIO,
    "per_user": _RATIO,
    "requests_per_user": _MEAN,
    "pins_per_request": _MEAN,
    "places_used": _MEAN,
    "different_pins": Kind("relative", day_floor=0.4, run_floor=0.1, critical=0.7),
    "mean_propensity": _RATIO,
    "label_rate": _LABEL_RATE,
    "mean_position": _POSITION,
    "busiest_user": _CONCENTRATION,
    "busiest_pin": _CONCENTRATION,
    "centre": Kind("amount", day_floor=2.0, run_floor=1.3, critical=3.0, spread=4.0),  # hours
    "never_seen": Kind("share", day_floor=0.15, run_floor=0.08, critical=0.3),
    # A model that leans on a category which tells of the label has nothing to lean on where it
    # serves, so whatever is sure is critical (tests/benchmarks/bench_defect_harm.py).
    "tells": Kind("amount", day_floor=0.1, run_floor=0.006, critical=0.006),
    "pin_repeated": _RARE,
    "place_repeated": _RARE,
    "acted_upon_before": _RARE,
    "shown_before": _RARE,
    "early": _RARE,
    "zero_embedding": _RARE,
    "embedding_repeated": _RARE,
    "row_age_days": _AGE,
    "embedding_length": _MEAN,
    "spread": _SPREAD,
    "like_themselves": _COSINE,
}


def kind_of(name: str) -> Kind:
    """Return the kind of a number; what has none of its own is a share or a time."""
    last = name.rpartition(".")[2]
    if last in _KINDS:
        return _KINDS[last]
    return _SECONDS if last.endswith("_s") else _SHARE


DISTANCE = Kind("amount", day_floor=0.6, run_floor=0.3, critical=0.6, spread=1.0)
"""Of counts by hour or category: the Jensen-Shannon distance from what is usual, in [0, 1]."""
