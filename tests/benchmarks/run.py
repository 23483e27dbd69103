"""`make bench`: run every bench_*.py beside this file, one after another, and render the page.

Name some to run only those: `python tests/benchmarks/run.py dag_parse`.
"""

import importlib
import sys
import time
from pathlib import Path

# `tests` holds `support`. The root stands beside it, as `tests/pipelines` would hide `pipelines`.
sys.path[:0] = [str(folder) for folder in Path(__file__).parents[1:3]]

import record  # noqa: E402
import render  # noqa: E402


def main(wanted: list[str]) -> None:
    """Run the benchmarks and save each one's rows as soon as it ends."""
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("bench_*.py"))
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        sys.stderr.write(f"{name} ...\n")
        started = time.monotonic()
        record.save(importlib.import_module(name).measure())
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    render.PAGE.write_text(render.page(record.load()))


if __name__ == "__main__":
    main(sys.argv[1:])
