"""Checks of every row of a snapshot: how many rows of a shard or of the pins break each rule.

The rules stand in RULES, with what Great Expectations is told of them. One shard, or a million
pins, is in memory at a time, and each rule is checked on whole columns. Great Expectations is given
one number for each rule and a phrase about the first broken row. Not for bounds of what rows come
to (`checks`), nor for what they look like (`snapshot_profile`). Tested in
tests/validation/data_gate/test_rows.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.config import CategoricalFeature, NumericFeature
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.features import BOUNDS
from pipelines.contracts.schemas import (
    EMBEDDING_DIM,
    PIN_TIME,
    PINS_FILE,
    SPLIT_HOLDOUT,
    SPLIT_TRAINING,
    categorical_column,
    label_column,
    numeric_column,
    snapshot_schema,
)
from pipelines.contracts.snapshot_files import altered_files, open_table
from pipelines.contracts.time import EARLIEST_MS, to_ms

FILES_MATCH = "files_match_manifest"
"""The expectation that fails where a snapshot is damaged: built again, it is met."""
NORM_RANGE = (1e-3, 1e3)
"""Lengths allowed for an embedding that is not all zero. A wrong unit or type gives others."""
PINS_PER_CHUNK = 1 << 20
"""A chunk's embeddings take 4 MB for each component, and twice that as float64."""


class Rule(NamedTuple):
    """A rule of rows, which is an expectation of the gate: no row breaks it."""

    of: Literal["files", "shards", "pins"]
    name: str
    description: str
    severity: Severity = Severity.CRITICAL


RULES = (
    Rule("files", FILES_MATCH, "Every file is there with the sha256 of the manifest."),
    Rule("files", "schema", "Every file can be read and has the contract's columns and types."),
    Rule("files", "no_nulls", "No value is null."),
    Rule("shards", "counts_match_manifest", "Row counts agree with the manifest."),
    Rule("shards", "references_resolve", "Pins and users that rows point at exist."),
    Rule("shards", "pointers_inside_block",
         "A request points into its own user's block of the timeline."),
    Rule("shards", "requests_own_examples",
         "Each example belongs to exactly one request, each request has one or more."),
    Rule("shards", "unique_requests", "A request occurs once."),
    Rule("shards", "unique_candidates", "A pin is a request's candidate once."),
    Rule("shards", "action_vocabulary",
         "Action type ids are 1 to {num_types}; 0 is padding and never an action."),
    Rule("shards", "action_times",
         "An action is known no earlier than it happened, and before as_of."),
    Rule("shards", "timeline_order", "A user's actions are in the order known."),
    Rule("shards", "no_future_actions",
         "No request sees an action that was known only at or after it."),
    Rule("shards", "no_missed_actions",
         "A request's pointer reaches the newest action known before it."),
    Rule("shards", "requests_in_window",
         "Training and holdout requests lie in their half-open windows."),
    Rule("shards", "user_rows_point_in_time",
         "A request's user row is its own user's and not from the future."),
    Rule("shards", "labels_are_binary", "Labels are 0 or 1."),
    Rule("shards", "numeric_features_in_range",
         "Numeric features are finite, and within the bounds of their scale "
         f"({BOUNDS['log1p'][0]:g} to {BOUNDS['log1p'][1]:g} for a log1p); flags are 0 or 1."),
    Rule("shards", "category_codes_in_range", "Codes are 0 to the number of known values."),
    Rule("shards", "user_embeddings_finite", "User embeddings are finite."),
    Rule("shards", "positions_not_negative", "Positions count from 0.", Severity.WARNING),
    Rule("pins", "pin_embeddings_finite", "Pin embeddings have no NaN and no infinity."),
    Rule("pins", "pin_embedding_norm",
         f"Pin embeddings are zero or have a length of {NORM_RANGE[0]:g} to {NORM_RANGE[1]:g}."),
    Rule("pins", "unique_pins", "Pins are sorted by id, each once."),
    Rule("pins", "pin_codes_in_range",
         "Codes of pin features are 0 to the number of known values."),
)  # fmt: skip
STRUCTURE = (
    "references_resolve",
    "pointers_inside_block",
    "requests_own_examples",
    "requests_in_window",
    "category_codes_in_range",
)
"""Where one of them is broken, other rules would read rows that are not there."""


def rules_of(*tables: str) -> tuple[str, ...]:
    """Return the names of the rules of files, shards or pins."""
    return tuple(rule.name for rule in RULES if rule.of in tables)


@dataclass
class BrokenRows:
    """How many rows break each rule, and a phrase about the first of them.

    A rule that has not been checked has no count. A name that is not among the rules is a mistake
    in the gate's code, and every method refuses it.
    """

    rules: tuple[str, ...]
    counts: dict[str, float] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    def add(self, rule: str, bad: Any, describe: Callable[[int], str]) -> None:
        """Count the marked rows; several calls about one rule add up.

        Raises:
            HomefeedError: there is no such rule.
        """
        self._refuse_unknown(rule)
        bad = np.atleast_1d(np.asarray(bad, dtype=bool))
        self.counts[rule] = self.counts.get(rule, 0.0) + float(bad.sum())
        if bad.any() and rule not in self.details:
            self.details[rule] = describe(int(np.argmax(bad)))

    def check_range(
        self,
        rule: str,
        values: NDArray[Any],
        column: str,
        low: float,
        high: float,
        expected: str = "",
    ) -> bool:
        """Count the values of a column outside [low, high], also NaN; return whether none is.

        Args:
            rule: The rule that they break.
            values: (rows,) of the column.
            column: Its name, for the phrase.
            low: The least value allowed.
            high: The largest value allowed.
            expected: The range in words, if not '<low> to <high>'.
        """
        is_inside = (values >= low) & (values <= high)
        expected = expected or f"{low} to {high}"
        phrase = "{} is {} in row {}, expected {}".format
        self.add(rule, ~is_inside, lambda i: phrase(column, values[i], i, expected))
        return bool(is_inside.all())

    def add_phrases(self, rule: str, phrases: list[str]) -> None:
        """Count one row for each phrase; no phrase means that the rule was checked and holds."""
        self.add(rule, np.ones(len(phrases), dtype=bool), lambda i: phrases[i])

    def has(self, *rules: str) -> bool:
        """Return whether a row is known to break one of these rules.

        Raises:
            HomefeedError: there is no such rule.
        """
        self._refuse_unknown(*rules)
        return any(self.counts.get(rule) for rule in rules)

    def count(self, rule: str) -> float:
        """Return how many rows break a rule; NaN if it has not been checked.

        Raises:
            HomefeedError: there is no such rule.
        """
        self._refuse_unknown(rule)
        return self.counts.get(rule, float("nan"))

    def _refuse_unknown(self, *rules: str) -> None:
        unknown = [rule for rule in rules if rule not in self.rules]
        if unknown:
            raise HomefeedError(
                f"the data gate counts no rows for {unknown}; expected rules of "
                f"{list(self.rules)}; correct the name in validation/data_gate, the snapshot is "
                f"not to blame"
            )


def read_tables(
    snapshot_dir: Path,
    snapshot: Snapshot,
    paths: list[str],
    broken: BrokenRows,
    embedding_dim: int = 0,
) -> dict[str, pa.Table]:
    """Return the tables of some snapshot files by name, without those that cannot be read.

    Counts the files whose content is not the manifest's, for which each is hashed once, the columns
    that break the contract, and the nulls. An altered file is not opened: its damaged bytes could
    be taken for lengths and addresses.

    Args:
        snapshot_dir: Local folder of the snapshot.
        snapshot: The manifest.
        paths: The files, below the folder.
        broken: Receives the counts.
        embedding_dim: The width that embeddings must have; 0 where it is not known, and then a
            file's own width counts.
    """
    own_files = tuple(file for file in snapshot.files if file.path in paths)
    altered = altered_files(snapshot_dir, own_files)
    broken.add_phrases(FILES_MATCH, list(altered.values()))
    broken.add_phrases("schema", [])
    tables = {}
    for path in paths:
        if path in altered:
            broken.add_phrases("schema", [f"{altered[path]}; it cannot be read"])
            continue
        try:
            table = open_table(snapshot_dir, path)
        except (DataContractError, pa.ArrowInvalid, OSError) as error:
            broken.add_phrases("schema", [f"{path} cannot be read: {error}"])
            continue
        file = Path(path).stem
        type_ = table.schema.field("embedding").type if "embedding" in table.column_names else None
        is_list = type_ is not None and pa.types.is_fixed_size_list(type_)
        width = type_.list_size if type_ is not None and is_list else EMBEDDING_DIM
        expected = snapshot_schema(
            file,
            snapshot.features,
            # Where a file has no embeddings of one width, its column is refused, whatever is named.
            embedding_dim=embedding_dim or width,
            has_pin_times=PIN_TIME.name in table.column_names,
        )
        for wanted in expected:
            name, there = wanted.name, table.schema
            if name not in there.names:
                broken.add_phrases("schema", [f"{path}: column {name} is missing"])
            elif (found := there.field(name).type) != wanted.type:
                said = f"{path}: column {name} is {found}, expected {wanted.type}"
                broken.add_phrases("schema", [said])
        for name in (name for name in expected.names if name in table.column_names):
            describe = partial("{0}.{1} is null in row {2}".format, file, name)
            broken.add("no_nulls", table[name].is_null(), describe)
        tables[file] = table
    return tables


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
    structure = (
        "references_resolve",
        "pointers_inside_block",
        "requests_own_examples",
        "requests_in_window",
    )
    if broken.has(*structure, "category_codes_in_range"):
        return False
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
        broken.check_range("references_resolve", rows, f"{file}.{column}", 0, limit - 1)


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
        "pointers_inside_block",
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
        "requests_own_examples",
        bad,
        lambda i: f"request row {i} starts at example {first[i]}, expected {expected[i]}",
    )
    if not bad.any() and expected[-1] != num_examples:
        broken.add_phrases(
            "requests_own_examples",
            [f"{num_examples} examples, but the requests own {expected[-1]}"],
        )


def _check_action_rows(timeline: pa.Table, snapshot: Snapshot, broken: BrokenRows) -> None:
    """An action has a known type and plausible times, and is known no earlier than it happened."""
    column, num_types = "action_type_id", len(snapshot.features.action_types)
    broken.check_range("action_vocabulary", to_numpy(timeline[column]), column, 1, num_types)
    acted_at, known_at = to_numpy(timeline["acted_at"]), to_numpy(timeline["known_at"])
    as_of_ms = to_ms(snapshot.as_of)
    broken.add(
        "action_times",
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
        "requests_in_window",
        ~(is_training | is_holdout),
        lambda i: f"request row {i} of split {split[i]} at {at[i]} ms is outside its window",
    )
    ids = requests["request_id"]
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    broken.add_phrases(
        "unique_requests",
        [f"request {v['values']!r} occurs {v['counts']} times" for v in repeated],
    )


def _check_examples(examples: pa.Table, snapshot: Snapshot, broken: BrokenRows) -> None:
    """An example has labels of 0 or 1, finite and plausible numbers, and a position."""
    for column in map(label_column, snapshot.features.head_names):
        broken.check_range("labels_are_binary", to_numpy(examples[column]), column, 0, 1, "0 or 1")
    for feature in snapshot.features.numeric_held:
        _check_numbers(examples, feature, broken)
    position = to_numpy(examples["position"])
    broken.check_range("positions_not_negative", position, "position", 0, math.inf, "0 or more")


def _check_numbers(examples: pa.Table, feature: NumericFeature, broken: BrokenRows) -> None:
    """A number lies within the bounds of its scale; where it is missing, it is 0 and flagged."""
    column, *flags = map(numeric_column, feature.inputs)
    values, (low, high) = to_numpy(examples[column]), BOUNDS[feature.meaning.scale]
    broken.check_range("numeric_features_in_range", values, column, low, high)
    for flag in flags:
        is_missing = to_numpy(examples[flag])
        broken.check_range("numeric_features_in_range", is_missing, flag, 0, 1, "0 or 1")
        broken.add(
            "numeric_features_in_range",
            (is_missing == 1) & (values != 0),
            lambda i: f"{column} is {values[i]} in row {i}, where it is missing, expected 0",
        )


def _check_codes(tables: dict[str, pa.Table], snapshot: Snapshot, broken: BrokenRows) -> None:
    """A categorical code is 0, which means unknown, to the number of declared values."""
    broken.add_phrases("category_codes_in_range", [])
    for file, table in (("examples", "impressions"), ("users", "users")):
        for feature in snapshot.features.categorical_of(table):
            column, most = categorical_column(feature.name), len(feature.values)
            broken.check_range(
                "category_codes_in_range", to_numpy(tables[file][column]), column, 0, most
            )


def _check_user_embeddings(users: pa.Table, broken: BrokenRows) -> None:
    """User embeddings are finite."""
    bad = ~np.isfinite(to_numpy(users["embedding"])).all(axis=1)
    broken.add("user_embeddings_finite", bad, lambda i: f"user row {i} has a non-finite embedding")


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
        "timeline_order",
        is_inside & ~is_later,
        lambda i: f"timeline row {i} is earlier than row {i - 1} of the same user",
    )
    newest_known = _at(known_at, end - 1)
    broken.add(
        "no_future_actions",
        (end > start) & (newest_known >= at),
        lambda i: f"request row {i} at {at[i]} ms sees an action known at {newest_known[i]} ms",
    )
    next_known = _at(known_at, end)
    broken.add(
        "no_missed_actions",
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
        "user_rows_point_in_time",
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
        "unique_candidates",
        key.duplicated(),
        lambda i: f"pin row {pin[i]} occurs again in example {i} of request row {request[i]}",
    )


@dataclass
class CheckedPins:
    """What was found out about the pins. `is_zero` is None where they could not be read."""

    broken: BrokenRows = field(default_factory=lambda: BrokenRows(rules_of("files", "pins")))
    is_zero: NDArray[np.bool_] | None = None  # (pins,) embedding all zero
    known_at: NDArray[np.int64] | None = None  # (pins,) where the log says when it knew them
    embedding_dim: int = 0  # 0 where the pins could not be read
    codes: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # rows by feature and code
    num_sound: int = 0  # pins with a finite embedding that is not all zero
    norm_sum: float = 0.0
    vector_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # (width,)
    square_sum: float = 0.0

    @property
    def mean_norm(self) -> float:
        """Mean length of the embeddings that are not all zero; NaN if there is none."""
        return self.norm_sum / self.num_sound if self.num_sound else float("nan")

    @property
    def spread(self) -> float:
        """1 - |mean vector|^2 / mean squared length; 0 if all pins are alike, and at most 1."""
        if not self.num_sound:
            return float("nan")
        mean = self.vector_sum / self.num_sound
        return 1.0 - float(mean @ mean) / (self.square_sum / self.num_sound)


def check_pins(snapshot: Snapshot, snapshot_dir: Path) -> CheckedPins:
    """Check every pin of a snapshot."""
    found = CheckedPins()
    broken = found.broken
    table = read_tables(snapshot_dir, snapshot, [PINS_FILE], broken).get("pins")
    if table is not None and table.num_rows != snapshot.num_pins:
        counts = f"{table.num_rows:,} pins, the manifest says {snapshot.num_pins:,}"
        broken.add_phrases("schema", [counts])
    if table is not None and not broken.has("schema", "no_nulls"):
        found.embedding_dim = table.schema.field("embedding").type.list_size
        if PIN_TIME.name in table.column_names:
            found.known_at = to_numpy(table[PIN_TIME.name])
        _check_rows(table, found)
        broken.add_phrases("pin_codes_in_range", [])
        for feature in snapshot.features.categorical_of("pins"):
            column, most = categorical_column(feature.name), len(feature.values)
            if broken.check_range("pin_codes_in_range", to_numpy(table[column]), column, 0, most):
                found.codes[feature.name] = count_codes(feature, table)
    return found


def _check_rows(table: pa.Table, found: CheckedPins) -> None:
    """Check ids and embeddings, mark embeddings of zeros, and sum what the spread needs."""
    is_zero = np.zeros(table.num_rows, dtype=bool)
    for rule in ("pin_embeddings_finite", "pin_embedding_norm", "unique_pins"):
        found.broken.add_phrases(rule, [])
    for start in range(0, table.num_rows, PINS_PER_CHUNK):
        # A chunk begins with the last row of the chunk before, so that their order is checked too.
        overlap = min(1, start)
        chunk = table.slice(start - overlap, PINS_PER_CHUNK + overlap)
        pin_id = to_numpy(chunk["pin_id"])
        phrase = _phrases(pin_id[1:])
        found.broken.add("unique_pins", np.diff(pin_id) <= 0, phrase("is repeated or unordered"))
        vectors = to_numpy(chunk["embedding"])[overlap:].astype(np.float64)
        phrase = _phrases(pin_id[overlap:])
        is_finite = np.asarray(np.isfinite(vectors).all(axis=1))
        norm = np.sqrt((np.where(is_finite[:, None], vectors, 0.0) ** 2).sum(axis=1))
        is_odd = (norm > 0) & ((norm < NORM_RANGE[0]) | (norm > NORM_RANGE[1]))
        found.broken.add(
            "pin_embeddings_finite", ~is_finite, phrase("has a NaN or infinite embedding")
        )
        found.broken.add("pin_embedding_norm", is_odd, phrase("has an embedding of odd length"))
        is_zero[start : start + len(norm)] = is_finite & (norm == 0)
        sound = vectors[norm > 0]
        found.num_sound += len(sound)
        found.norm_sum += float(norm.sum())
        found.vector_sum = found.vector_sum + sound.sum(axis=0)
        found.square_sum += float((sound**2).sum())
    found.is_zero = is_zero


def _phrases(pin_id: NDArray[np.int64]) -> Callable[[str], Callable[[int], str]]:
    """Return a function from a fault to the phrase about the pin in a row."""
    return lambda what: lambda i: f"pin {pin_id[i]} {what}"


def count_codes(feature: CategoricalFeature, table: pa.Table) -> NDArray[np.int64]:
    """Return how many rows have each code; 0 stands for a value outside the closed list."""
    codes = to_numpy(table[categorical_column(feature.name)])
    return np.bincount(codes, minlength=len(feature.values) + 1)
