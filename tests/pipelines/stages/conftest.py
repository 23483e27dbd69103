"""Fixtures of the tests of stages: bodies of the test's own, and a workspace of either kind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipelines import storage
from support.stage_bodies import replace_stage


@pytest.fixture
def set_body(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Put a body in the place of a stage's function; it takes what the inputs give."""
    return partial(replace_stage, monkeypatch)


@pytest.fixture(params=["disk", "store"])
def workspace_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A workspace on the local disk, and then one in a bucket."""
    if request.param == "disk":
        return storage.to_uri(tmp_path / "workspace")
    return str(request.getfixturevalue("s3_uri"))
