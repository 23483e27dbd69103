"""Two snapshots of one planted world, a week apart, and the workspace that they lie in."""

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world


class Built(NamedTuple):
    folder: Path
    newer: Snapshot
    newer_dir: Path
    older: Snapshot
    older_dir: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("viewed")
    write_planted_world(folder / "event_log")
    older = write_snapshot(make_run(folder, as_of=PLANTED_AS_OF - timedelta(days=7)))
    newer = write_snapshot(make_run(folder))
    return Built(folder, newer, local_path(newer.uri), older, local_path(older.uri))
