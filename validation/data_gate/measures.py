"""What a snapshot's rows look like, in counts and histograms that add up over shards.

Every measure is a sum. So a snapshot of any size is measured one shard at a time, and two snapshots
are compared by their sums; a table of all examples never exists, which Great Expectations would
load as a whole (great_expectations#5613). Not for judging: `validation.data_gate.checks` holds the
bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.features.catalogue import Scale
from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.contracts.features.numeric import NumericFeature, flag_name
from pipelines.contracts.schemas import (
    categorical_column,
    is_known_late,
    label_column,
    numeric_column,
)
from pipelines.contracts.time import DAY_MS

SPLITS = 2
_HALF_DECADES = 10.0 ** np.arange(-3, 9.5, 0.5)
NUMERIC_EDGES: Mapping[Scale, NDArray[np.float64]] = {
    "log1p": np.linspace(0.0, 12.0, 25),  # to counts of 160,000 (exp(12))
    "difference": np.linspace(-12.0, 12.0, 49),
    "circle": np.linspace(-1.0, 1.0, 21),
    "weekday": np.arange(7.0),
    "any": np.concatenate([-_HALF_DECADES[::-1], [0.0], _HALF_DECADES]),
}
"""Lower edges of the bins of the numeric features, by their scale.

The bins are fixed, so that the histograms of shards and snapshots can be added and compared.
"""
LENGTH_EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
"""Lower edges of the bins of the number of actions before a request."""
SEQUENCE_LENGTH = "sequence_length"


@dataclass
class Measures:
    """Sums over some shards. In arrays of two, index 0 is the training window, 1 the holdout."""

    requests: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SPLITS, np.int64))
    examples: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SPLITS, np.int64))
    exploration: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SPLITS, np.int64))
    positives: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # head -> (2,)
    with_sequence: int = 0  # requests with at least one earlier action
    zero_embeddings: int = 0  # examples whose candidate's embedding is all zero to their request
    requests_per_day: dict[int, int] = field(default_factory=dict)  # days since the epoch
    # By days since the epoch: examples, then the positives of each head in the recipe's order.
    labels_per_day: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    # By feature. Of a categorical feature, the first bin holds the values outside the closed list;
    # of a numeric one, only rows where it is not missing count, and its flag has a histogram too.
    histograms: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, other: "Measures") -> None:
        """Add another shard's sums to these."""
        for name, sums in vars(other).items():
            own = getattr(self, name)
            if isinstance(own, dict):
                own.update({key: own.get(key, 0) + found for key, found in sums.items()})
            else:
                setattr(self, name, own + sums)

    def label_rate(self, head: str, split: int | None = None) -> float:
        """Return positives per example (in [0, 1]) of one window or both; NaN without examples."""
        positives = self.positives.get(head, np.zeros(SPLITS, np.int64))
        chosen = slice(None) if split is None else slice(split, split + 1)
        examples = int(self.examples[chosen].sum())
        return int(positives[chosen].sum()) / examples if examples else float("nan")


def measure_shard(
    tables: dict[str, pa.Table],
    features: FeatureConfig,
    is_zero_pin: NDArray[np.bool_],
    pin_known_at: NDArray[np.int64] | None = None,
) -> Measures:
    """Measure one shard whose schema, pointers and references were found sound.

    Args:
        tables: 'timeline', 'requests', 'examples' and 'users'.
        features: Which columns exist.
        is_zero_pin: (pins,) whether the pin's embedding is all zero.
        pin_known_at: (pins,) when the embedding became known, in ms; None where the log does not
            say. To a request that is not later the pin has an embedding of zeros.
    """
    requests, examples = tables["requests"], tables["examples"]
    split = to_numpy(requests["split"]).astype(np.int64)
    split_of_example = np.repeat(split, to_numpy(requests["num_examples"]))
    lengths = to_numpy(requests["timeline_end"]) - to_numpy(requests["timeline_start"])
    days, counts = np.unique(to_numpy(requests["impressed_at"]) // DAY_MS, return_counts=True)
    found = Measures(
        requests=np.bincount(split, minlength=SPLITS),
        examples=np.bincount(split_of_example, minlength=SPLITS),
        exploration=_count(split_of_example, to_numpy(examples["is_exploration"])),
        positives={
            head: _count(split_of_example, to_numpy(examples[label_column(head)]) == 1)
            for head in features.head_names
        },
        with_sequence=int((lengths > 0).sum()),
        zero_embeddings=_count_zero_embeddings(tables, is_zero_pin, pin_known_at),
        requests_per_day=dict(zip(days.tolist(), counts.tolist(), strict=True)),
        labels_per_day=_labels_per_day(tables, features),
    )
    found.histograms[SEQUENCE_LENGTH] = _histogram(lengths, LENGTH_EDGES)
    for numeric in features.numeric_held:
        _add_numbers(found, numeric, examples)
    for feature in features.categorical_of("impressions"):
        add_codes(found, feature, examples)
    for feature in features.categorical_of("users"):
        add_codes(found, feature, tables["users"].take(pa.array(to_numpy(requests["user_row"]))))
    return found


def _add_numbers(found: Measures, feature: NumericFeature, examples: pa.Table) -> None:
    """Count a numeric feature's values where it is not missing, and where it is missing."""
    values, *flags = (to_numpy(examples[numeric_column(name)]) for name in feature.inputs)
    for flag in flags:
        # A flag that is neither 0 nor 1 breaks a rule of its own, and must not break this count.
        is_missing = flag != 0
        found.histograms[flag_name(feature.name)] = np.bincount(is_missing, minlength=2)
        values = values[~is_missing]
    edges = NUMERIC_EDGES[feature.meaning.scale]
    found.histograms[feature.name] = _histogram(values, edges)


def _count_zero_embeddings(
    tables: dict[str, pa.Table],
    is_zero_pin: NDArray[np.bool_],
    pin_known_at: NDArray[np.int64] | None,
) -> int:
    """Return how many candidates have an embedding of zeros for their request."""
    pin_row = to_numpy(tables["examples"]["pin_row"])
    is_zero = is_zero_pin[pin_row]
    if pin_known_at is not None:
        names = ("impressed_at", "num_examples")
        impressed_at, num_examples = (to_numpy(tables["requests"][name]) for name in names)
        is_zero = is_zero | is_known_late(
            pin_known_at[pin_row], np.repeat(impressed_at, num_examples)
        )
    return int(is_zero.sum())


def _labels_per_day(
    tables: dict[str, pa.Table], features: FeatureConfig
) -> dict[int, NDArray[np.int64]]:
    """Return examples and each head's positives, by the day of the request."""
    requests, examples = tables["requests"], tables["examples"]
    day_of_request = to_numpy(requests["impressed_at"]) // DAY_MS
    days, place = np.unique(
        np.repeat(day_of_request, to_numpy(requests["num_examples"])), return_inverse=True
    )
    columns = [np.bincount(place, minlength=len(days))]
    for head in features.head_names:
        is_positive = to_numpy(examples[label_column(head)]) == 1
        columns.append(np.bincount(place[is_positive], minlength=len(days)))
    rows = np.stack(columns, axis=1).astype(np.int64)
    return dict(zip(days.tolist(), rows, strict=True))


def add_codes(found: Measures, feature: CategoricalFeature, table: pa.Table) -> None:
    """Count a categorical feature's codes; 0 stands for a value outside the closed list."""
    codes = to_numpy(table[categorical_column(feature.name)])
    found.histograms[feature.name] = np.bincount(codes, minlength=len(feature.values) + 1)


def population_stability_index(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """Return sum (p - q) ln(p / q) over bins; 0 means equal shares, 0.25 a marked shift.

    Half a row is added to each bin, so that an empty bin gives a finite number. Two samples of n
    and m rows from one distribution have an expected index of about (bins - 1)(1/n + 1/m) instead
    of 0, which is why the gate wants a minimum number of rows (Yurdakul, Statistical Properties of
    Population Stability Index, 2018).

    Args:
        now: (bins,) rows per bin.
        before: (bins,) rows per bin of the reference.
    """
    p, q = (now + 0.5) / (now + 0.5).sum(), (before + 0.5) / (before + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())


def quantile_distance(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """Return the mean distance between the quantiles of two histograms, in deviations of `before`.

    It is the Wasserstein distance of order 1: the integral over u of |Q_now(u) - Q_before(u)|, with
    a bin's number as its place. Where all of `before` lies in one bin, a bin is the unit. Unlike
    the population stability index it grows with how far values move, so that a small move of all
    of them is told from noise in single bins.

    Args:
        now: (bins,) rows per bin, not all 0; bins in the order of their values.
        before: (bins,) rows per bin of the reference, not all 0.
    """
    p, q = now / now.sum(), before / before.sum()
    places = np.arange(len(q))
    variance = float((q * places**2).sum() - (q * places).sum() ** 2)
    unit = float(np.sqrt(max(variance, 0.0))) or 1.0
    return float(np.abs(np.cumsum(p - q)).sum()) / unit


def _count(split_of_example: NDArray[np.int64], mask: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many examples of each window are marked."""
    return np.bincount(split_of_example[np.asarray(mask, dtype=bool)], minlength=SPLITS)


def _histogram(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of rows in each bin; the last bin has no upper edge."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
    return np.bincount(bins, minlength=len(edges))
