"""What a snapshot's rows look like: counts and histograms that add up over shards, kept as a file.

Every measure is a sum. So a snapshot of any size is measured one shard at a time, and two snapshots
are compared by their sums; a table of all examples never exists, which Great Expectations would
load as a whole (great_expectations#5613). A shard is read, every row of it is checked (`rows`) and
measured, and the shard is let go before the next one, so that the largest shard bounds the memory.
The next cycle reads the measures from a JSON file beside the accepted snapshot. Not for judging:
`checks` holds the bounds. Tested in tests/validation/data_gate/test_snapshot_profile.py.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import ShardStats, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.config import FeatureConfig, NumericFeature, flag_name
from pipelines.contracts.features import Scale
from pipelines.contracts.schemas import (
    PINS_FILE,
    SHARD_FILES,
    is_known_late,
    label_column,
    numeric_column,
)
from pipelines.contracts.time import DAY_MS
from validation.data_gate.canaries import Canaries
from validation.data_gate.rows import (
    BrokenRows,
    CheckedPins,
    check_pins,
    check_shard,
    count_codes,
    read_tables,
    rules_of,
)

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""To be raised when a measure changes its meaning. A change of bins changes the format by
itself."""
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
        found.histograms[feature.name] = count_codes(feature, examples)
    for feature in features.categorical_of("users"):
        users = tables["users"].take(pa.array(to_numpy(requests["user_row"])))
        found.histograms[feature.name] = count_codes(feature, users)
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


@dataclass
class SnapshotProfile:
    """What the data gate knows of a snapshot."""

    shards: dict[str, BrokenRows] = field(default_factory=dict)  # by shard name
    pins: BrokenRows = field(default_factory=lambda: BrokenRows(rules_of("files", "pins")))
    measures: Measures = field(default_factory=Measures)
    unmeasured_shards: list[str] = field(default_factory=list)
    mean_pin_norm: float = float("nan")
    pin_spread: float = float("nan")  # see `rows.CheckedPins.spread`
    shifts: dict[str, list[float]] = field(default_factory=dict)  # see `shifts.kept_shifts`

    @property
    def by_partition(self) -> dict[str, BrokenRows]:
        """The broken rows of the pins and of each shard, under the name of the partition."""
        return {PINS_FILE: self.pins, **self.shards}


@dataclass(frozen=True)
class Reference:
    """The last accepted snapshot, as far as it is still known."""

    snapshot: Snapshot
    profile: SnapshotProfile
    canaries: Canaries | None = None  # None where none were kept


def profile_snapshot(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotProfile:
    """Check every row and measure every shard of a snapshot.

    Args:
        snapshot: The manifest.
        snapshot_dir: Local folder with its files.

    Returns:
        The counts by rule and partition; the count of a rule that was not checked is NaN.
    """
    pins = check_pins(snapshot, snapshot_dir)
    profile = SnapshotProfile(
        pins=pins.broken,
        measures=Measures(histograms=dict(pins.codes)),
        mean_pin_norm=pins.mean_norm,
        pin_spread=pins.spread,
    )
    for number, stats in enumerate(snapshot.shards, 1):
        broken = profile.shards[stats.name] = BrokenRows(rules_of("files", "shards"))
        measures = _profile_shard(snapshot, snapshot_dir, stats, pins, broken)
        if measures is None:
            profile.unmeasured_shards.append(stats.name)
        else:
            profile.measures.add(measures)
        log.info("checked %s (%d of %d)", stats.name, number, len(snapshot.shards))
    return profile


def _profile_shard(
    snapshot: Snapshot,
    snapshot_dir: Path,
    stats: ShardStats,
    pins: CheckedPins,
    broken: BrokenRows,
) -> Measures | None:
    """Check one shard, and measure it if its rows point where they should."""
    paths = [f"{stats.name}/{file}.arrow" for file in SHARD_FILES]
    tables = read_tables(snapshot_dir, snapshot, paths, broken, pins.embedding_dim)
    if broken.has("schema", "no_nulls"):
        return None
    declared = {
        "timeline": stats.num_actions,
        "requests": stats.num_requests,
        "examples": stats.num_examples,
    }
    mismatches = [
        f"{file} has {tables[file].num_rows:,} rows, manifest {num_rows:,}"
        for file, num_rows in declared.items()
        if tables[file].num_rows != num_rows
    ]
    broken.add_phrases("counts_match_manifest", mismatches)
    is_sound = check_shard(tables, snapshot, broken)
    if not is_sound or pins.is_zero is None:
        return None
    return measure_shard(tables, snapshot.features, pins.is_zero, pins.known_at)


def _format() -> str:
    """Return what the file's numbers mean, as a digest: the version and the bins."""
    bins = {scale: edges.tolist() for scale, edges in NUMERIC_EDGES.items()}
    return digest_of([FORMAT_VERSION, bins, LENGTH_EDGES.tolist()])[:16]


def to_json(profile: SnapshotProfile, snapshot_digest: str) -> str:
    """Return the text of the file.

    Args:
        profile: What was measured.
        snapshot_digest: The snapshot that was measured.
    """
    value = {
        "format": _format(),
        "snapshot_digest": snapshot_digest,
        "unmeasured_shards": profile.unmeasured_shards,
        "mean_pin_norm": profile.mean_pin_norm,
        "pin_spread": profile.pin_spread,
        "measures": vars(profile.measures),
        "shifts": profile.shifts,
    }
    return json.dumps(value, indent=1, default=np.ndarray.tolist)


def from_json(text: bytes | str, snapshot_digest: str) -> SnapshotProfile | None:
    """Return the profile in a file; None if it is of another format or of another snapshot."""
    try:
        value = json.loads(text)
        if value["snapshot_digest"] != snapshot_digest:
            return None
        if value["format"] != _format():
            return None
        return SnapshotProfile(
            measures=_measures(value["measures"]),
            unmeasured_shards=value["unmeasured_shards"],
            mean_pin_norm=value["mean_pin_norm"],
            pin_spread=value["pin_spread"],
            shifts=value["shifts"],
        )
    except (ValueError, KeyError, TypeError) as error:
        log.warning("the kept profile of snapshot %s is damaged: %r", snapshot_digest[:16], error)
        return None


def _measures(value: dict[str, Any]) -> Measures:
    """Return the measures with their types, which JSON does not know."""
    if value.keys() != vars(Measures()).keys():
        raise KeyError(f"expected the measures {sorted(vars(Measures()))}, found {sorted(value)}")
    days = {int(day): count for day, count in value["requests_per_day"].items()}
    labels = {int(day): np.array(row, np.int64) for day, row in value["labels_per_day"].items()}
    found = {name: _arrays(counts) for name, counts in value.items()}
    return Measures(**found | {"requests_per_day": days, "labels_per_day": labels})


def _arrays(value: Any) -> Any:
    """Return lists of counts as arrays, also inside a dictionary."""
    if isinstance(value, dict):
        return {name: _arrays(inner) for name, inner in value.items()}
    return np.array(value, np.int64) if isinstance(value, list) else value
