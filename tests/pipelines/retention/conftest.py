"""Worlds with old cycles, and a registered model in MLflow's store."""

from collections.abc import Iterator

import pytest

from support.desk import desk, empty_store, store_uri
from support.retention_world import OldWorld, old_world

__all__ = ["desk", "empty_store", "store_uri"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> OldWorld:
    """A world that is made once; each test gets it as it was made."""
    with old_world(tmp_path_factory.mktemp("retention") / "world") as found:
        return found


@pytest.fixture
def world(made: OldWorld) -> Iterator[OldWorld]:
    with old_world(made.folder, made) as found:
        yield found
