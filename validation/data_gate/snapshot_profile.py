"""Profile of a snapshot: small tables of counts and measures, one row per shard, day or feature.

Not for judging. These tables are what Great Expectations sees. A shard is read, checked row by row
and let go before the next, so memory is bounded by the largest shard and the rules are exact.
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.artifacts import ShardStats, Snapshot
from pipelines.contracts.schemas import SHARD_FILES
from pipelines.contracts.snapshot_files import altered_files
from pipelines.contracts.time import DAY_MS
from validation.data_gate.measures import Measures, measure_shard
from validation.data_gate.pin_checks import check_pins
from validation.data_gate.shard_checks import SHARD_RULES, check_shard
from validation.data_gate.tally import Tally, open_checked

log = logging.getLogger(__name__)


@dataclass
class SnapshotProfile:
    """What the data gate knows of a snapshot."""

    shards: dict[str, Tally] = field(default_factory=dict)  # by shard name
    pins: Tally = field(default_factory=lambda: Tally.of(()))
    measures: Measures = field(default_factory=Measures)
    unmeasured_shards: tuple[str, ...] = ()
    mean_pin_norm: float = float("nan")
    pin_spread: float = float("nan")  # 0: all pins alike; about 1: all directions


def profile_snapshot(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotProfile:
    """Check every row and measure every shard of a snapshot.

    Args:
        snapshot: The manifest.
        snapshot_dir: Local folder with its files.

    Returns:
        Counts per rule and partition; a rule that could not be checked has NaN.
    """
    profile = SnapshotProfile()
    pins = check_pins(snapshot, snapshot_dir)
    profile.pins, profile.pin_spread = pins.tally, pins.spread
    profile.mean_pin_norm = pins.mean_norm
    for feature, (histogram, unknown) in pins.codes.items():
        profile.measures.histograms[feature] = histogram
        profile.measures.unknown_codes[feature] = unknown
    unmeasured = []
    for number, stats in enumerate(snapshot.shards, 1):
        tally = Tally.of(SHARD_RULES)
        measures = _profile_shard(snapshot, snapshot_dir, stats, pins.is_zero, tally)
        profile.shards[stats.name] = tally
        if measures is None:
            unmeasured.append(stats.name)
        else:
            profile.measures.add(measures)
        log.info("checked %s (%d of %d)", stats.name, number, len(snapshot.shards))
    profile.unmeasured_shards = tuple(unmeasured)
    return profile


def calendar_days(snapshot: Snapshot) -> list[tuple[str, int]]:
    """Return (label, days since the epoch) of each day that both windows touch, in order."""
    days = []
    for window, name in ((snapshot.training, "training"), (snapshot.holdout, "holdout")):
        for day in range(window.start_ms // DAY_MS, -(-window.end_ms // DAY_MS)):
            date = datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date()
            days.append((f"{date} ({name})", day))
    return days


def _profile_shard(
    snapshot: Snapshot,
    snapshot_dir: Path,
    stats: ShardStats,
    is_zero_pin: NDArray[np.bool_] | None,
    tally: Tally,
) -> Measures | None:
    """Check one shard; measure it if its rows can be trusted to point where they should."""
    prefix = f"{stats.name}/"
    own_files = tuple(file for file in snapshot.files if file.path.startswith(prefix))
    tally.add_phrases("altered_files", altered_files(snapshot_dir, own_files))
    tables = {}
    for file in SHARD_FILES:
        table = open_checked(snapshot_dir, f"{prefix}{file}.arrow", file, snapshot, tally)
        if table is not None:
            tables[file] = table
    tally.add_phrases("schema_problems", [])
    if tally.counts["schema_problems"] or tally.counts["null_values"]:
        return None
    _check_counts(tables, stats, tally)
    is_sound = check_shard(tables, snapshot, tally)
    if not is_sound or is_zero_pin is None:
        return None
    return measure_shard(tables, snapshot.features, is_zero_pin)


def _check_counts(tables: dict[str, pa.Table], stats: ShardStats, tally: Tally) -> None:
    """Rows per file agree with the manifest."""
    mismatches = []
    for file, declared in (
        ("timeline", stats.num_actions),
        ("requests", stats.num_requests),
        ("examples", stats.num_examples),
    ):
        if tables[file].num_rows != declared:
            mismatches.append(f"{file} has {tables[file].num_rows:,} rows, manifest {declared:,}")
    tally.add_phrases("count_mismatches", mismatches)
