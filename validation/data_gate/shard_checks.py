"""Checks of every row of one shard: how many rows break each rule of the snapshot's contract.

One shard is in memory at a time, and each rule is checked on whole columns. Great Expectations is
given one number for each rule and a phrase about the first broken row. Not for deciding what a
broken row means (`validation.data_gate.checks`).
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.features.catalogue import BOUNDS
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.schemas import (
    SPLIT_HOLDOUT,
    SPLIT_TRAINING,
    categorical_column,
    label_column,
    numeric_column,
)
from pipelines.contracts.time import EARLIEST_MS, to_ms
from validation.data_gate.broken_rows import BrokenRows

SHARD_RULES = (
    "count_mismatches",  # with the manifest, counted by `snapshot_profile`
    "bad_references",
    "bad_pointers",
    "bad_example_ranges",
    "duplicate_requests",
    "duplicate_candidates",
    "unknown_action_types",
    "bad_action_times",
    "disordered_actions",
    "future_actions",
    "missed_actions",
    "requests_outside_window",
    "bad_user_rows",
    "bad_labels",
    "bad_numbers",
    "bad_codes",
    "bad_user_embeddings",
    "bad_positions",
)
"""The rules of a shard's rows, besides those of its files."""


def check_shard(tables: dict[str, pa.Table], snapshot: Snapshot, broken: BrokenRows) -> bool:
    """Check one shard whose columns follow the contract and hold no nulls.

    Args:
        tables: 'timeline', 'requests', 'examples' and 'users'.
        snapshot: The manifest that the rows must agree with.
        broken: Receives the counts.

    Returns:
        Whether references, pointers and ranges are sound, so that the rows can be measured.
    """
    _check_references(tables, snapshot, broken)
    _check_pointers(tables, broken)
    _check_example_ranges(tables, broken)
    _check_action_rows(tables["timeline"], snapshot, broken)
    _check_examples(tables["examples"], snapshot, broken)
    _check_codes(tables, snapshot, broken)
    _check_request_rows(tables["requests"], snapshot, broken)
    _check_user_embeddings(tables["users"], broken)
    structure = ("bad_references", "bad_pointers", "bad_example_ranges", "requests_outside_window")
    if broken.has(*structure, "bad_codes"):
        return False  # the other rules would read rows that are not there; they stay unchecked
    _check_sequences(tables, broken)
    _check_users(tables, broken)
    _check_duplicate_candidates(tables, snapshot, broken)
    return True


def _check_references(tables: dict[str, pa.Table], snapshot: Snapshot, broken: BrokenRows) -> None:
    """Rows named in other tables must exist there."""
    for file, column, limit in (
        ("examples", "pin_row", snapshot.num_pins),
        ("timeline", "pin_row", snapshot.num_pins),
        ("requests", "user_row", tables["users"].num_rows),
    ):
        rows = to_numpy(tables[file][column])
        broken.check_range("bad_references", rows, f"{file}.{column}", 0, limit - 1)


def _check_pointers(tables: dict[str, pa.Table], broken: BrokenRows) -> None:
    """A request points into its user's own block of the timeline.

    That is: 0 <= start <= end <= rows, a user's requests have one start, and the blocks of two
    users do not overlap.
    """
    requests, num_actions = tables["requests"], tables["timeline"].num_rows
    start, end = to_numpy(requests["timeline_start"]), to_numpy(requests["timeline_end"])
    user = to_numpy(requests["user_id"])
    users, index = np.unique(user, return_inverse=True)
    first = np.full(len(users), np.iinfo(np.int64).max)
    last = np.full(len(users), -1)
    np.minimum.at(first, index, start)
    np.maximum.at(last, index, end)
    order = np.lexsort((last, first))
    is_overlapping = np.zeros(len(users), dtype=bool)
    is_overlapping[order[:-1]] = last[order[:-1]] > first[order[1:]]
    bad = (start < 0) | (end < start) | (end > num_actions) | (start != first[index])
    broken.add(
        "bad_pointers",
        bad | is_overlapping[index],
        lambda i: (
            f"request row {i} of user {user[i]} points at actions [{start[i]}, {end[i]}) of "
            f"{num_actions}, outside the user's own block"
        ),
    )


def _check_example_ranges(tables: dict[str, pa.Table], broken: BrokenRows) -> None:
    """Requests own the examples without gap or overlap, in order, at least one each."""
    requests, num_examples = tables["requests"], tables["examples"].num_rows
    first = to_numpy(requests["first_example"])
    count = to_numpy(requests["num_examples"]).astype(np.int64)
    expected = np.concatenate([[0], np.cumsum(count)])
    bad = (first != expected[:-1]) | (count < 1)
    broken.add(
        "bad_example_ranges",
        bad,
        lambda i: f"request row {i} starts at example {first[i]}, expected {expected[i]}",
    )
    if not bad.any() and expected[-1] != num_examples:
        broken.add_phrases(
            "bad_example_ranges",
            [f"{num_examples} examples, but the requests own {expected[-1]}"],
        )


def _check_action_rows(timeline: pa.Table, snapshot: Snapshot, broken: BrokenRows) -> None:
    """An action has a known type and plausible times, and is known no earlier than it happened."""
    column, num_types = "action_type_id", len(snapshot.features.action_types)
    broken.check_range("unknown_action_types", to_numpy(timeline[column]), column, 1, num_types)
    acted_at, known_at = to_numpy(timeline["acted_at"]), to_numpy(timeline["known_at"])
    as_of_ms = to_ms(snapshot.as_of)
    broken.add(
        "bad_action_times",
        (acted_at < EARLIEST_MS) | (known_at < acted_at) | (known_at >= as_of_ms),
        lambda i: (
            f"row {i} acted at {acted_at[i]} ms and known at {known_at[i]} ms, expected "
            f"{EARLIEST_MS} <= acted_at <= known_at < {as_of_ms} (as_of)"
        ),
    )


def _check_request_rows(requests: pa.Table, snapshot: Snapshot, broken: BrokenRows) -> None:
    """A request lies in the half-open window of its split and occurs once."""
    at, split = to_numpy(requests["impressed_at"]), to_numpy(requests["split"])
    training, holdout = snapshot.training, snapshot.holdout
    is_training = (split == SPLIT_TRAINING) & (at >= training.start_ms) & (at < training.end_ms)
    is_holdout = (split == SPLIT_HOLDOUT) & (at >= holdout.start_ms) & (at < holdout.end_ms)
    broken.add(
        "requests_outside_window",
        ~(is_training | is_holdout),
        lambda i: f"request row {i} of split {split[i]} at {at[i]} ms is outside its window",
    )
    ids = requests["request_id"]
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    broken.add_phrases(
        "duplicate_requests",
        [f"request {v['values']!r} occurs {v['counts']} times" for v in repeated],
    )


def _check_examples(examples: pa.Table, snapshot: Snapshot, broken: BrokenRows) -> None:
    """An example has labels of 0 or 1, finite and plausible numbers, and a position."""
    for column in map(label_column, snapshot.features.head_names):
        broken.check_range("bad_labels", to_numpy(examples[column]), column, 0, 1, "0 or 1")
    for feature in snapshot.features.numeric_held:
        _check_numbers(examples, feature, broken)
    position = to_numpy(examples["position"])
    broken.check_range("bad_positions", position, "position", 0, math.inf, "0 or more")


def _check_numbers(examples: pa.Table, feature: NumericFeature, broken: BrokenRows) -> None:
    """A number lies within the bounds of its scale; where it is missing, it is 0 and flagged."""
    column, *flags = map(numeric_column, feature.inputs)
    values, (low, high) = to_numpy(examples[column]), BOUNDS[feature.meaning.scale]
    broken.check_range("bad_numbers", values, column, low, high)
    for flag in flags:
        is_missing = to_numpy(examples[flag])
        broken.check_range("bad_numbers", is_missing, flag, 0, 1, "0 or 1")
        broken.add(
            "bad_numbers",
            (is_missing == 1) & (values != 0),
            lambda i: f"{column} is {values[i]} in row {i}, where it is missing, expected 0",
        )


def _check_codes(tables: dict[str, pa.Table], snapshot: Snapshot, broken: BrokenRows) -> None:
    """A categorical code is 0, which means unknown, to the number of declared values."""
    broken.add_phrases("bad_codes", [])
    for file, table in (("examples", "impressions"), ("users", "users")):
        for feature in snapshot.features.categorical_of(table):
            column, most = categorical_column(feature.name), len(feature.values)
            broken.check_range("bad_codes", to_numpy(tables[file][column]), column, 0, most)


def _check_user_embeddings(users: pa.Table, broken: BrokenRows) -> None:
    """User embeddings are finite."""
    bad = ~np.isfinite(to_numpy(users["embedding"])).all(axis=1)
    broken.add("bad_user_embeddings", bad, lambda i: f"user row {i} has a non-finite embedding")


def _check_sequences(tables: dict[str, pa.Table], broken: BrokenRows) -> None:
    """A user's block is in time order, and a request points to the last action known before it."""
    timeline, requests = tables["timeline"], tables["requests"]
    acted_at, known_at = to_numpy(timeline["acted_at"]), to_numpy(timeline["known_at"])
    start, end = to_numpy(requests["timeline_start"]), to_numpy(requests["timeline_end"])
    at = to_numpy(requests["impressed_at"])
    users, index = np.unique(to_numpy(requests["user_id"]), return_inverse=True)
    block_end = np.zeros(len(users), dtype=np.int64)
    np.maximum.at(block_end, index, end)
    is_later = np.ones(len(known_at), dtype=bool)
    is_later[1:] = (known_at[1:] > known_at[:-1]) | (
        (known_at[1:] == known_at[:-1]) & (acted_at[1:] >= acted_at[:-1])
    )
    # A block's second row is marked +1 and the row behind its end -1. The running sum is then 1 in
    # rows that have a row of the same user before them.
    has_actions = block_end[index] > start
    firsts, ends = np.unique(start[has_actions]), np.unique(block_end[index][has_actions])
    num_marks = len(known_at) + 2
    marks = np.bincount(firsts + 1, minlength=num_marks) - np.bincount(ends, minlength=num_marks)
    is_inside = np.cumsum(marks)[: len(known_at)] > 0
    broken.add(
        "disordered_actions",
        is_inside & ~is_later,
        lambda i: f"timeline row {i} is earlier than row {i - 1} of the same user",
    )
    newest_known = _at(known_at, end - 1)
    broken.add(
        "future_actions",
        (end > start) & (newest_known >= at),
        lambda i: f"request row {i} at {at[i]} ms sees an action known at {newest_known[i]} ms",
    )
    next_known = _at(known_at, end)
    broken.add(
        "missed_actions",
        (end < block_end[index]) & (next_known < at),
        lambda i: f"request row {i} at {at[i]} ms misses an action known at {next_known[i]} ms",
    )


def _at(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values in some rows.

    A row beyond the table gives the value of the nearest row, which the caller must not use.
    """
    if len(values) == 0:
        return np.zeros(len(rows), dtype=np.int64)
    return values[np.clip(rows, 0, len(values) - 1)]


def _check_users(tables: dict[str, pa.Table], broken: BrokenRows) -> None:
    """A request's user row is of its own user and as of no later than the request."""
    requests, users = tables["requests"], tables["users"]
    row, user = to_numpy(requests["user_row"]), to_numpy(requests["user_id"])
    at = to_numpy(requests["impressed_at"])
    owner, as_of = to_numpy(users["user_id"])[row], to_numpy(users["as_of"])[row]
    broken.add(
        "bad_user_rows",
        (owner != user) | (as_of > at),
        lambda i: (
            f"request row {i} of user {user[i]} at {at[i]} ms points at the row of user {owner[i]} "
            f"as of {as_of[i]} ms"
        ),
    )


def _check_duplicate_candidates(
    tables: dict[str, pa.Table], snapshot: Snapshot, broken: BrokenRows
) -> None:
    """A pin is a candidate of a request at most once."""
    requests, pin = tables["requests"], to_numpy(tables["examples"]["pin_row"]).astype(np.int64)
    request = np.repeat(np.arange(requests.num_rows), to_numpy(requests["num_examples"]))
    key = pd.Series(request * snapshot.num_pins + pin)
    broken.add(
        "duplicate_candidates",
        key.duplicated(),
        lambda i: f"pin row {pin[i]} occurs again in example {i} of request row {request[i]}",
    )
