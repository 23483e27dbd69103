"""How much a category tells of which rows were acted upon, over many days together.

Of a single day a few positives say little; over all judged days they say whether a column has begun
to give the label away. Not for how far it may rise (`limits`). Tested in
tests/validation/data_gate/days/test_telling.py.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.contracts.judged.day_profile import DayProfile
from validation.data_gate.days.series import Floats, count_matrix


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
