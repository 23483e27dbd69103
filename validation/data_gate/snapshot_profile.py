"""Profile of a snapshot: how many of its rows break each rule, and what the rows look like.

A shard is read, every row of it is checked, and the shard is let go before the next one. So the
largest shard bounds the memory. Not for judging, which `validation.data_gate.gate` has done.
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
from pipelines.contracts.time import DAY_MS
from validation.data_gate.broken_rows import BrokenRows, find_altered, open_checked
from validation.data_gate.measures import Measures, measure_shard
from validation.data_gate.pin_checks import check_pins
from validation.data_gate.shard_checks import SHARD_RULES, check_shard

log = logging.getLogger(__name__)


@dataclass
class SnapshotProfile:
    """What the data gate knows of a snapshot."""

    shards: dict[str, BrokenRows] = field(default_factory=dict)  # by shard name
    pins: BrokenRows = field(default_factory=lambda: BrokenRows.of(()))
    measures: Measures = field(default_factory=Measures)
    unmeasured_shards: tuple[str, ...] = ()
    mean_pin_norm: float = float("nan")
    pin_spread: float = float("nan")  # see `pin_checks.CheckedPins.spread`


def profile_snapshot(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotProfile:
    """Check every row and measure every shard of a snapshot.

    Args:
        snapshot: The manifest.
        snapshot_dir: Local folder with its files.

    Returns:
        The counts by rule and partition; the count of a rule that was not checked is NaN.
    """
    profile = SnapshotProfile()
    pins = check_pins(snapshot, snapshot_dir)
    profile.pins, profile.pin_spread = pins.broken, pins.spread
    profile.mean_pin_norm = pins.mean_norm
    for feature, (histogram, unknown) in pins.codes.items():
        profile.measures.histograms[feature] = histogram
        profile.measures.unknown_codes[feature] = unknown
    unmeasured = []
    for number, stats in enumerate(snapshot.shards, 1):
        broken = BrokenRows.of(SHARD_RULES)
        measures = _profile_shard(snapshot, snapshot_dir, stats, pins.is_zero, broken)
        profile.shards[stats.name] = broken
        if measures is None:
            unmeasured.append(stats.name)
        else:
            profile.measures.add(measures)
        log.info("checked %s (%d of %d)", stats.name, number, len(snapshot.shards))
    profile.unmeasured_shards = tuple(unmeasured)
    return profile


def calendar_days(snapshot: Snapshot) -> list[tuple[str, int]]:
    """Return (label, days since the epoch) of each day that either window touches, in order."""
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
    broken: BrokenRows,
) -> Measures | None:
    """Check one shard, and measure it if its rows point where they should."""
    prefix = f"{stats.name}/"
    altered = find_altered(snapshot_dir, snapshot, prefix, broken)
    tables = {}
    for file in SHARD_FILES:
        table = open_checked(snapshot_dir, f"{prefix}{file}.arrow", snapshot, altered, broken)
        if table is not None:
            tables[file] = table
    broken.add_phrases("schema_problems", [])
    if broken.counts["schema_problems"] or broken.counts["null_values"]:
        return None
    _check_counts(tables, stats, broken)
    is_sound = check_shard(tables, snapshot, broken)
    if not is_sound or is_zero_pin is None:
        return None
    return measure_shard(tables, snapshot.features, is_zero_pin)


def _check_counts(tables: dict[str, pa.Table], stats: ShardStats, broken: BrokenRows) -> None:
    """Each file has as many rows as the manifest says."""
    mismatches = []
    for file, declared in (
        ("timeline", stats.num_actions),
        ("requests", stats.num_requests),
        ("examples", stats.num_examples),
    ):
        if tables[file].num_rows != declared:
            mismatches.append(f"{file} has {tables[file].num_rows:,} rows, manifest {declared:,}")
    broken.add_phrases("count_mismatches", mismatches)
