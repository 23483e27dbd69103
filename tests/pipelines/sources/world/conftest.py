"""A small world, written once for the tests of this folder."""

from pathlib import Path

import pytest

from pipelines.event_log.record import EventLogRecord
from pipelines.sources.publish import ingest
from support.small_world import SMALL
from support.world_adapter import WorldAdapter


@pytest.fixture(scope="package")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EventLogRecord]:
    """Return the log's parent folder and what the ingest said of it."""
    folder = tmp_path_factory.mktemp("world")
    return folder, ingest(WorldAdapter(SMALL), str(folder / "event_log"))
