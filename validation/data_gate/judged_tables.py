"""The small tables that Great Expectations judges: one row for each shard, day, head or category.

The first column is always `partition`, which names where a failed expectation failed. A value that
could not be measured is NaN and never 0. Not for bounds (`validation.data_gate.checks`). Tested in
tests/validation/data_gate/test_checks.py and test_gate.py.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.data_rules import LABEL_RATE_BY_MEDIAN
from pipelines.contracts.schemas import PINS_FILE, SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.contracts.time import DAY_MS
from validation.data_gate.rows import BrokenRows, rules_of
from validation.data_gate.snapshot_profile import Measures, SnapshotProfile

WHOLE = "snapshot"
"""Partition of a measure that is about the whole snapshot."""
NAN = float("nan")


def make_tables(
    snapshot: Snapshot, profile: SnapshotProfile, reference: SnapshotProfile | None
) -> dict[str, pd.DataFrame]:
    """Return the tables by name: files, shards, pins, days, snapshot, heads, categories.

    Args:
        snapshot: The manifest of what is judged.
        profile: Its profile.
        reference: Profile of the last accepted snapshot, or None.
    """
    reference = reference or SnapshotProfile()
    tables = {
        "files": _broken_table(profile.by_partition, rules_of("files")),
        "shards": _broken_table(profile.shards, rules_of("shards")),
        "pins": _broken_table({PINS_FILE: profile.pins}, rules_of("pins")),
        "days": _day_table(snapshot, profile.measures),
        "snapshot": _snapshot_table(snapshot, profile, reference),
        "heads": _head_table(snapshot, profile.measures),
        "categories": _category_table(snapshot, profile.measures),
    }
    if profile.unmeasured_shards:
        # The rates of the shards that could be measured say nothing of the whole snapshot.
        for name in ("days", "snapshot", "heads", "categories"):
            tables[name].loc[:, tables[name].columns != "partition"] = NAN
    return tables


def _broken_table(
    broken_by_partition: Mapping[str, BrokenRows], rules: tuple[str, ...]
) -> pd.DataFrame:
    """Return how many rows break each rule, in each partition."""
    rows = [
        {"partition": partition} | {rule: broken.count(rule) for rule in rules}
        for partition, broken in broken_by_partition.items()
    ]
    return pd.DataFrame(rows, columns=["partition", *rules])


def _day_table(snapshot: Snapshot, measures: Measures) -> pd.DataFrame:
    """Return each day that either window touches: its requests and its label rate.

    Both are shares of the median day's. The rate stands there twice: of all heads, and of those
    whose action had been launched by then.
    """
    counts, days = {}, []
    for window, name in ((snapshot.training, "training"), (snapshot.holdout, "holdout")):
        for day in range(window.start_ms // DAY_MS, -(-window.end_ms // DAY_MS)):
            date = datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date()
            counts[f"{date} ({name})"] = float(measures.requests_per_day.get(day, 0))
            days.append(day)
    median = np.median(list(counts.values()))
    shares = [count / median if median else 0.0 for count in counts.values()]
    rates = rate_shares(measures)
    main = snapshot.features.head_names.index(snapshot.features.main_head.name)
    launched = rate_shares(measures, main)
    missing = 1.0 if rates else NAN
    return pd.DataFrame(
        {
            "partition": list(counts),
            "share_of_median_day": shares,
            "share_of_median_rate": [rates.get(day, missing) for day in days],
            "share_of_launched_rate": [launched.get(day, missing) for day in days],
        }
    )


def rate_shares(measures: Measures, main_head: int | None = None) -> dict[int, float]:
    """Return, by day, the lowest label rate of a head against the head's median day.

    A head counts on a day on which its median rate would give enough positives.

    Args:
        measures: The snapshot's.
        main_head: The place of the main head. Where it is given, another head does not count on the
            days before its first positive on which any head has positives: a new action type was
            not launched yet, and nothing is missing. None counts these days too.
    """
    days = sorted(day for day, row in measures.labels_per_day.items() if row[0])
    if not days:
        return {}
    rows = np.stack([measures.labels_per_day[day] for day in days])
    rates = rows[:, 1:] / rows[:, :1]
    usual = np.median(rates, axis=0)
    is_telling = usual * rows[:, :1] >= LABEL_RATE_BY_MEDIAN.fewest
    if main_head is not None:
        is_launched = (np.cumsum(rows[:, 1:], axis=0) > 0) | ~rows[:, 1:].any(axis=1, keepdims=True)
        is_launched[:, main_head] = True
        is_telling &= is_launched
    shares = np.divide(rates, usual, out=np.ones_like(rates), where=is_telling)
    return dict(zip(days, shares.min(axis=1).tolist(), strict=True))


def _snapshot_table(
    snapshot: Snapshot, profile: SnapshotProfile, reference: SnapshotProfile
) -> pd.DataFrame:
    """Return the measures of the whole snapshot, in one row."""
    measures, target = profile.measures, snapshot.features.main_head.name
    before = reference.measures
    examples, requests = int(measures.examples.sum()), int(measures.requests.sum())
    dropped, events = snapshot.num_duplicate_impressions, snapshot.event_counts
    exploration = _shares(measures.exploration, measures.examples)
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
        "unknown_request_share": _share(
            events.num_naming_unknown, events.num_naming if examples else 0
        ),
        "early_share": _share(events.num_early, events.num_near if examples else 0),
        "exploration_gap": float(exploration[SPLIT_HOLDOUT] - exploration[SPLIT_TRAINING]),
        "row_count_change": _change(examples, before.examples.sum()),
        "target_rate_change": _change(measures.label_rate(target), before.label_rate(target)),
        "pin_norm_change": _change(profile.mean_pin_norm, reference.mean_pin_norm),
    }
    return pd.DataFrame([row])


def _head_table(snapshot: Snapshot, measures: Measures) -> pd.DataFrame:
    """Return each head's positives in training."""
    # Where no shard could be measured, the number is not known: NaN.
    counts = [
        float(measures.positives.get(head, [NAN])[SPLIT_TRAINING])
        for head in snapshot.features.head_names
    ]
    return pd.DataFrame(
        {"partition": list(snapshot.features.head_names), "training_positives": counts}
    )


def _category_table(snapshot: Snapshot, measures: Measures) -> pd.DataFrame:
    """Return each categorical feature's share of values outside the closed list."""
    names = sorted(feature.name for feature in snapshot.features.categorical)
    found = {name: measures.histograms[name] for name in names if name in measures.histograms}
    shares = [codes[0] / codes.sum() if codes.any() else NAN for codes in found.values()]
    return pd.DataFrame({"partition": list(found), "unknown_share": shares})


def _share(part: int, whole: int) -> float:
    return part / whole if whole else NAN


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), NAN), where=whole > 0)


def _change(now: float, before: float) -> float:
    """Return the relative change; NaN where the value before is 0."""
    return float(now / before - 1.0) if before else NAN
