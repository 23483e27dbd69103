"""`make retrain` after installation: both cycles on the sample, in an empty folder."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Row, row

from pipelines.cli.look import DEFAULT_DAYS
from pipelines.contracts.cycle import CycleCosts
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
    return [_whole(wall_s, cycles), _overhead(cycles), *(_stage_rows(cycles))]


def _whole(wall_s: float, cycles: list[CycleCosts]) -> Row:
    parts = ", ".join(f"{_elapsed_s(cycle):.0f} s" for cycle in cycles)
    return row(
        "make_retrain_s",
        wall_s,
        "s for both cycles with ingest and start-up (goal: <= 480)",
        spread=f"cycles: {parts}; one run",
        rows=len(cycles),
        seed="17",
    )


def _elapsed_s(cycle: CycleCosts) -> float:
    first = cycle.stages[0]
    return first.wall_s + (cycle.stages[-1].finished_at - first.finished_at).total_seconds()


def _overhead(cycles: list[CycleCosts]) -> Row:
    elapsed = [_elapsed_s(cycle) for cycle in cycles]
    others = [max(0.0, _elapsed_s(c) - sum(s.wall_s for s in c.stages)) for c in cycles]
    shares = [100 * other / whole for other, whole in zip(others, elapsed, strict=True)]
    return row(
        "make_retrain_overhead",
        100 * sum(others) / sum(elapsed),
        "% of the cycles outside the stages' own work (goal: <= 20)",
        spread=f"{min(shares):.0f} to {max(shares):.0f} % over the cycles",
        rows=len(cycles),
        seed="17",
        note="own work is what a stage's manifest says; the start of its process is overhead",
    )


def _stage_rows(cycles: list[CycleCosts]) -> list[Row]:
    rows = []
    for stage in [each.stage for each in cycles[-1].stages]:
        times = [found.wall_s for cycle in cycles if (found := cycle.of(stage)) is not None]
        spread = f"{min(times):.1f} to {max(times):.1f} s over the cycles"
        name = f"stage_{stage}_s"
        rows.append(row(name, max(times), "s", spread=spread, rows=len(times), seed="17"))
    return rows
