"""Where PySpark is missing, its part of the benchmark is left out, or says what to install."""

import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the benchmarks are scripts, not a package

import bench_snapshot  # noqa: E402


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were measured; none of them really is."""
    done: list[str] = []

    def instead(name: str) -> Any:
        return lambda *given: done.append(name)

    for name in ("_against", "_workers", "_sizes", "_incremental", "measure_sizes"):
        monkeypatch.setattr(bench_snapshot, name, instead(name))
    monkeypatch.delenv("PARTS", raising=False)
    return done


@pytest.mark.parametrize("is_there", [True, False])
def test_spark_is_measured_with_the_others_where_it_is_there(
    measured: list[str], is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_snapshot, "has_pyspark", lambda: is_there)
    bench_snapshot.measure()
    assert measured.count("measure_sizes") == is_there
    assert measured.count("_sizes") == measured.count("_incremental") == 1


def test_its_part_alone_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setenv("PARTS", "spark_sizes")
    with pytest.raises(RuntimeError, match="pip install -r tests/production/requirements.txt"):
        bench_snapshot.measure()
