"""Reports of a checked log made by hand, for the tests of what is judged and shown."""

from collections.abc import Mapping
from datetime import date

import numpy as np

from pipelines.contracts.day_profile import DayProfile
from pipelines.log_check.report import LAG_EDGES_MS


def day_of(
    day: date,
    shown: int | None = None,
    acted: Mapping[str, int] | None = None,
    labelled: Mapping[str, int] | None = None,
    **lags: Mapping[str, int],
) -> DayProfile:
    """Return a day with so many impressions and actions by type; None: it has no such files."""
    counts: dict[str, dict[str, int]] = {"labelled": dict(labelled or {})}
    if shown is not None:
        counts["impressions"] = {"rows": shown}
    if acted is not None:
        counts["actions"] = dict(acted)
    counts |= {f"{table}.lag": dict(found) for table, found in lags.items()}
    return DayProfile(day=(day - date(1970, 1, 1)).days, numbers={}, counts=counts)


def count_lags(lags_ms: np.ndarray) -> dict[str, int]:
    """Return how many lags lie in each bin of LAG_EDGES_MS."""
    bins = np.searchsorted(LAG_EDGES_MS, lags_ms, side="right") - 1
    return {str(place): num for place, num in enumerate(np.bincount(bins).tolist()) if num}
