"""When the event log first knew of each pin, from the rows of many files.

The snapshot's feature `pin_age` comes from here. Not for which rows are read: the caller chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.event_log.event_index import Ints

NEVER_MS = np.iinfo(np.int64).max
"""The time of a pin that was not seen."""


@dataclass(frozen=True)
class FirstSeen:
    """Pins and the earliest `known_at` of a row about each."""

    pin_id: Ints  # sorted, each once
    known_at: Ints  # milliseconds

    @staticmethod
    def of(pin_id: Ints, known_at: Ints) -> "FirstSeen":
        """Return the earliest time of each pin."""
        rows = pa.table({"pin_id": pin_id, "known_at": known_at})
        # One thread: a worker has one core.
        first = rows.group_by("pin_id", use_threads=False).aggregate([("known_at", "min")])
        pins, times = (np.asarray(first[name]) for name in ("pin_id", "known_at_min"))
        order = np.argsort(pins)
        return FirstSeen(pins[order], times[order])

    @staticmethod
    def merge(parts: Sequence["FirstSeen"]) -> "FirstSeen":
        """Return the earliest time of each pin over all parts."""
        none = np.array([], dtype=np.int64)
        return FirstSeen.of(
            np.concatenate([none, *(part.pin_id for part in parts)]),
            np.concatenate([none, *(part.known_at for part in parts)]),
        )

    def at(self, pin_ids: Ints) -> Ints:
        """Return the time of each pin, NEVER_MS for one that was not seen."""
        if len(self.pin_id) == 0:
            return np.full(len(pin_ids), NEVER_MS)
        places = np.minimum(np.searchsorted(self.pin_id, pin_ids), len(self.pin_id) - 1)
        return np.where(self.pin_id[places] == pin_ids, self.known_at[places], NEVER_MS)
