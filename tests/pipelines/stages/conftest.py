"""Fixtures of the tests of stages: bodies of the test's own, and a workspace of either kind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.places import lease as store_lease
from support.holders import TTL_S
from support.stage_bodies import replace_stage


@pytest.fixture
def set_body(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Put a body in the place of a stage's function; it takes what the inputs give."""
    return partial(replace_stage, monkeypatch)


@pytest.fixture(params=["disk", "store"])
def workspace_uri(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A workspace on the local disk, and then one in a bucket, where leases end soon."""
    if request.param == "disk":
        return storage.to_uri(tmp_path / "workspace")
    monkeypatch.setattr(store_lease, "TTL_S", TTL_S)
    return str(request.getfixturevalue("s3_uri"))
