"""The report of a checked log: a profile of each day, totals over all days, and problems.

A day is a `DayProfile` whose counts add up over days:

    impressions          rows, exploration, repeated (the same request and pin again on the day)
    impressions.hour     rows by the hour of the day
    impressions.lag      rows by the bin of `LAG_EDGES_MS` in which known_at minus the time lies
    labelled             impressions that got an action of a type within the label window
    labelled.hour        impressions that got any, by hour
    actions, actions.lag rows by type, and by bin
    unread               rows that lack a column, by table
    named                all; in_span (on days with impressions); found; of_other_user; pair_found;
                         early (before their request)
    named.early          by how many hours they are early
    unnamed              near (the pin was shown to the user within 24 h); early (only afterwards)
    unnamed.shift        by hours from the nearest impression, -24 to 23

Its numbers are `<table>.longest_lag_ms`, `<table>.first_ms` and `<table>.last_ms` (of the day). Not
for measuring (`measuring`), nor for what it means (`judgements`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pipelines.contracts.day_profile import DayProfile
from pipelines.event_log.rules import Finding

LAG_STEP, NUM_LAGS = 0.03, 811
LAG_EDGES_MS = np.concatenate([[0], np.exp(LAG_STEP * np.arange(NUM_LAGS - 1))])
"""Lower edges of the bins of lags; neighbours are 3 % apart."""
SHIFT_HOURS = 24
"""How far an action is looked for on either side of an impression of the same user and pin."""
LENGTH_EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
"""Lower edges of the bins of the number of earlier actions of a request's user."""
TABLES = ("impressions", "actions")


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


@dataclass
class Embeddings:
    """What the embeddings of one version, or of the users, come to."""

    rows: int = 0
    zero: int = 0
    widths: Counter[int] = field(default_factory=Counter)  # rows by width
    num_in_use: int = 0  # of the pins or users in use, those that have a row
    missing: tuple[int, ...] = ()  # the first pins in use that have none


@dataclass(frozen=True)
class Unlisted:
    """What the rows have in the column of one categorical feature of a recipe."""

    rows: int = 0
    nulls: int = 0
    others: int = 0  # rows with a value that the recipe does not list
    values: tuple[tuple[str, int], ...] = ()  # the most frequent of these, with their rows


@dataclass
class LogReport:
    """All that is known of a log."""

    uri: str
    recipe: str
    label_window_hours: int
    days: dict[date, DayProfile] = field(default_factory=dict)
    num_requests: int = 0
    num_users: int = 0  # with requests
    num_pins: int = 0  # that were shown or acted upon
    candidates: dict[int, int] = field(default_factory=dict)  # requests by number of candidates
    lengths: npt.NDArray[np.int64] = field(  # requests by bin of LENGTH_EDGES
        default_factory=lambda: np.zeros(len(LENGTH_EDGES), dtype=np.int64)
    )
    pins: dict[str, Embeddings] = field(default_factory=dict)  # by embedding version
    users: Embeddings = field(default_factory=Embeddings)
    unlisted: dict[str, Unlisted] = field(default_factory=dict)  # by <table>.<feature>
    problems: list[Problem] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # ids in the problems -> such as "pin 'p1'"

    def days_of(self, table: str) -> list[date]:
        """Return the days that have files of impressions or actions, in order."""
        return sorted(day for day, found in self.days.items() if table in found.counts)

    def of(self, day: date, what: str) -> Mapping[str, int]:
        """Return a count of a day; nothing where the day has none."""
        return self.days[day].counts.get(what, {}) if day in self.days else {}

    def rows(self, day: date, table: str) -> int:
        """Return a day's impressions or actions."""
        found = self.of(day, table)
        rows = found.get("rows", 0) if table == "impressions" else sum(found.values())
        return rows + self.of(day, "unread").get(table, 0)

    def total(self, what: str) -> Counter[str]:
        """Return a count over all days."""
        total: Counter[str] = Counter()
        for day in self.days.values():
            total.update(day.counts.get(what, {}))
        return total

    def num_rows(self, table: str) -> int:
        """Return all impressions or actions."""
        return sum(self.rows(day, table) for day in self.days_of(table))

    def number(self, what: str, *, largest: bool = True) -> int:
        """Return the largest, or smallest, of a number of the days; 0 where no day has it."""
        values = [day.numbers[what].value for day in self.days.values() if what in day.numbers]
        return int((max if largest else min)(values, default=0))


def binned(counts: Mapping[str, int], num_bins: int, first: int = 0) -> npt.NDArray[np.int64]:
    """Return counts by whole numbers from `first` on as an array."""
    found = np.zeros(num_bins, dtype=np.int64)
    for place, num in counts.items():
        found[int(place) - first] += num
    return found


def lag_quantile(lags: Mapping[str, int], share: float) -> float:
    """Return the lag that a share of the rows does not exceed, in ms, to 3 %; 0 without rows."""
    in_bins = binned(lags, NUM_LAGS)
    if not in_bins.any():
        return 0.0
    place = int(np.searchsorted(np.cumsum(in_bins), share * in_bins.sum()))
    return float(LAG_EDGES_MS[min(place, NUM_LAGS - 1)])
