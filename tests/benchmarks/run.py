"""`make bench`: run every bench_*.py beside this file, one after another, and render the page.

Name some to run only those: `python tests/benchmarks/run.py size`. `--call MODULE FUNCTION
WORDS...` calls one function of a benchmark in this process and prints what it returns as JSON: so
`timed.call` measures in a process of its own.
"""

import importlib
import json
import sys
import time
from pathlib import Path

# `tests` holds `support`. The root stands beside it, as `tests/pipelines` would hide `pipelines`.
sys.path[:0] = [str(folder) for folder in Path(__file__).parents[1:3]]

import record  # noqa: E402
import render  # noqa: E402


def main(wanted: list[str]) -> None:
    """Run the benchmarks and save each one's rows as soon as it ends."""
    if wanted[:1] == ["--call"]:
        found = getattr(importlib.import_module(wanted[1]), wanted[2])(*wanted[3:])
        sys.stdout.write(json.dumps(found) + "\n")
        return
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
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
