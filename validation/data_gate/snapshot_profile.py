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
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import FeatureConfig, flag_name
from pipelines.contracts.features import Scale
from pipelines.contracts.schemas import SHARD_FILES, is_known_late, label_column, numeric_column
from pipelines.contracts.time import DAY_MS
from validation.data_gate.canaries import Canaries
from validation.data_gate.rows import BrokenRows, check_pins, check_shard, count_codes, read_tables

log = logging.getLogger(__name__)

FORMAT_VERSION = 6
"""To be raised when a measure or its bins change their meaning."""
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

Counts = NDArray[np.int64]


def _none() -> Counts:
    return np.zeros(SPLITS, np.int64)


@dataclass
class Measures:
    """Sums over some shards. In arrays of two, index 0 is the training window, 1 the holdout."""

    requests: Counts = field(default_factory=_none)
    examples: Counts = field(default_factory=_none)
    positives: dict[str, Counts] = field(default_factory=dict)  # head -> (2,)
    with_sequence: int = 0  # requests with at least one earlier action
    zero_embeddings: int = 0  # examples whose candidate's embedding is all zero to their request
    # By days since the epoch: examples, the positives of each head in the recipe's order.
    days: dict[int, Counts] = field(default_factory=dict)
    # By feature. Of a categorical feature, the first bin holds the values outside the closed list;
    # of a numeric one, only rows where it is not missing count, and its flag has a histogram too.
    histograms: dict[str, Counts] = field(default_factory=dict)

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
        positives, examples = self.positives.get(head, _none()), self.examples
        if split is not None:
            positives, examples = positives[split], examples[split]
        return int(positives.sum()) / int(examples.sum()) if examples.any() else float("nan")


def measure_shard(
    tables: dict[str, pa.Table],
    features: FeatureConfig,
    is_zero_pin: NDArray[np.bool_],
    pin_known_at: Counts | None = None,
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
    split, impressed_at = (to_numpy(requests[name]) for name in ("split", "impressed_at"))
    request = np.repeat(np.arange(len(split)), to_numpy(requests["num_examples"]))
    window, day = split.astype(np.int64), impressed_at // DAY_MS
    days, place = np.unique(day, return_inverse=True)
    lengths = to_numpy(requests["timeline_end"]) - to_numpy(requests["timeline_start"])
    pin_row = to_numpy(examples["pin_row"])
    is_zero = is_zero_pin[pin_row]
    if pin_known_at is not None:
        is_zero = is_zero | is_known_late(pin_known_at[pin_row], impressed_at[request])
    found = Measures(
        requests=np.bincount(window, minlength=SPLITS),
        examples=np.bincount(window[request], minlength=SPLITS),
        with_sequence=int((lengths > 0).sum()),
        zero_embeddings=int(is_zero.sum()),
    )
    of_days = [place[request]]
    for head in features.head_names:
        positive = request[to_numpy(examples[label_column(head)]) == 1]
        found.positives[head] = np.bincount(window[positive], minlength=SPLITS)
        of_days.append(place[positive])
    rows = np.stack([np.bincount(each, minlength=len(days)) for each in of_days], axis=1)
    found.days = dict(zip(days.tolist(), rows.astype(np.int64), strict=True))
    found.histograms[SEQUENCE_LENGTH] = _histogram(lengths, LENGTH_EDGES)
    for numeric in features.numeric_held:
        values, *flags = (to_numpy(examples[numeric_column(name)]) for name in numeric.inputs)
        for flag in flags:
            # A flag that is neither 0 nor 1 breaks a rule of its own, and must not break this.
            is_missing = flag != 0
            found.histograms[flag_name(numeric.name)] = np.bincount(is_missing, minlength=2)
            values = values[~is_missing]
        found.histograms[numeric.name] = _histogram(values, NUMERIC_EDGES[numeric.meaning.scale])
    for feature in features.categorical_of("impressions"):
        found.histograms[feature.name] = count_codes(feature, examples)
    for feature in features.categorical_of("users"):
        users = tables["users"].take(pa.array(to_numpy(requests["user_row"])))
        found.histograms[feature.name] = count_codes(feature, users)
    return found


def _histogram(values: NDArray[Any], edges: NDArray[Any]) -> Counts:
    """Return the number of rows in each bin; the last bin has no upper edge."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
    return np.bincount(bins, minlength=len(edges))


@dataclass
class SnapshotProfile:
    """What the data gate knows of a snapshot."""

    shards: dict[str, BrokenRows] = field(default_factory=dict)  # by shard name
    pins: BrokenRows = field(default_factory=lambda: BrokenRows("files", "pins"))
    measures: Measures = field(default_factory=Measures)
    unmeasured_shards: list[str] = field(default_factory=list)
    pin_spread: float = float("nan")  # see `rows.CheckedPins.spread`
    shifts: dict[str, list[float]] = field(default_factory=dict)  # see `shifts.kept_shifts`


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
        pins=pins.broken, measures=Measures(histograms=dict(pins.codes)), pin_spread=pins.spread
    )
    for number, stats in enumerate(snapshot.shards, 1):
        broken = profile.shards[stats.name] = BrokenRows("files", "shards")
        paths = [f"{stats.name}/{file}.arrow" for file in SHARD_FILES]
        tables = read_tables(snapshot_dir, snapshot, paths, broken, pins.embedding_dim)
        # A shard is measured if its columns are sound, and its rows point where they should.
        measured = None
        if not broken.has("schema", "no_nulls"):
            broken.add("counts_match_manifest", 0)
            declared = {"timeline": stats.num_actions, "requests": stats.num_requests,
                        "examples": stats.num_examples}  # fmt: skip
            for file, num_rows in declared.items():
                if (num_found := tables[file].num_rows) != num_rows:
                    said = f"{file} has {num_found:,} rows, manifest {num_rows:,}"
                    broken.add("counts_match_manifest", 1, said)
            if check_shard(tables, snapshot, broken) and pins.is_zero is not None:
                measured = measure_shard(tables, snapshot.features, pins.is_zero, pins.known_at)
        if measured is None:
            profile.unmeasured_shards.append(stats.name)
        else:
            profile.measures.add(measured)
        log.info("checked %s (%d of %d)", stats.name, number, len(snapshot.shards))
    return profile


_KEPT = ("unmeasured_shards", "pin_spread", "shifts")
"""What of a profile is kept besides its measures; broken rows are not."""


def to_json(profile: SnapshotProfile, snapshot_digest: str) -> str:
    """Return the text of the file.

    Args:
        profile: What was measured.
        snapshot_digest: The snapshot that was measured.
    """
    value = {
        "format": FORMAT_VERSION,
        "snapshot_digest": snapshot_digest,
        "measures": vars(profile.measures),
        **{name: getattr(profile, name) for name in _KEPT},
    }
    return json.dumps(value, indent=1, default=np.ndarray.tolist)


def from_json(text: bytes | str, snapshot_digest: str) -> SnapshotProfile | None:
    """Return the profile in a file; None if it is of another format or of another snapshot."""

    def arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: arrays(inner) for name, inner in value.items()}
        return np.array(value, np.int64) if isinstance(value, list) else value

    value = json.loads(text)
    if (value["format"], value["snapshot_digest"]) != (FORMAT_VERSION, snapshot_digest):
        return None
    kept = {name: arrays(value["measures"][name]) for name in vars(Measures())}
    measures = Measures(**kept | {"days": {int(n): row for n, row in kept["days"].items()}})
    return SnapshotProfile(measures=measures, **{name: value[name] for name in _KEPT})
