"""A small world, written once for the tests of this folder, and SQL over its tables."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pipelines.event_log.record import EventLogRecord
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import WorldAdapter
from support.small_world import SMALL, log_views


@pytest.fixture(scope="package")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EventLogRecord]:
    """Return the log's parent folder and what the ingest said of it."""
    folder = tmp_path_factory.mktemp("world")
    return folder, ingest(WorldAdapter(SMALL), str(folder / "event_log"))


@pytest.fixture(scope="package")
def sql(written: tuple[Path, EventLogRecord]) -> Iterator[duckdb.DuckDBPyConnection]:
    with log_views(written[0] / "event_log") as connection:
        yield connection
