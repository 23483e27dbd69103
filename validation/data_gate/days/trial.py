"""Plants one defect into rows in memory, and says what the gate finds of it.

A defect is found where an expectation about the days or about kept embeddings is not met, and is
critical where one of these is critical. Not for where the rows come from. Tested in
tests/pipelines/cli/test_gate.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.data_rules import CHANGED_EMBEDDINGS, MISSING_DAYS
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS
from validation.data_gate.canaries import USER_DAYS, Vectors, compare_vectors, smallest_hashes
from validation.data_gate.days.gate import date_of
from validation.data_gate.days.limits import deviations
from validation.data_gate.days.measure import DayRows, measure_days, open_engine
from validation.data_gate.planted.log_rows import LogRows

CYCLE_DAYS = 14
TABLES = ("impressions", "actions", "pins", "users")


class Trial(NamedTuple):
    """What the gate said of rows into which something may have been planted."""

    has_effect: bool  # False where these rows have nothing that the defect could spoil.
    is_critical: bool
    told: tuple[str, ...]  # Embeddings, missing days, then numbers, the largest deviation first.

    @property
    def is_found(self) -> bool:
        """Whether the gate said anything."""
        return bool(self.told)


@dataclass(frozen=True)
class Workbench:
    """Sound rows, and what they are held against."""

    clean: LogRows
    history: Sequence[DayProfile]
    categories: Sequence[str]
    scratch: str  # An existing folder, for what does not fit into memory.

    def judge(self, log: LogRows) -> Trial:
        """Return what the gate says of rows that were sound before."""
        days = self.measure(log)
        found = sorted(deviations(self.history, days), key=lambda each: -each.times_limit)
        missing = sorted(set(log.days.tolist()) - {day.day for day in days})
        changed = self._changed(log)
        told = (
            *(f"embeddings of {what}" for what, share in changed.items() if share > 0),
            *(f"no rows on {date_of(day)}" for day in missing),
            *(f"{each.name} ({each.level})" for each in found if each.times_limit > 1),
        )
        is_critical = (
            any(each.is_harmful for each in found)
            or len(missing) > MISSING_DAYS.critical * len(log.days)
            or max(changed.values()) > CHANGED_EMBEDDINGS.critical
        )
        has_effect = any(not getattr(log, t).equals(getattr(self.clean, t)) for t in TABLES)
        return Trial(has_effect, is_critical, told)

    def measure(self, log: LogRows) -> tuple[DayProfile, ...]:
        """Return the profiles of the days that may be touched."""
        rows = DayRows([log.impressions], [log.actions], [log.users])
        with open_engine(self.scratch) as engine:
            return measure_days(engine, rows, log.first_day, log.end_day, self.categories)

    def _changed(self, log: LogRows) -> dict[str, float]:
        """Return the share of canaries that changed, by kind.

        Rows of users from after the last cycle are no canaries: nobody has accepted them.
        """
        end_ms = (log.end_day - CYCLE_DAYS) * DAY_MS
        users = _vectors(self.clean, "users")
        recent = (users.as_of < end_ms) & (users.as_of >= end_ms - USER_DAYS * DAY_MS)
        kept = {
            "pins": smallest_hashes([_vectors(self.clean, "pins")]),
            "users": smallest_hashes([users.at(np.flatnonzero(recent))]),
        }
        shares = {}
        for what, vectors in kept.items():
            compared = compare_vectors(what, vectors, [_vectors(log, what)])
            shares[what] = compared.changed_share if compared.num_compared else 0.0
        return shares


def _vectors(log: LogRows, table: str) -> Vectors:
    rows = getattr(log, table)
    ids = to_numpy(rows["pin_id" if table == "pins" else "user_id"])
    as_of = to_numpy(rows["as_of"]) if table == "users" else np.zeros_like(ids)
    return Vectors(ids, as_of, to_numpy(rows["embedding"]).astype(np.float32))
