"""The tiny log, for the tests that break it."""

from pathlib import Path

import pytest

from support.tiny_log import write_tiny_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "event_log")
    return tmp_path / "event_log"
