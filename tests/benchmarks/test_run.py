"""`make bench` can run every benchmark that it finds."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("bench_*.py")), ids=lambda path: path.stem)
def test_a_benchmark_is_measured_without_being_told_more(path: Path) -> None:
    """Read and not imported, because benchmarks need what the tests do without."""
    tree = ast.parse(path.read_text())
    (found,) = (
        each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == "measure"
    )
    num_required = len(found.args.args) - len(found.args.defaults)
    assert num_required == 0, f"{path.name}: measure() must need no argument"
