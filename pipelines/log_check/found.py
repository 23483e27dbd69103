"""What a check of an event log gives: problems with their severity, and totals per day.

All values are sums or small arrays, so that those of parts and of days add up. Not for computing
them (`events`, `exposures`, `embeddings`), nor for what they mean (`judgements`).
"""

from dataclasses import dataclass, field, fields
from datetime import date
from enum import StrEnum
from typing import Any

import numpy as np

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints
from pipelines.event_log.rules import Finding

HOURS = 24
_LAG_STEP = 0.03
LAG_EDGES_MS = np.concatenate([[0], np.exp(_LAG_STEP * np.arange(810))])
"""Lower edges of the bins of known_at minus the event's time; neighbours are 3 % apart."""
SHIFT_HOURS = 24
"""How far an action is looked for on either side of an impression of the same user and pin."""
LENGTH_EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
"""Lower edges of the bins of the number of earlier actions of a request's user."""


class Severity(StrEnum):
    """What a problem means for whoever wants to build a snapshot of the log."""

    ERROR = "error"  # the snapshot would be refused, or wrong
    WARNING = "warning"  # a person must look
    NOTE = "note"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with the log, or worth a look."""

    severity: Severity
    finding: Finding


def _hours() -> Ints:
    return np.zeros(HOURS, dtype=np.int64)


def _lags() -> Ints:
    return np.zeros(len(LAG_EDGES_MS), dtype=np.int64)


def _shifts() -> Ints:
    return np.zeros(2 * SHIFT_HOURS, dtype=np.int64)


@dataclass
class Exposures:
    """What the impressions of some rows come to."""

    rows: int = 0
    exploration: int = 0
    duplicates: int = 0  # the same request and pin again, on the same day
    per_hour: Ints = field(default_factory=_hours)
    labelled: dict[str, int] = field(default_factory=dict)  # action type -> impressions that got it
    labelled_per_hour: Ints = field(default_factory=_hours)  # that got any
    lags: Ints = field(default_factory=_lags)
    max_lag_ms: int = 0
    min_time_of_day_ms: int = DAY_MS
    max_time_of_day_ms: int = 0


@dataclass
class Deeds:
    """What the actions of some rows come to."""

    rows: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    named: int = 0  # that name a request
    named_in_span: int = 0  # of these, on days with impressions
    found: int = 0  # of these, whose request is in the log
    of_other_user: int = 0  # whose request is another user's
    pair_found: int = 0  # whose request showed the pin
    early_named: int = 0  # that happened before their request
    early_named_per_hour: Ints = field(default_factory=_hours)  # by how many hours
    unnamed_near: int = 0  # without a request, and the pin was shown to the user within 24 h
    unnamed_early: int = 0  # of these, only afterwards
    shifts: Ints = field(default_factory=_shifts)  # hours from the nearest impression, -24 to 23
    lags: Ints = field(default_factory=_lags)
    max_lag_ms: int = 0
    min_time_of_day_ms: int = DAY_MS
    max_time_of_day_ms: int = 0


def add(total: Any, part: Any) -> None:
    """Add the sums of a part to those of a whole: of two `Exposures` or two `Deeds`."""
    for name in (each.name for each in fields(total)):
        own, other = getattr(total, name), getattr(part, name)
        if isinstance(own, dict):
            own.update({key: own.get(key, 0) + found for key, found in other.items()})
        elif name.startswith(("max_", "min_")):
            setattr(total, name, max(own, other) if name.startswith("max_") else min(own, other))
        else:
            setattr(total, name, own + other)


@dataclass
class Embeddings:
    """What the embeddings of one version, or of the users, come to."""

    rows: int = 0
    zero: int = 0
    widths: dict[int, int] = field(default_factory=dict)  # width -> rows


@dataclass
class LogReport:
    """All that is known of a log."""

    uri: str
    recipe: str
    label_window_hours: int
    exposures: dict[date, Exposures] = field(default_factory=dict)
    deeds: dict[date, Deeds] = field(default_factory=dict)
    num_requests: int = 0
    num_users: int = 0
    num_pins: int = 0  # that were shown or acted upon
    num_candidates: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    num_users_with_row: int = 0
    sequence_lengths: Ints = field(
        default_factory=lambda: np.zeros(len(LENGTH_EDGES), dtype=np.int64)
    )
    pins: dict[str, Embeddings] = field(default_factory=dict)  # by embedding version
    num_pins_with: dict[str, int] = field(default_factory=dict)  # of those in use, by version
    missing_pins: dict[str, tuple[int, ...]] = field(default_factory=dict)  # the first, by version
    users: Embeddings = field(default_factory=Embeddings)
    problems: list[Problem] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # ids in the problems -> such as "pin 'p1'"

    @property
    def shown(self) -> Exposures:
        """The impressions of all days."""
        total = Exposures()
        for part in self.exposures.values():
            add(total, part)
        return total

    @property
    def acted(self) -> Deeds:
        """The actions of all days."""
        total = Deeds()
        for part in self.deeds.values():
            add(total, part)
        return total


def count_times(total: Exposures | Deeds, at: Ints, known_at: Ints) -> None:
    """Add when some rows of one day happened, and how long after that they were known."""
    lags = known_at - at
    total.lags = total.lags + count_lags(lags)
    total.max_lag_ms = max(total.max_lag_ms, int(lags.max(initial=0)))
    if len(at):
        first, last = int(at.min()) % DAY_MS, int(at.max()) % DAY_MS
        total.min_time_of_day_ms = min(total.min_time_of_day_ms, first)
        total.max_time_of_day_ms = max(total.max_time_of_day_ms, last)


def count_lags(lags_ms: Ints) -> Ints:
    """Return how many lags lie in each bin of LAG_EDGES_MS; negative ones are in the first."""
    places = 1 + np.log(np.maximum(lags_ms, 1)) / _LAG_STEP
    bins = np.where(lags_ms < 1, 0, np.minimum(places, len(LAG_EDGES_MS) - 1)).astype(np.int64)
    return np.bincount(bins, minlength=len(LAG_EDGES_MS))


def lag_quantile(lags: Ints, share: float) -> float:
    """Return the lag that a share of the rows does not exceed, in ms, to 3 %; 0 without rows."""
    if not lags.any():
        return 0.0
    place = int(np.searchsorted(np.cumsum(lags), share * lags.sum()))
    return float(LAG_EDGES_MS[min(place, len(LAG_EDGES_MS) - 1)])
