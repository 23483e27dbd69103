"""How long the DAG file takes to parse, against a file with an empty DAG, interleaved."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import Row, row

REPETITIONS = 9
DAG_FILE = Path(__file__).resolve().parents[2] / "dags" / "homefeed_retrain.py"
EMPTY = "from airflow.sdk import DAG\nwith DAG('empty'):\n    pass\n"
PARSE = (
    "import runpy, sys, time; started = time.perf_counter(); runpy.run_path(sys.argv[1]);"
    " print(time.perf_counter() - started)"
)


def measure() -> list[Row]:
    """Parse both files in fresh interpreters, taking turns; compare the medians."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        for path in (empty, DAG_FILE):
            _parse_s(path)  # fills the file cache
        pairs = [(_parse_s(empty), _parse_s(DAG_FILE)) for _ in range(REPETITIONS)]
    empty_s, ours_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    extra = [ours - peer for peer, ours in pairs]
    return [
        row(
            "dag_parse_extra_s",
            ours_s - empty_s,
            "s beyond an empty DAG file (goal: <= 0.3)",
            ratio=ours_s / empty_s,
            peer=f"empty DAG file, {empty_s:.2f} s",
            spread=f"{min(extra):.2f} to {max(extra):.2f} over {REPETITIONS} pairs",
            rows=REPETITIONS,
        )
    ]


def _parse_s(path: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.strip().splitlines()[-1])
