"""A result is one JSON value for programs, and lines for people."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.cli.look.printing import say_result


@dataclass(frozen=True)
class Found:
    at: datetime
    share: float
    where: Path
    title: str


FOUND = Found(datetime(2026, 1, 5, tzinfo=UTC), float("nan"), Path("/a"), "\x1b[31mred")


def test_json_knows_no_nan_and_steers_no_terminal(capsys: pytest.CaptureFixture) -> None:
    say_result([FOUND], True, lambda: ["never made"])
    out = capsys.readouterr().out
    assert "\x1b" not in out and "NaN" not in out
    [read] = json.loads(out)
    assert read == {
        "at": "2026-01-05T00:00:00Z",
        "share": None,
        "where": "/a",
        "title": "\x1b[31mred",
    }


def test_a_line_that_belongs_to_another_stays_indented(capsys: pytest.CaptureFixture) -> None:
    say_result(FOUND, False, lambda: ["a title", "  of\nit"])
    assert capsys.readouterr().out == "a title\n  of it\n"
