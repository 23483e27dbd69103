"""The small world that several tests ask about."""

from datetime import UTC, datetime

import duckdb

from pipelines.sources.world.parameters import make_parameters

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 10, tzinfo=UTC)
SMALL = make_parameters(num_users=250, num_pins=300, num_days=40, start="2024-01-01", seed=7)


def one(sql: duckdb.DuckDBPyConnection, query: str) -> tuple:
    row = sql.execute(query).fetchone()
    assert row is not None
    return row
