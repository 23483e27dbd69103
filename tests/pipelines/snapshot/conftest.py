"""The tiny log, and its snapshot, for the tests that work one of its answers out by hand."""

import pytest

from pipelines.contracts.artifacts import Snapshot
from support.tiny_log import build_tiny, write_tiny_log


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_log(folder / "event_log")
    return build_tiny(folder)
