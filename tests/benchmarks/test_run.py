"""`make bench` can run every benchmark that it finds."""

import ast
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the benchmarks are scripts, not a package

from timed import call  # noqa: E402


@pytest.mark.parametrize("path", sorted(HERE.glob("bench_*.py")), ids=lambda path: path.stem)
def test_a_benchmark_is_measured_without_being_told_more(path: Path) -> None:
    """Read and not imported, because benchmarks need what the tests do without."""
    tree = ast.parse(path.read_text())
    (found,) = (
        each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == "measure"
    )
    num_required = len(found.args.args) - len(found.args.defaults)
    assert num_required == 0, f"{path.name}: measure() must need no argument"


def test_one_function_is_called_in_a_process_of_its_own() -> None:
    ran = call("json", "dumps", "two words", environment={"A": "b"})
    assert ran.told == '"two words"' and ran.seconds > 0
