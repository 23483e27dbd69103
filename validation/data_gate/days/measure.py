"""Measures days: rows in, a profile of each day out, in DuckDB and within a bound of memory.

Users' rows go in without their embeddings. An embedding is projected onto a few fixed directions,
so that two million users of any width fit into memory. Lengths and angles between projections are
those of the embeddings up to noise, which averages out over users (Johnson and Lindenstrauss,
1984). Not for reading an event log (its rows are handed in, by table), nor for judging (`limits`).
Tested in tests/validation/data_gate/days/test_measure.py.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.day_profile import DayProfile, Number
from pipelines.contracts.hashing import hash_rows, mix
from validation.data_gate.days import queries
from validation.data_gate.days.queries import NUM_PROJECTIONS

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
    users: Iterable[pa.Table] | None  # None: those of the call before.


@contextlib.contextmanager
def open_engine(temporary_dir: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that writes what does not fit to a folder.

    Args:
        temporary_dir: An existing folder.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": NUM_THREADS,
        "memory_limit": MEMORY_LIMIT,
    }
    with duckdb.connect(config=settings) as engine:
        engine.execute("set temp_directory = ?", [temporary_dir])
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
    numbers: dict[int, dict[str, Number]] = {}
    counts: dict[int, dict[str, dict[str, int]]] = {}
    for day, name, value, num in _measured(engine, categories):
        if value is not None and num:
            numbers.setdefault(day, {})[name] = Number(value=float(value), num=int(num))
    for day, name, key, num in _counted(engine, categories):
        counts.setdefault(day, {}).setdefault(name, {})[key] = num
    acted_upon = _acted_upon(engine, categories)
    followed: dict[int, dict[str, tuple[int, ...]]] = {}
    for day, name, ids in engine.execute(queries.FOLLOWED).fetchall():
        followed.setdefault(day, {})[name] = tuple(ids)
    return tuple(
        DayProfile(
            day=day,
            numbers=numbers[day],
            counts=(kept := _largest(counts.get(day, {}))),
            acted_upon=_of_the_same(acted_upon.get(day, {}), kept),
            followed=followed.get(day, {}),
        )
        for day in sorted(numbers)
        if first_day <= day < end_day and "impressions.rows" in numbers[day]
    )


def load_rows(engine: duckdb.DuckDBPyConnection, rows: DayRows, categories: Sequence[str]) -> None:
    """Bring the rows into the database, and make the tables that the queries read.

    Args:
        engine: See `open_engine`.
        rows: What is loaded; what was there before is replaced.
        categories: Columns of impressions that are loaded besides the contract's.
    """
    extra = "".join(f", {quoted(name)}" for name in categories)
    _fill(engine, "i", queries.IMPRESSION_COLUMNS + extra, rows.impressions)
    _fill(engine, "a", queries.ACTION_COLUMNS, rows.actions)
    if rows.users is not None:
        engine.register("found", summarise_users(rows.users))
        engine.execute("create or replace temp table user_rows as from found")
        engine.unregister("found")
    engine.execute(queries.REQUESTS)
    engine.execute(queries.USERS_IN_USE)


def _fill(
    engine: duckdb.DuckDBPyConnection, name: str, columns: str, parts: Iterable[pa.Table]
) -> None:
    is_made = False
    for part in parts:
        engine.register("part", part)
        verb = f"insert into {name}" if is_made else f"create or replace temp table {name} as"
        engine.execute(f"{verb} select {columns} from part")
        engine.unregister("part")
        is_made = True
    assert is_made, "an empty table has its columns, and stands for no rows"


def _measured(
    engine: duckdb.DuckDBPyConnection, categories: Sequence[str]
) -> Iterator[tuple[int, str, float | None, int]]:
    for query in queries.NUMBERS:
        yield from engine.execute(query).fetchall()
    for name in categories:
        query = queries.TELLING_CATEGORY.format(column=quoted(name))
        yield from engine.execute(query, {"name": f"impressions.{name}.tells"}).fetchall()


def _counted(
    engine: duckdb.DuckDBPyConnection, categories: Sequence[str]
) -> Iterator[tuple[int, str, str, int]]:
    yield from engine.execute(queries.COUNTS).fetchall()
    for name in categories:
        query = queries.OF_CATEGORY.format(column=quoted(name))
        yield from engine.execute(query, {"name": f"impressions.{name}"}).fetchall()


def _acted_upon(
    engine: duckdb.DuckDBPyConnection, categories: Sequence[str]
) -> dict[int, dict[str, dict[str, int]]]:
    """Return, by day, category and value, how many rows were acted upon."""
    found: dict[int, dict[str, dict[str, int]]] = {}
    for column in categories:
        name = f"impressions.{column}"
        query = queries.ACTED_UPON.format(column=quoted(column))
        found_here = engine.execute(query, {"name": name}).fetchall()
        for day, _, key, num in found_here:
            found.setdefault(day, {}).setdefault(name, {})[key] = num
    return found


def _of_the_same(
    counts: dict[str, dict[str, int]], kept: dict[str, dict[str, int]]
) -> dict[str, dict[str, int]]:
    """Return counts by the values that other counts are by; what these put together is together."""
    found: dict[str, dict[str, int]] = {}
    for name, of_values in sorted(counts.items()):
        of_name = found.setdefault(name, {})
        for key, num in sorted(of_values.items()):
            place = key if key in kept[name] else OTHERS
            of_name[place] = of_name.get(place, 0) + num
    return found


def _largest(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Return the counts with the smallest of many values put together."""
    kept = {}
    for name, of_values in sorted(counts.items()):
        order = sorted(of_values, key=lambda value: (-of_values[value], value))
        kept[name] = {value: of_values[value] for value in order[:MOST_KEYS]}
        if rest := sum(of_values[value] for value in order[MOST_KEYS:]):
            kept[name][OTHERS] = rest
    return kept


def quoted(name: str, quote: str = '"') -> str:
    """Return a column's name for a query, or a text with another quote, whatever is in it."""
    return quote + name.replace(quote, 2 * quote) + quote


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
        likeness: the cosine of the projection with that of the user's row before; null for the
        first row of a user, and where one of the two is zero.
    """
    rows = pa.concat_tables([_KEPT.empty_table(), *(_summarise(part) for part in parts)])
    order = np.lexsort((to_numpy(rows["as_of"]), to_numpy(rows["u"])))
    rows = rows.take(pa.array(order)).combine_chunks()
    return rows.append_column("likeness", _likeness(rows))


def _summarise(part: pa.Table) -> pa.Table:
    vectors = to_numpy(part["embedding"]).astype(np.float32)
    # In double precision these sums are exact. Rounded to single precision on the way they would
    # depend on how many rows the processor multiplies at once, so on what else is in this part.
    projected = (vectors.astype(np.float64) @ _directions(vectors.shape[1])).astype(np.float32)
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


def _directions(width: int) -> npt.NDArray[np.float64]:
    """Return a fixed [width, NUM_PROJECTIONS] matrix of 1 and -1, scaled so that lengths stay."""
    signs = mix(np.arange(width * NUM_PROJECTIONS), width) >> np.uint64(63)
    matrix = (signs.astype(np.float64) * 2 - 1).reshape(width, NUM_PROJECTIONS)
    return matrix / np.sqrt(NUM_PROJECTIONS)


def _likeness(rows: pa.Table) -> pa.Array:
    """Return each row's cosine with the row before it, where that is of the same user."""
    projected = np.stack([to_numpy(rows[f"q{n}"]) for n in range(NUM_PROJECTIONS)], axis=1)
    user = to_numpy(rows["u"])
    before, after = projected[:-1], projected[1:]
    scale = np.sqrt((before**2).sum(axis=1) * (after**2).sum(axis=1))
    is_pair = (user[1:] == user[:-1]) & (scale > 0)
    cosine = np.full(len(rows), np.nan)
    products: npt.NDArray[Any] = (before * after).sum(axis=1)
    cosine[1:][is_pair] = products[is_pair] / scale[is_pair]
    return pa.array(cosine, from_pandas=True)
