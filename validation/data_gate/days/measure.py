"""Measures days: rows in, a profile of each day out, in DuckDB and within a bound of memory.

Users' rows go in without their embeddings. An embedding is projected onto a few fixed directions,
so that two million users of any width fit into memory. Lengths and angles between projections are
those of the embeddings up to noise, which averages out over users (Johnson and Lindenstrauss,
1984). Not for reading an event log (its rows are handed in, by table), nor for judging (`limits`).
Tested in tests/validation/data_gate/days/test_measure.py.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.day_profile import DayProfile, Number
from pipelines.contracts.hashing import hash_rows, mix
from validation.data_gate.days import queries
from validation.data_gate.days.limits import eta_squared
from validation.data_gate.days.moments import joint_numbers
from validation.data_gate.days.queries import NUM_PROJECTIONS, quoted

MEMORY_LIMIT = "1GB"
"""What DuckDB may use; beyond it, rows are written to the temporary folder."""
NUM_THREADS = 2
MOST_KEYS = 200
"""Values of a category that are counted by name; all others count together."""
OTHERS = "(others)"


@dataclass(frozen=True)
class DayRows:
    """The rows of some days and of the day before them, as read; each is used up once."""

    impressions: Iterable[pa.Table]
    actions: Iterable[pa.Table]
    users: Iterable[pa.Table] | None  # None: those of the call before, and their pins.
    pins: Iterable[pa.Table] = ()
    is_last: bool = False  # No other days are measured with them: of the others none is kept.


@contextlib.contextmanager
def open_engine(temporary_dir: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that writes what does not fit to a folder.

    Args:
        temporary_dir: An existing folder.
    """
    limits = {"memory_limit": MEMORY_LIMIT, "temp_directory": temporary_dir}
    with duckdb.connect(config={"threads": NUM_THREADS, **limits}) as engine:
        yield engine


def measure_days(
    engine: duckdb.DuckDBPyConnection,
    rows: DayRows,
    first_day: int,
    end_day: int,
    categories: Sequence[str] = (),
) -> tuple[DayProfile, ...]:
    """Return the profiles of the days in [first_day, end_day) that have impressions.

    Args:
        engine: See `open_engine`.
        rows: Of these days, and of the day before the first.
        first_day: Days since the epoch.
        end_day: The first day that is not measured.
        categories: Columns of impressions whose values are counted.
    """
    load_rows(engine, rows, categories)
    numbers, counts, hits, followed = (defaultdict[int, dict[str, Any]](dict) for _ in range(4))
    for query in queries.NUMBERS:
        for day, name, value, num in engine.execute(query).fetchall():
            if value is not None and num:
                numbers[day][name] = _number(value, num)
    of_categories = (
        queries.CATEGORY.format(name=quoted(f"impressions.{column}", "'"), column=quoted(column))
        for column in categories
    )
    for query in (queries.COUNTS, *of_categories):
        for day, name, key, num, num_hits in engine.execute(query).fetchall():
            counts[day].setdefault(name, {})[key] = num
            if num_hits:
                hits[day].setdefault(name, {})[key] = num_hits
    for day, hits_of_day in hits.items():
        for name, of_hits in hits_of_day.items():
            of_rows = counts[day][name]
            if sum(of_hits.values()) < (num := sum(of_rows.values())):
                values = np.array([[n, of_hits.get(key, 0)] for key, n in sorted(of_rows.items())])
                tells = eta_squared(*values.T.astype(np.float64))
                numbers[day][f"{name}.tells"] = _number(tells, num)
    for day, name, ids in engine.execute(queries.FOLLOWED).fetchall():
        followed[day][name] = tuple(ids)
    for day, name, number in joint_numbers(engine, range(first_day, end_day), categories):
        numbers[day][name] = _number(number.value, number.num)
    return tuple(
        DayProfile(
            day=day,
            numbers=numbers[day],
            counts={name: _folded(of, of) for name, of in sorted(counts[day].items())},
            acted_upon={
                name: _folded(of, counts[day][name]) for name, of in sorted(hits[day].items())
            },
            followed=followed[day],
        )
        for day in sorted(numbers)
        if first_day <= day < end_day and "impressions.rows" in numbers[day]
    )


def _number(value: float, num: int) -> Number:
    # The digits behind these depend on how threads add up, and differ from machine to machine.
    return Number(value=float(f"{value:.9g}"), num=int(num))


def _folded(nums: dict[str, int], counts: dict[str, int]) -> dict[str, int]:
    """Return numbers by value, those of all but the commonest of many values put together."""
    found: dict[str, int] = {}
    for n, value in enumerate(sorted(counts, key=lambda value: (-counts[value], value))):
        place = value if n < MOST_KEYS else OTHERS
        if value in nums:
            found[place] = found.get(place, 0) + nums[value]
    return found


def load_rows(engine: duckdb.DuckDBPyConnection, rows: DayRows, categories: Sequence[str]) -> None:
    """Bring the rows into the database, and make the tables that the queries read.

    Args:
        engine: See `open_engine`.
        rows: What is loaded; what was there before is replaced.
        categories: Columns of impressions that are loaded besides the contract's.
    """
    extra = "".join(f", {quoted(name)}" for name in categories)
    tables: list[tuple[str, str, Iterable[pa.Table]]] = [
        ("i", queries.IMPRESSION_COLUMNS + extra, rows.impressions),
        ("a", queries.ACTION_COLUMNS, rows.actions),
    ]
    if (users := rows.users) is not None:
        pins = rows.pins
        if rows.is_last:
            users = _only(users, "user_id", engine, "select distinct u as id from i")
            pins = _only(pins, "pin_id", engine, "select p as id from i union select p from a")
        # They are read when the tables above are there.
        of_users = (summarise_users(each) for each in [users])
        tables += [("user_rows", "*", of_users), ("pin_rows", "*", summarise_pins(pins))]
    for name, columns, parts in tables:
        for number, part in enumerate(parts):
            verb = f"insert into {name}" if number else f"create or replace temp table {name} as"
            engine.register("part", part)
            engine.execute(f"{verb} select {columns} from part")
            engine.unregister("part")
    engine.execute(queries.REQUESTS)
    engine.execute(queries.USERS_IN_USE)


def _only(
    parts: Iterable[pa.Table], column: str, engine: duckdb.DuckDBPyConnection, wanted: str
) -> Iterator[pa.Table]:
    """Yield the rows whose id a query gives; it is asked when the first is wanted."""
    ids = engine.sql(wanted).to_arrow_table()["id"]
    for part in parts:
        yield part.filter(pc.is_in(part[column], value_set=ids))


_KEPT = pa.schema(
    {
        "u": pa.int64(),
        "as_of": pa.int64(),
        "state": pa.string(),
        "is_zero": pa.bool_(),
        "vector": pa.uint64(),  # equal for equal embeddings
        "length": pa.float32(),
        **{f"q{n}": pa.float32() for n in range(NUM_PROJECTIONS)},
    }
)


def summarise_users(parts: Iterable[pa.Table]) -> pa.Table:
    """Return one short row for each row of users, by user and time.

    Args:
        parts: Tables with user_id, as_of (ms), state and embedding (fixed-size lists, finite).

    Returns:
        u, as_of, state, is_zero, vector (a hash of the embedding), length, q0 and so on, and
        likeness: the cosine of the projection with that of the user's row before, null where one of
        the two is zero; same_state and same_vector: whether these are as in the row before. All
        three are null for the first row of a user.
    """
    rows = pa.concat_tables([_KEPT.empty_table(), *(_summarise(part) for part in parts)])
    order = np.lexsort((to_numpy(rows["as_of"]), to_numpy(rows["u"])))
    rows = rows.take(pa.array(order)).combine_chunks()
    projected = np.stack([to_numpy(rows[f"q{n}"]) for n in range(NUM_PROJECTIONS)], axis=1)
    user, before, after = to_numpy(rows["u"]), projected[:-1], projected[1:]
    scale = np.sqrt((before**2).sum(axis=1) * (after**2).sum(axis=1))
    products: npt.NDArray[Any] = (before * after).sum(axis=1)
    has_row = np.append(False, user[1:] == user[:-1])[: len(rows)]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.append(np.nan, products / np.where(scale > 0, scale, np.nan))[: len(rows)]
    found = {"likeness": np.where(has_row, cosine, np.nan)}
    for name in ("state", "vector"):
        values = np.asarray(rows[name])
        found[f"same_{name}"] = np.where(has_row, values == np.roll(values, 1), np.nan)
    for name, column in found.items():
        rows = rows.append_column(name, pa.array(column, from_pandas=True))
    return rows


def summarise_pins(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield a short row for each pin: p, pin_size (its embedding's length), p0 and so on.

    Args:
        parts: Tables with pin_id and embedding (fixed-size lists, finite).
    """
    axes = [f"p{n}" for n in range(NUM_PROJECTIONS)]
    floats = [pa.field(name, pa.float32()) for name in ("pin_size", *axes)]
    schema = pa.schema([pa.field("p", pa.int64()), *floats])
    yield schema.empty_table()
    for part in parts:
        vectors = to_numpy(part["embedding"]).astype(np.float32)
        lengths = np.sqrt((vectors**2).sum(axis=1))
        yield pa.table([part["pin_id"], lengths, *_projected(vectors).T], schema=schema)


def _summarise(part: pa.Table) -> pa.Table:
    vectors = to_numpy(part["embedding"]).astype(np.float32)
    projected = _projected(vectors)
    columns = {
        "u": part["user_id"],
        "as_of": part["as_of"],
        "state": part["state"].cast(pa.string()),
        "is_zero": ~vectors.any(axis=1),
        "vector": hash_rows(vectors),
        "length": np.sqrt((vectors**2).sum(axis=1)),
        **{f"q{n}": projected[:, n] for n in range(NUM_PROJECTIONS)},
    }
    return pa.table(columns, schema=_KEPT)


def _projected(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the embeddings [n, width] as [n, NUM_PROJECTIONS]."""
    width = vectors.shape[1]
    # A fixed [width, NUM_PROJECTIONS] matrix of 1 and -1, scaled so that lengths stay.
    signs = mix(np.arange(width * NUM_PROJECTIONS), width) >> np.uint64(63)
    directions = (signs.astype(np.float64) * 2 - 1).reshape(width, NUM_PROJECTIONS)
    directions /= np.sqrt(NUM_PROJECTIONS)
    # In double precision these sums are exact. Rounded to single precision on the way they would
    # depend on how many rows the processor multiplies at once, so on what else is in this part.
    return (vectors.astype(np.float64) @ directions).astype(np.float32)
