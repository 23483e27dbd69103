"""Mistakes in a log: planted into the tiny one, readers refuse them and the check lists them.

Each row is one way to break the contract. A test that needs a broken log takes its row from here.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from support.tiny_log import ACTIONS_15, IMPRESSIONS_15, january, rewrite
from support.worlds import write_events

IMPRESSIONS_16 = "impressions/day=2017-01-16/part-0.parquet"
IMPRESSIONS_18 = "impressions/day=2017-01-18/part-0.parquet"
PINS, USERS = "pins/part-0.parquet", "users/part-0.parquet"
NAN = float("nan")
Plant = Callable[[Path], object]
Change = Callable[[pa.Table], pa.Table]


class Mistake(NamedTuple):
    """A mistake: how it is made, the rule that it breaks, and what is said of it."""

    rule: str
    plant: Plant
    says: str  # a pattern; whole columns of the files are in the message too


def put(file: str, values: pa.Array | None, *columns: str) -> Plant:
    """Return what writes values into columns of a file, or leaves the columns out."""
    return lambda log: [rewrite(log, file, column, values) for column in columns]


def with_list(file: str, place: int, change: Callable[[list], list | None]) -> Plant:
    """Return what changes one embedding of a file."""

    def plant(log: Path) -> None:
        lists = pq.read_table(log / file)["embedding"].to_pylist()
        lists[place] = change(lists[place])
        rewrite(log, file, "embedding", pa.array(lists, pa.list_(pa.float32())))

    return plant


def number(value: float | None) -> Callable[[list], list]:
    return lambda row: [*row[:7], value, *row[8:]]


def renamed(old: str, new: str) -> Plant:
    return lambda log: (log / old).rename(log / new)


def with_rows(file: str, change: Callable[[pa.Table], pa.Table]) -> Plant:
    """Return what writes a file's rows anew, changed."""

    def plant(log: Path) -> None:
        pq.write_table(change(pq.read_table(log / file, partitioning=None)), log / file)

    return plant


def in_file(table: str, change: Change) -> Plant:
    """Return what changes the only file of pins or users, or the file of a day."""

    def plant(log: Path) -> None:
        path = log / table / "part-0.parquet"
        pq.write_table(change(pq.read_table(path, partitioning=None)), path)

    return plant


def everywhere(table: str, change: Change) -> Plant:
    """Return what writes all rows again, changed, each into the day on which it happens now."""

    def plant(log: Path) -> None:
        files = sorted((log / table).glob("*/*.parquet"))
        rows = change(pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]))
        shutil.rmtree(log / table)
        write_events(log, table, rows)

    return plant


def without(pattern: str, first: int, end: int | None) -> Plant:
    return lambda log: [shutil.rmtree(each) for each in sorted(log.glob(pattern))[first:end]]


def column(name: str, values: Callable[[pa.Table], object]) -> Change:
    def change(rows: pa.Table) -> pa.Table:
        found = pa.array(values(rows))
        return rows.set_column(rows.schema.get_field_index(name), name, found)

    return change


def first_twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows.slice(0, 1)])


def with_bytes(file: str, change: Callable[[bytes], bytes]) -> Plant:
    return lambda log: (log / file).write_bytes(change((log / file).read_bytes()))


def scrambled(content: bytes) -> bytes:
    """Damage the pages and leave the footer whole."""
    return content[:4] + b"\xff" * 56 + content[60:]


def times(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int64())


DAY_15 = january("15 00:00")
DAMAGED = r"is not a readable Parquet file \(.*expected a whole one; write the file again"
NO_NUMBER = "an embedding has a null, NaN or infinite number .*: {}=.*; expected finite"
MISTAKES = {
    "no request_id": Mistake("missing_column", put(IMPRESSIONS_15, None, "request_id"),
        rf"{IMPRESSIONS_15}: missing column 'request_id'; found \[.*expected also"),
    "no known_at": Mistake("missing_column", put(ACTIONS_15, None, "known_at"),
        rf"{ACTIONS_15}: missing column 'known_at'"),
    "no embedding": Mistake("missing_column", put(PINS, None, "embedding"),
        rf"{PINS}: missing column 'embedding'"),
    "no as_of": Mistake("missing_column", put(USERS, None, "as_of"),
        rf"{USERS}: missing column 'as_of'"),
    "text ids": Mistake("wrong_kind", put(IMPRESSIONS_15, pa.array(["1", "1"]), "user_id"),
        rf"{IMPRESSIONS_15}: column 'user_id' is string; expected int64; cast it"),
    "float ids": Mistake("wrong_kind", put(IMPRESSIONS_15, pa.array([10.0, 20.0]), "pin_id"),
        "column 'pin_id' is double; expected int64"),
    "timestamps": Mistake("wrong_kind",
        put(IMPRESSIONS_15, pa.array([DAY_15] * 2, pa.timestamp("ms")), "impressed_at"),
        r"is timestamp\[ms\]; expected int64; cast it .*milliseconds since the epoch"),
    "a column twice": Mistake("column_twice", with_rows(IMPRESSIONS_15,
        lambda rows: rows.append_column("user_id", rows["user_id"])),
        rf"{IMPRESSIONS_15}: column 'user_id' is there 2 times"),
    "numbers for flags": Mistake("wrong_kind",
        put(IMPRESSIONS_15, pa.array([0, 1]), "is_exploration"), "is int64; expected bool"),
    "numbers for types": Mistake("wrong_kind", put(ACTIONS_15, pa.array([1]), "action_type"),
        "'action_type' is int64; expected string"),
    "texts for lists": Mistake("wrong_kind", put(PINS, pa.array(["x"] * 5), "embedding"),
        "'embedding' is string; expected fixed_size"),
    "too wide": Mistake("does_not_fit", put(IMPRESSIONS_15, pa.array([0, 70_000]), "position"),
        r"'position' \(int64\) .* does not fit .*expected values of int16"),
    "a null pin": Mistake("null", put(IMPRESSIONS_16, times(20, None), "pin_id"),
        rf"{IMPRESSIONS_16}: column 'pin_id' is null \(1 such row, first row 1: request_id=B, "
        r"user_id=2, pin_id=None.*\); expected none; fill or drop"),
    "a null known_at": Mistake("null", put(IMPRESSIONS_15, times(DAY_15, None), "known_at"),
        r"column 'known_at' is null \(1 such row"),
    "a null acted_at": Mistake("null", put(ACTIONS_15, times(None), "acted_at"),
        "column 'acted_at' is null"),
    "a pin without id": Mistake("null", put(PINS, times(10, 20, 30, 40, None), "pin_id"),
        rf"{PINS}: column 'pin_id' is null"),
    **{
        unit: Mistake("implausible_time",
            put(IMPRESSIONS_18, times(*[int(january("18 00:00") * factor)] * 4), "impressed_at",
                "known_at"), rf"{IMPRESSIONS_18}: impressed_at is not a plausible time in milli")
        for unit, factor in (("seconds", 1e-3), ("microseconds", 1e3), ("nanoseconds", 1e6))
    },
    "known too early": Mistake("known_before_it_happened",
        put(ACTIONS_15, times(january("14 00:00")), "known_at"),
        rf"{ACTIONS_15}: acted_at is after known_at \(1 such row.*; expected acted_at <="),
    "another day's folder": Mistake("wrong_day",
        renamed("actions/day=2017-01-12", "actions/day=2017-01-11"),
        "in the partition day=2017-01-11 .*; expected .*, the UTC day"),
    **{
        f"a file that reaches into {day}": Mistake("wrong_day",
            put(IMPRESSIONS_15, times(january(f"{first} 12:00"), january(f"{last} 12:00")),
                "impressed_at", "known_at"), "in the partition day=2017-01-15 .*; expected")
        for day, first, last in ((16, 15, 16), (14, 14, 15))
    },
    "no day folder": Mistake("no_day_folder",
        renamed("actions/day=2017-01-10", "actions/2017-01-10"),
        "actions: .*part-0.parquet is not in a day=YYYY-MM-DD folder .*; expected actions/day="),
    "a day of 1970": Mistake("no_day_folder",
        renamed("impressions/day=2017-01-17", "impressions/day=1970-01-18"),
        "1970.*is not in .*folder of a day from 2000 .* in milliseconds"),
    **{
        f"no {table}": Mistake("missing_table", lambda log, table=table: shutil.rmtree(log / table),
            f"has no table '{table}' .*correct HOMEFEED_EVENT_LOG")
        for table in ("impressions", "actions", "pins", "users")
    },
    "an unknown type": Mistake("unknown_action_type",
        put("actions/day=2017-01-16/part-0.parquet", pa.array(["hide"]), "action_type"),
        "unknown action type 'hide'.*; expected one of .*'repin'"),
    **{
        f"a chance of {chance}": Mistake("propensity",
            put(IMPRESSIONS_15, pa.array([None, chance], pa.float32()), "propensity"),
            r"a propensity is outside \(0, 1\] \(1 such row, first row 1: .*pin_id=.*; expected")
        for chance in (0.0, -0.1, 1.01, NAN, float("inf"))
    },
    "no list": Mistake("null", with_list(PINS, 1, lambda _: None),
        rf"{PINS}: column 'embedding' is null \(1 such row, first row 1: pin_id=20"),
    "a short list": Mistake("embedding_widths", with_list(PINS, 3, lambda row: row[:31]),
        r"an embedding has 31 numbers \(1 such row, first row 3: pin_id=40, .*; expected 32, the"
        "|several widths: 4 of 32, 1 of 31 numbers; expected one width"),
    "an empty list": Mistake("embedding_widths", with_list(PINS, 0, lambda _: []),
        r"an embedding has 0 numbers \(1 such row, first row 0: pin_id=10|widths: .*, 1 of 0"),
    **{
        f"{value} in {file}": Mistake("embedding_number", with_list(file, 1, number(value)),
            NO_NUMBER.format("pin_id" if file == PINS else "user_id"))
        for file in (PINS, USERS) for value in (NAN, float("inf"), None)
    },
    "a user row twice": Mistake("repeated_user_row", with_rows(USERS, first_twice),
        "users: user 1 has more than one row of as_of=.*; expected one per"),
    "a pin twice": Mistake("repeated_embedding", with_rows(PINS, first_twice),
        "pins: pin 10 has more than one embedding of version 'planted-1'.*; expected one per"),
    **{
        f"{kind} {file}": Mistake("unreadable", with_bytes(file, change), rf"{file} {DAMAGED}")
        for file in (IMPRESSIONS_15, PINS, USERS)
        for kind, change in (("cut", lambda content: content[:-20]), ("scrambled", scrambled),
                             ("empty", lambda content: b""))
    },
}  # fmt: skip
"""By name; each breaks one rule of the tiny log."""

TOGETHER = (
    *("text ids", "a null pin", "seconds", "known too early", "another day's folder"),
    *("no day folder", "an unknown type", "nan in pins/part-0.parquet", "a user row twice"),
)
"""Mistakes of different files, which can be planted all at once."""
