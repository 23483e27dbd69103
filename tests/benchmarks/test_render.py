import importlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the benchmarks are scripts, not a package

import record  # noqa: E402
import render  # noqa: E402


def test_the_page_is_what_the_results_say() -> None:
    assert render.PAGE.read_text() == render.page(record.load()), (
        "docs/benchmarks.md was edited by hand; run python tests/benchmarks/render.py"
    )


def test_every_ratio_names_its_peer() -> None:
    rows = record.load()
    assert rows
    assert [row.name for row in rows if (row.ratio is None) != (row.peer is None)] == []


@pytest.mark.parametrize("path", sorted(HERE.glob("bench_*.py")), ids=lambda path: path.stem)
def test_every_benchmark_finds_what_it_measures(path: Path) -> None:
    assert callable(importlib.import_module(path.stem).measure)
