"""The data gate's checks without Great Expectations, which takes seconds each time.

A check holds where every value that there is lies between its bounds: that is all that is asked of
Great Expectations, and tests/validation/data_gate/test_gx_runner.py holds this against it. Tests
that are marked `docs` get the real one, with its pages. A plugin of pytest.
"""

import math
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

PLACES = (
    "tests/pipelines/cli/test_reproduce.py",
    "tests/pipelines/log_check/test_mistakes.py",
    "tests/pipelines/stages/test_build_snapshot.py",
    "tests/pipelines/stages/test_check_snapshot.py",
    "tests/pipelines/log_days/test_judging.py",
    "tests/validation/data_gate/test_canaries.py",
    "tests/validation/data_gate/test_checks.py",
    "tests/validation/data_gate/test_gate.py",
    "tests/validation/data_gate/test_rows.py",
)
"""Where many snapshots and logs are judged, and seldom a page is looked at."""


def plain_suite(
    context: Any, name: str, checks: list[Any], run_id: Any
) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Return, by name, whether each check holds, and the partitions where it does not."""
    found = {}
    for check in checks:
        low, high = (
            default if bound is None else bound
            for bound, default in ((check.minimum, -math.inf), (check.maximum, math.inf))
        )
        outside = [
            each
            for each, value in check.values.items()
            if not math.isnan(value) and not low <= value <= high
        ]
        found[check.name] = not outside, tuple(outside)
    return found


@pytest.fixture(autouse=True)
def plain_gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge plainly, and write one page that says nothing."""
    if request.node.get_closest_marker("docs") or not request.node.nodeid.startswith(PLACES):
        return
    from validation.data_gate import gx_runner

    def finish(folder: Path, *_: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text("<html>")

    monkeypatch.setattr(gx_runner, "_run_suite", plain_suite)
    monkeypatch.setattr(gx_runner, "import_great_expectations", MagicMock())
    monkeypatch.setattr(gx_runner, "finish_data_docs", finish)
