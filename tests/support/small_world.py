"""The small world that several tests ask about, and SQL over the tables of any world."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from pipelines.sources.world.parameters import make_parameters

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 10, tzinfo=UTC)
SIZES: dict[str, Any] = {
    "num_users": 250,
    "num_pins": 300,
    "num_days": 40,
    "start": "2024-01-01",
    "seed": 7,
}
SMALL = make_parameters(**SIZES)

_FILES = {
    "impressions": "impressions/*/*",
    "actions": "actions/*/*",
    "pins": "pins/*",
    "users": "users/*",
    "truth": "truth/impressions/*/*",
}


@contextlib.contextmanager
def log_views(log: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with a view of each table of a world's log."""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        for table, path in _FILES.items():
            place = log / f"{path}.parquet"
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{place}')")
        yield connection


def one(sql: duckdb.DuckDBPyConnection, query: str) -> tuple:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row
