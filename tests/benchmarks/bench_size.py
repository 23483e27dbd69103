"""How large the project is, and how long its tests take.

The tests are timed only where `TESTS` in the environment names them (`TESTS="test test-all"`), as
the longer of them takes half an hour and wants a machine that does nothing else.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from record import Row, row

from pipelines.settings import Settings
from support import structure

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {"test": 360, "test-all": 2_100}
"""The target of the Makefile, and the seconds that it may take on two idle cores."""


def measure() -> list[Row]:
    """Return lines, settings and, where they are asked for, seconds of the tests."""
    found = {each.name: each.value for each in structure.measure(ROOT)}
    readme = len((ROOT / "README.md").read_text().splitlines())
    sizes = [
        _size("product_lines", found["lines of product"], "lines (goal: <= 38,000)"),
        _size("product_tokens", found["tokens of product"], "tokens (goal: <= 213,222)"),
        _size("test_lines", found["lines of tests"], "lines (goal: <= 40,000)"),
        _size("settings", len(Settings.model_fields), "settings (goal: <= 27)"),
        _size("readme_lines", readme, "lines (goal: <= 170)"),
    ]
    return [*sizes, *map(_timed, os.environ.get("TESTS", "").split())]


def _size(name: str, value: int, unit: str) -> Row:
    return row(name, value, unit, spread="a count", rows=1)


def _timed(target: str) -> Row:
    """Run a target after its set-up; the load before it says how busy the machine is."""
    subprocess.run(["make", "setup"], cwd=ROOT, check=True, stdout=sys.stderr)
    load, started = os.getloadavg()[0], time.monotonic()
    done = subprocess.run(["make", target], cwd=ROOT, check=False, stdout=sys.stderr)
    seconds = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(f"make {target} ended with {done.returncode}; its time tells nothing")
    return row(
        f"{target.replace('-', '_')}_s",
        seconds,
        f"s (goal: <= {SECONDS[target]})",
        spread="one run",
        rows=1,
        note=f"{load:.1f} cores were busy beside it when it began",
    )
