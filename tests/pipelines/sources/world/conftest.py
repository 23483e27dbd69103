"""A small world, written once for the tests of this folder, and SQL over its tables."""

from pathlib import Path

import duckdb
import pytest

from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import World, WorldAdapter
from support.small_world import SMALL


@pytest.fixture(scope="package")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """Return the log's parent folder and what the ingest said of it."""
    folder = tmp_path_factory.mktemp("world")
    return folder, ingest(WorldAdapter(SMALL), str(folder / "event_log"))


@pytest.fixture(scope="package")
def sql(written: tuple[Path, World]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    log = written[0] / "event_log"
    tables = {
        "impressions": "impressions/*/*",
        "actions": "actions/*/*",
        "pins": "pins/*",
        "users": "users/*",
        "truth": "truth/impressions/*/*",
        "hidden_users": "truth/users/*",
    }
    for table, path in tables.items():
        place = log / f"{path}.parquet"
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{place}')")
    return connection
