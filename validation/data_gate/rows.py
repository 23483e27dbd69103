"""Checks of every row of a snapshot: how many rows of a shard or of the pins break each rule.

The rules stand in RULES, with what Great Expectations is told of them and, where they relate rows
to each other, with the condition that finds the rows which break them. One shard, or a million
pins, is in memory at a time. Great Expectations is given one number for each rule and a phrase
about the first broken row. Not for bounds of what rows come to (`checks`), nor for what they look
like (`snapshot_profile`). Tested in tests/validation/data_gate/test_rows.py.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features import BOUNDS
from pipelines.contracts.schemas import (
    EMBEDDING_DIM,
    PIN_TIME,
    PINS_FILE,
    categorical_column,
    label_column,
    numeric_column,
    snapshot_schema,
)
from pipelines.contracts.snapshot_files import altered_files, open_table
from pipelines.contracts.time import EARLIEST_MS, to_ms
from validation.data_gate.days.measure import open_engine, quoted

FILES_MATCH = "files_match_manifest"
SCHEMA = "schema"
"""The expectations that fail where a snapshot is damaged, or another version of this project built
it: built again, they are met."""
NORM_RANGE = (1e-3, 1e3)
"""Lengths allowed for an embedding that is not all zero. A wrong unit or type gives others."""
PINS_PER_CHUNK = 1 << 20
"""A chunk's embeddings take 4 MB for each component, and twice that as float64."""


class Rule(NamedTuple):
    """A rule of rows, which is an expectation of the gate: no row breaks it."""

    of: Literal["files", "shards", "pins"]
    name: str
    description: str
    broken: str = ""  # Where a shard's row breaks it; '' where no query is needed.
    file: str = ""  # Of these rows, as it is told.
    told: tuple[str, ...] = ()  # Columns that are told of the first of them.
    source: str = ""  # What is searched, if not the file.
    is_behind: bool = False  # It would read rows that are not there, if `STRUCTURE` is broken.
    severity: Severity = Severity.CRITICAL

    def query(self, facts: dict[str, Any]) -> str:
        """Return a query for (row, phrase) of the rows that break it."""
        told = "".join(f" || ', {name} ' || {name}" for name in self.told)
        where = self.broken.format(**facts)
        return (
            f"select row, '{self.file} row ' || row{told} from {self.source or self.file} "
            f"where {where}"
        )


_PREPARED = """
create temp table blocks as
with of_user as (
  select user_id, min(timeline_start) as start, max(timeline_end) as stop from requests
  group by user_id
)
select *, coalesce(stop > lead(start) over (order by start, stop), false) as is_crossed
from of_user;
create temp view owned as select row, first_example, num_examples,
coalesce(sum(num_examples) over (order by row rows between unbounded preceding and 1 preceding), 0)
::bigint as expected from requests
"""
"""Each user's block of the timeline, from the first row that a request points at to the last; and
each request, and at which example it has to start."""
_REQUEST, _POINTERS = ("user_id", "impressed_at"), ("user_id", "timeline_start", "timeline_end")

RULES = (
    Rule("files", FILES_MATCH, "Every file is there with the sha256 of the manifest."),
    Rule("files", "schema", "Every file can be read and has the contract's columns and types."),
    Rule("files", "no_nulls", "No value is null."),
    Rule("shards", "counts_match_manifest", "Row counts agree with the manifest."),
    Rule("shards", "references_resolve", "Pins and users that rows point at exist."),
    Rule("shards", "pointers_inside_block",
         "A request points into its own user's block of the timeline.",
         "is_crossed or timeline_start <> start or timeline_start < 0 "
         "or timeline_end < timeline_start or timeline_end > {num_actions}",
         "requests", _POINTERS, "requests join blocks using (user_id)"),
    Rule("shards", "requests_own_examples",
         "Each example belongs to exactly one request, each request has one or more.",
         "first_example <> expected or num_examples < 1 "
         "or (row = {num_requests} - 1 and expected + num_examples <> {num_examples})",
         "requests", ("first_example", "expected", "num_examples"), "owned"),
    Rule("shards", "unique_requests", "A request occurs once.",
         "times > 1", "requests", ("request_id", "times"),
         "(select request_id, min(row) as row, count(*) as times from requests group by all)"),
    Rule("shards", "unique_candidates", "A pin is a request's candidate once.",
         "is_repeated", "examples", ("pin_row", "request"), "candidates", is_behind=True),
    Rule("shards", "action_vocabulary",
         "Action type ids are 1 to {num_types}; 0 is padding and never an action."),
    Rule("shards", "action_times",
         "An action is known no earlier than it happened, and before as_of.",
         "acted_at < {earliest_ms} or known_at < acted_at or known_at >= {as_of_ms}",
         "timeline", ("acted_at", "known_at")),
    Rule("shards", "timeline_order", "A user's actions are in the order known.",
         "t.row < b.stop", "timeline", ("known_at",),
         "(from timeline where is_earlier) t "
         "asof join (from blocks where start < stop) b on t.row > b.start", is_behind=True),
    Rule("shards", "no_future_actions",
         "No request sees an action that was known only at or after it.",
         "timeline_end > timeline_start and known_at >= impressed_at",
         "requests", (*_REQUEST, "known_at"),
         "requests join (select row + 1 as after, known_at from timeline) on after = timeline_end",
         is_behind=True),
    Rule("shards", "no_missed_actions",
         "A request's pointer reaches the newest action known before it.",
         "timeline_end < stop and known_at < impressed_at",
         "requests", (*_REQUEST, "known_at"),
         "requests join blocks using (user_id) "
         "join (select row as action, known_at from timeline) on action = timeline_end",
         is_behind=True),
    Rule("shards", "requests_in_window",
         "Training and holdout requests lie in their half-open windows.",
         "not (split = 0 and impressed_at >= {training.start_ms} "
         "and impressed_at < {training.end_ms} "
         "or split = 1 and impressed_at >= {holdout.start_ms} and impressed_at < {holdout.end_ms})",
         "requests", ("split", "impressed_at")),
    Rule("shards", "user_rows_point_in_time",
         "A request's user row is its own user's and not from the future.",
         "owner <> user_id or as_of > impressed_at", "requests", (*_REQUEST, "owner", "as_of"),
         "requests join (select row as user_row, user_id as owner, as_of from users) "
         "using (user_row)", is_behind=True),
    Rule("shards", "labels_are_binary", "Labels are 0 or 1."),
    Rule("shards", "numeric_features_in_range",
         "Numeric features are finite, and within the bounds of their scale "
         f"({BOUNDS['log1p'][0]:g} to {BOUNDS['log1p'][1]:g} for a log1p); flags are 0 or 1."),
    Rule("shards", "category_codes_in_range", "Codes are 0 to the number of known values."),
    Rule("shards", "user_embeddings_finite", "User embeddings are finite.",
         "not is_finite", "users"),
    Rule("shards", "positions_not_negative", "Positions count from 0.", severity=Severity.WARNING),
    Rule("pins", "pin_embeddings_finite", "Pin embeddings have no NaN and no infinity."),
    Rule("pins", "pin_embedding_norm",
         f"Pin embeddings are zero or have a length of {NORM_RANGE[0]:g} to {NORM_RANGE[1]:g}."),
    Rule("pins", "unique_pins", "Pins are sorted by id, each once."),
    Rule("pins", "pin_codes_in_range",
         "Codes of pin features are 0 to the number of known values."),
)  # fmt: skip
STRUCTURE = ("references_resolve", "pointers_inside_block", "requests_own_examples",
             "requests_in_window", "category_codes_in_range")  # fmt: skip
"""Where one of them is broken, rows point at what is not there, and nothing is measured."""


def rules_of(*tables: str) -> tuple[str, ...]:
    """Return the names of the rules of files, shards or pins."""
    return tuple(rule.name for rule in RULES if rule.of in tables)


class BrokenRows:
    """How many rows break each rule, and a phrase about the first of them.

    The count of a rule that has not been checked is NaN. A name that is not among the rules is a
    mistake in the gate's code, and every method refuses it with a KeyError.
    """

    def __init__(self, *tables: str) -> None:
        self.counts = dict.fromkeys(rules_of(*tables), math.nan)
        self.details: dict[str, str] = {}

    def add(self, rule: str, num: float, phrase: str = "") -> None:
        """Count rows; several calls about one rule add up, and the first one's phrase stays.

        Args:
            rule: The rule that they break.
            num: How many they are; 0 means that the rule was checked and holds.
            phrase: What is said of the first of them.
        """
        before = self.counts[rule]
        self.counts[rule] = float(num) + (0.0 if math.isnan(before) else before)
        if num:
            self.details.setdefault(rule, phrase)

    def add_found(self, rule: str, engine: duckdb.DuckDBPyConnection, query: str) -> None:
        """Count the rows that a query finds, with their phrases."""
        query = f"select count(*), arg_min(phrase, row) from ({query}) as found(row, phrase)"
        ((num, phrase),) = engine.execute(query).fetchall()
        self.add(rule, num, phrase or "")

    def has(self, *rules: str) -> bool:
        """Return whether a row is known to break one of these rules."""
        return any(self.counts[rule] > 0 for rule in rules)


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
    altered = altered_files(snapshot_dir, tuple(f for f in snapshot.files if f.path in paths))
    broken.add(FILES_MATCH, len(altered), next(iter(altered.values()), ""))
    broken.add(SCHEMA, 0)
    tables = {}
    for path in paths:
        if path in altered:
            broken.add(SCHEMA, 1, f"{altered[path]}; it cannot be read")
            continue
        try:
            table = open_table(snapshot_dir, path)
        except (DataContractError, pa.ArrowInvalid, OSError) as error:
            broken.add(SCHEMA, 1, f"{path} cannot be read: {error}")
            continue
        file = Path(path).stem
        there = dict(zip(table.schema.names, table.schema.types, strict=True))
        # Where a file has no embeddings of one width, its column is refused, whatever is named.
        width = embedding_dim or getattr(there.get("embedding"), "list_size", EMBEDDING_DIM)
        expected = snapshot_schema(file, snapshot.features, embedding_dim=width,
                                   has_pin_times=PIN_TIME.name in there)  # fmt: skip
        for wanted in expected:
            name = wanted.name
            if name not in there:
                broken.add(SCHEMA, 1, f"{path}: column {name} is missing")
                continue
            if there[name] != wanted.type:
                said = f"{path}: column {name} is {there[name]}, expected {wanted.type}"
                broken.add(SCHEMA, 1, said)
            num_nulls = table[name].null_count
            row = pc.index(table[name].is_null(), True).as_py() if num_nulls else -1
            broken.add("no_nulls", num_nulls, f"{file}.{name} is null in row {row}")
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
    facts = {
        "num_actions": tables["timeline"].num_rows,
        "num_requests": tables["requests"].num_rows,
        "num_examples": tables["examples"].num_rows,
        "earliest_ms": EARLIEST_MS,
        "as_of_ms": to_ms(snapshot.as_of),
        "training": snapshot.training,
        "holdout": snapshot.holdout,
    }
    acted, known = (to_numpy(tables["timeline"][name]) for name in ("acted_at", "known_at"))
    is_earlier = np.zeros(len(known), dtype=bool)
    is_earlier[1:] = known[1:] < known[:-1]
    is_earlier[1:] |= (known[1:] == known[:-1]) & (acted[1:] < acted[:-1])
    is_finite = np.isfinite(to_numpy(tables["users"]["embedding"])).all(axis=1)
    marks = {"timeline": {"is_earlier": is_earlier}, "users": {"is_finite": is_finite}}
    with open_engine(tempfile.gettempdir()) as engine:

        def search(is_behind: bool) -> None:
            for rule in RULES:
                if rule.broken and rule.is_behind is is_behind:
                    broken.add_found(rule.name, engine, rule.query(facts))

        for file, table in tables.items():
            engine.register(file, _numbered(table, **marks.get(file, {})))
        engine.execute(_PREPARED)
        broken.add("category_codes_in_range", 0)  # also where the recipe has no categories
        for rule_name, query in _ranges(snapshot, tables["users"].num_rows):
            broken.add_found(rule_name, engine, query)
        search(is_behind=False)
        if broken.has(*STRUCTURE):
            return False
        num_examples = to_numpy(tables["requests"]["num_examples"])
        request = np.repeat(np.arange(len(num_examples)), num_examples)
        pins = tables["examples"].select(["pin_row"])
        key = pd.Series(request * snapshot.num_pins + to_numpy(pins["pin_row"]))
        is_repeated = key.duplicated().to_numpy()
        engine.register("candidates", _numbered(pins, request=request, is_repeated=is_repeated))
        search(is_behind=True)
    return True


def _numbered(table: pa.Table, **columns: NDArray[Any]) -> pa.Table:
    """Return the table with the number of each row, and with more columns."""
    for name, values in {"row": np.arange(table.num_rows), **columns}.items():
        table = table.append_column(name, pa.array(values))
    return table


def _ranges(snapshot: Snapshot, num_users: int) -> Iterator[tuple[str, str]]:
    """Yield a rule and a query for the rows that break it, for each column that has a range."""
    features, num_pins = snapshot.features, snapshot.num_pins
    for table, column, limit in (("examples", "pin_row", num_pins),
                                 ("timeline", "pin_row", num_pins),
                                 ("requests", "user_row", num_users)):  # fmt: skip
        yield "references_resolve", _outside(table, column, 0, limit - 1)
    num_types = len(features.action_types)
    yield "action_vocabulary", _outside("timeline", "action_type_id", 1, num_types)
    for label in map(label_column, features.head_names):
        yield "labels_are_binary", _outside("examples", label, 0, 1)
    numeric = "numeric_features_in_range"
    for feature in features.numeric_held:
        column, *flags = map(numeric_column, feature.inputs)
        yield numeric, _outside("examples", column, *BOUNDS[feature.meaning.scale])
        for name in flags:
            yield numeric, _outside("examples", name, 0, 1)
            # A number that is missing is 0.
            yield numeric, _outside("examples", column, 0, 0, where=f"{quoted(name)} = 1")
    for table, of in (("examples", "impressions"), ("users", "users")):
        for category in features.categorical_of(of):
            column, most = categorical_column(category.name), len(category.values)
            yield "category_codes_in_range", _outside(table, column, 0, most)
    yield "positions_not_negative", _outside("examples", "position", 0, math.inf)


def _outside(table: str, column: str, low: float, high: float, where: str = "true") -> str:
    """Return a query for the rows of a table whose value is not within [low, high]; NaN is not."""
    name, told = quoted(column), quoted(f"{table}.{column}", "'")
    phrase = f"'{{}} is {{}} in row {{}}, expected {low} to {high}'"
    return (
        f"select row, format({phrase}, {told}, {name}, row) from {table} "
        f"where {where} and not ({name} >= {low} and {name} <= '{high}'::double)"
    )


@dataclass
class CheckedPins:
    """What was found out about the pins. `is_zero` is None where they could not be read."""

    broken: BrokenRows = field(default_factory=lambda: BrokenRows("files", "pins"))
    is_zero: NDArray[np.bool_] | None = None  # (pins,) embedding all zero
    known_at: NDArray[np.int64] | None = None  # (pins,) where the log says when it knew them
    embedding_dim: int = 0  # 0 where the pins could not be read
    codes: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # rows by feature and code
    spread: float = math.nan  # 1 - |mean vector|^2 / mean squared length; 0 if all pins are alike


def check_pins(snapshot: Snapshot, snapshot_dir: Path) -> CheckedPins:
    """Check every pin of a snapshot: ids, codes and embeddings; measure how these are spread."""
    found = CheckedPins()
    broken = found.broken
    table = read_tables(snapshot_dir, snapshot, [PINS_FILE], broken).get("pins")
    if table is not None and table.num_rows != snapshot.num_pins:
        counts = f"{table.num_rows:,} pins, the manifest says {snapshot.num_pins:,}"
        broken.add(SCHEMA, 1, counts)
    if table is None or broken.has("schema", "no_nulls"):
        return found
    found.embedding_dim = table.schema.field("embedding").type.list_size
    if PIN_TIME.name in table.column_names:
        found.known_at = to_numpy(table[PIN_TIME.name])
    for rule in rules_of("pins"):
        broken.add(rule, 0)
    with duckdb.connect() as engine:
        engine.register("pins", _numbered(table))
        for feature in snapshot.features.categorical_of("pins"):
            query = _outside("pins", categorical_column(feature.name), 0, len(feature.values))
            broken.add_found("pin_codes_in_range", engine, query)
            if not broken.has("pin_codes_in_range"):
                found.codes[feature.name] = count_codes(feature, table)
    found.is_zero = np.zeros(table.num_rows, dtype=bool)
    num_sound, square_sum, vector_sum = 0, 0.0, np.zeros(found.embedding_dim)
    last = np.iinfo(np.int64).min
    for start in range(0, table.num_rows, PINS_PER_CHUNK):
        chunk = table.slice(start, PINS_PER_CHUNK)
        ids, vectors = to_numpy(chunk["pin_id"]), to_numpy(chunk["embedding"]).astype(np.float64)
        is_disordered = ids <= np.concatenate([[last], ids[:-1]])
        is_finite = np.asarray(np.isfinite(vectors).all(axis=1))
        norm = np.sqrt((np.where(is_finite[:, None], vectors, 0.0) ** 2).sum(axis=1))
        is_odd = (norm > 0) & ((norm < NORM_RANGE[0]) | (norm > NORM_RANGE[1]))
        for rule, bad, fault in (
            ("unique_pins", is_disordered, "is repeated or unordered"),
            ("pin_embeddings_finite", ~is_finite, "has a NaN or infinite embedding"),
            ("pin_embedding_norm", is_odd, "has an embedding of odd length"),
        ):
            found.broken.add(rule, bad.sum(), f"pin {ids[np.argmax(bad)]} {fault}")
        found.is_zero[start : start + len(norm)] = is_finite & (norm == 0)
        sound = vectors[norm > 0]
        num_sound, vector_sum = num_sound + len(sound), vector_sum + sound.sum(axis=0)
        square_sum += float((sound**2).sum())
        last = ids[-1]
    if num_sound:
        mean = vector_sum / num_sound
        found.spread = 1.0 - float(mean @ mean) / (square_sum / num_sound)
    return found


def count_codes(feature: CategoricalFeature, table: pa.Table) -> NDArray[np.int64]:
    """Return how many rows have each code; 0 stands for a value outside the closed list."""
    codes = to_numpy(table[categorical_column(feature.name)])
    return np.bincount(codes, minlength=len(feature.values) + 1)
