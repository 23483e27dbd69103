"""`make retrain` after installation: both cycles on the sample, in an empty folder."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Row, row

from pipelines.cli.look import DEFAULT_DAYS
from pipelines.cycles.reading import find_cycle
from pipelines.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def measure() -> list[Row]:
    """Run both cycles; report the whole, each cycle, and the share outside the stages' work."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as home:
        command = [sys.executable, "-m", "pipelines.cli", "local", "retrain", "--home", home]
        started = time.monotonic()
        subprocess.run(command, cwd=ROOT, check=True)
        wall_s = time.monotonic() - started
        workspace = str(Path(home) / "workspace")
        triggers = [f"retrain__completejourney__{day}" for day in DEFAULT_DAYS]
        found = [find_cycle(workspace, trigger, Settings()) for trigger in triggers]
        cycles = [cycle.costs for cycle in found if cycle is not None]
    spans = [([s.finished_at for s in c], [s.wall_s for s in c]) for c in cycles]
    # From the start of the first stage, which has ended first, to the end of the last.
    elapsed = [(max(ends) - min(ends)).total_seconds() + walls[0] for ends, walls in spans]
    others = [max(0.0, e - sum(walls)) for e, (_, walls) in zip(elapsed, spans, strict=True)]
    shares = [100 * other / whole for other, whole in zip(others, elapsed, strict=True)]
    shared = {"rows": len(cycles), "seed": "17"}
    rows = [
        row(
            "make_retrain_s",
            wall_s,
            "s for both cycles with ingest and start-up (goal: <= 480)",
            spread=f"cycles: {', '.join(f'{each:.0f} s' for each in elapsed)}; one run",
            **shared,
        ),
        row(
            "make_retrain_overhead",
            100 * sum(others) / sum(elapsed),
            "% of the cycles outside the stages' own work (goal: <= 20)",
            spread=f"{min(shares):.0f} to {max(shares):.0f} % over the cycles",
            note="own work is what a stage's manifest says; the start of its process is overhead",
            **shared,
        ),
    ]
    for stage in [each.stage for each in cycles[-1]]:
        times = [s.wall_s for cycle in cycles for s in cycle if s.stage == stage]
        spread = f"{min(times):.1f} to {max(times):.1f} s over the cycles"
        rows.append(row(f"stage_{stage}_s", max(times), "s", spread=spread, **shared))
    return rows
