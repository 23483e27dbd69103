"""Tests of the registry use MLflow's store in this process, where they need no server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.registry import tracking
from support.desk import Desk


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store in a file; what MLflow keeps of runs lies beside it, in the working directory."""
    folder, before = tmp_path_factory.mktemp("store"), os.getcwd()
    uri = f"sqlite:///{folder / tracking.OWN_REGISTRY}"
    os.chdir(folder)
    try:
        with tracking.address_of_process(uri):
            yield uri
    finally:
        os.chdir(before)


@pytest.fixture
def desk(tmp_path: Path, store_uri: str) -> Desk:
    """A registered model of its own."""
    return Desk(tmp_path, store_uri)
