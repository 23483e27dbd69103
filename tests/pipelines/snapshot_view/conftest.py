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
    older: Snapshot

    @property
    def newer_dir(self) -> Path:
        return local_path(self.newer.uri)

    @property
    def older_dir(self) -> Path:
        return local_path(self.older.uri)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    write_planted_world(folder / "event_log")
    return folder


@pytest.fixture(scope="session")
def built(world: Path) -> Built:
    week_before = PLANTED_AS_OF - timedelta(days=7)
    older = write_snapshot(make_run(world, as_of=week_before))
    return Built(world, write_snapshot(make_run(world)), older)
