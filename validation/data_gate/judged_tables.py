"""The small tables that Great Expectations judges: one row for each shard, day, head or feature.

The first column is always `partition`, which names where a failed expectation failed. A value that
could not be measured is NaN and never 0. Not for bounds (`validation.data_gate.checks`).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import PINS_FILE, SPLIT_HOLDOUT, SPLIT_TRAINING
from validation.data_gate.broken_rows import BrokenRows
from validation.data_gate.measures import Measures, population_stability_index
from validation.data_gate.pin_checks import PIN_RULES
from validation.data_gate.shard_checks import SHARD_RULES
from validation.data_gate.snapshot_profile import SnapshotProfile, calendar_days

FILE_RULES = ("altered_files", "schema_problems", "null_values")
"""Rules that hold for the pins' file and for the files of a shard alike."""
WHOLE = "snapshot"
"""Partition of a measure that is about the whole snapshot."""
NAN = float("nan")


def make_tables(
    snapshot: Snapshot, profile: SnapshotProfile, reference: SnapshotProfile | None
) -> dict[str, pd.DataFrame]:
    """Return the tables by name: files, shards, pins, days, snapshot, heads, categories, features.

    Args:
        snapshot: The manifest of what is judged.
        profile: Its profile.
        reference: Profile of the last accepted snapshot, or None.
    """
    pins = {PINS_FILE: profile.pins}
    frames = {
        "files": _broken_table(pins | profile.shards, FILE_RULES),
        "shards": _broken_table(profile.shards, _without_file_rules(SHARD_RULES)),
        "pins": _broken_table(pins, _without_file_rules(PIN_RULES)),
        "days": _day_frame(snapshot, profile.measures),
        "snapshot": _snapshot_frame(snapshot, profile, reference),
        "heads": _head_frame(snapshot, profile.measures, reference),
        "categories": _category_frame(profile.measures),
        "features": _feature_frame(profile.measures, reference),
    }
    if profile.unmeasured_shards:
        # The rates of the shards that could be measured say nothing of the whole snapshot.
        for name in ("days", "snapshot", "heads", "categories", "features"):
            frames[name].loc[:, frames[name].columns != "partition"] = NAN
    return frames


def _without_file_rules(rules: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(rule for rule in rules if rule not in FILE_RULES)


def _broken_table(
    broken_by_partition: Mapping[str, BrokenRows], rules: tuple[str, ...]
) -> pd.DataFrame:
    """Return how many rows break each rule, in each partition."""
    rows = [
        {"partition": partition} | {rule: broken.counts[rule] for rule in rules}
        for partition, broken in broken_by_partition.items()
    ]
    return pd.DataFrame(rows, columns=["partition", *rules])


def _day_frame(snapshot: Snapshot, measures: Measures) -> pd.DataFrame:
    """Return each day's requests, as a share of the median day of its window."""
    labels_and_days = calendar_days(snapshot)
    counts = np.array([measures.requests_per_day[day] for _, day in labels_and_days], dtype=float)
    median = float(np.median(counts)) if len(counts) else 0.0
    rows = [
        {"partition": label, "share_of_median_day": count / median if median else 0.0}
        for (label, _), count in zip(labels_and_days, counts, strict=True)
    ]
    return pd.DataFrame(rows, columns=["partition", "share_of_median_day"])


def _snapshot_frame(
    snapshot: Snapshot, profile: SnapshotProfile, reference: SnapshotProfile | None
) -> pd.DataFrame:
    """Return the measures of the whole snapshot, in one row."""
    measures, target = profile.measures, snapshot.features.heads[0].name
    examples, requests = int(measures.examples.sum()), int(measures.requests.sum())
    dropped = snapshot.num_duplicate_impressions
    exploration = _shares(measures.exploration, measures.examples)
    before = reference.measures if reference is not None else None
    row = {
        "partition": WHOLE,
        "training_requests": float(measures.requests[SPLIT_TRAINING]),
        "holdout_requests": float(measures.requests[SPLIT_HOLDOUT]),
        "target_rate_training": measures.label_rate(target, SPLIT_TRAINING),
        "target_rate_holdout": measures.label_rate(target, SPLIT_HOLDOUT),
        "sequence_share": measures.with_sequence / requests if requests else NAN,
        "zero_embedding_share": measures.zero_embeddings / examples if examples else NAN,
        "pin_spread": profile.pin_spread,
        "duplicate_share": dropped / (examples + dropped) if examples + dropped else NAN,
        "exploration_gap": float(exploration[SPLIT_HOLDOUT] - exploration[SPLIT_TRAINING]),
        "row_count_change": NAN if before is None else _change(examples, before.examples.sum()),
        "target_rate_change": NAN
        if before is None
        else _change(measures.label_rate(target), before.label_rate(target)),
        "pin_norm_change": NAN
        if reference is None
        else _change(profile.mean_pin_norm, reference.mean_pin_norm),
    }
    return pd.DataFrame([row])


def _head_frame(
    snapshot: Snapshot, measures: Measures, reference: SnapshotProfile | None
) -> pd.DataFrame:
    """Return each head's positives, and how its label rate changed.

    The changes are those from training to holdout and from the reference to this snapshot.
    """
    rows = []
    for head in snapshot.features.head_names:
        known = reference is not None and head in reference.measures.positives
        rows.append(
            {
                "partition": head,
                "training_positives": _positives(measures, head),
                "holdout_change": _change(
                    measures.label_rate(head, SPLIT_HOLDOUT),
                    measures.label_rate(head, SPLIT_TRAINING),
                ),
                # A head that the reference did not have has not shifted.
                "reference_change": _change(
                    measures.label_rate(head), reference.measures.label_rate(head)
                )
                if reference is not None and known
                else 0.0,
            }
        )
    return pd.DataFrame(rows)


def _positives(measures: Measures, head: str) -> float:
    """Return a head's positives in training; NaN if no shard could be measured."""
    found = measures.positives.get(head)
    return NAN if found is None else float(found[SPLIT_TRAINING])


def _category_frame(measures: Measures) -> pd.DataFrame:
    """Return each categorical feature's share of values outside the closed list."""
    rows = [
        {"partition": name, "unknown_share": unknown / rows if rows else NAN}
        for name, (unknown, rows) in sorted(measures.unknown_codes.items())
    ]
    return pd.DataFrame(rows, columns=["partition", "unknown_share"])


def _feature_frame(measures: Measures, reference: SnapshotProfile | None) -> pd.DataFrame:
    """Return the PSI of each feature that both snapshots have with the same bins."""
    before = reference.measures.histograms if reference is not None else {}
    rows = [
        {"partition": name, "psi": population_stability_index(histogram, before[name])}
        for name, histogram in sorted(measures.histograms.items())
        if name in before and len(before[name]) == len(histogram)
    ]
    return pd.DataFrame(rows, columns=["partition", "psi"])


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), NAN), where=whole > 0)


def _change(now: float, before: float) -> float:
    """Return the relative change; NaN where the value before is 0."""
    return float(now / before - 1.0) if before else NAN
