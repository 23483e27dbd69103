"""Profile of a snapshot: how many of its rows break each rule, and what the rows look like.

A shard is read, every row of it is checked, and the shard is let go before the next one. So the
largest shard bounds the memory. Not for judging: that comes afterwards, in
`validation.data_gate.gate`. Tested in tests/validation/data_gate/test_shard_checks.py and
test_kept_profile.py.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.contracts.artifacts import ShardStats, Snapshot
from pipelines.contracts.schemas import PINS_FILE, SHARD_FILES
from validation.data_gate.broken_rows import FILE_RULES, BrokenRows, read_tables
from validation.data_gate.canaries import Canaries
from validation.data_gate.measures import Measures, measure_shard
from validation.data_gate.pin_checks import PIN_RULES, CheckedPins, check_pins
from validation.data_gate.shard_checks import SHARD_RULES, check_shard

log = logging.getLogger(__name__)


@dataclass
class SnapshotProfile:
    """What the data gate knows of a snapshot."""

    shards: dict[str, BrokenRows] = field(default_factory=dict)  # by shard name
    pins: BrokenRows = field(default_factory=lambda: BrokenRows((*FILE_RULES, *PIN_RULES)))
    measures: Measures = field(default_factory=Measures)
    unmeasured_shards: list[str] = field(default_factory=list)
    mean_pin_norm: float = float("nan")
    pin_spread: float = float("nan")  # see `pin_checks.CheckedPins.spread`
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
        measures=pins.measures,
        mean_pin_norm=pins.mean_norm,
        pin_spread=pins.spread,
    )
    for number, stats in enumerate(snapshot.shards, 1):
        broken = profile.shards[stats.name] = BrokenRows((*FILE_RULES, *SHARD_RULES))
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
    if broken.has("schema_problems", "null_values"):
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
    broken.add_phrases("count_mismatches", mismatches)
    is_sound = check_shard(tables, snapshot, broken)
    if not is_sound or pins.is_zero is None:
        return None
    return measure_shard(tables, snapshot.features, pins.is_zero, pins.known_at)
