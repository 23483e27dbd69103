"""A cycle whose event log and workspace lie in a bucket, against the same cycle on the local disk.

The S3 server (moto) runs beside the cycle on the same cores, and its work counts against the
bucket. Both sides keep their models in one MLflow server. Each cycle is one call of
`homefeed retrain`, and the sides take turns.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import Row, row

from pipelines import storage
from pipelines.cli.look import DEFAULT_DAYS
from support.mlflow_server import mlflow_server
from support.s3_server import BUCKET, environment, s3_server

ROOT = Path(__file__).resolve().parents[2]
GOAL = 1.15


@dataclass(frozen=True)
class Cycles:
    """What is run on both sides: a recipe, its data, and the days of its cycles."""

    recipe: str = "completejourney"
    adapter: str = "completejourney"
    days: tuple[str, ...] = tuple(DEFAULT_DAYS)


@dataclass(frozen=True)
class Side:
    """A place for event log and workspace, and the variables that lead there."""

    name: str
    place: str
    variables: dict[str, str]

    def run(self, *arguments: str) -> float:
        """Run one command line of ours on this side, and return its wall time in seconds."""
        own = {
            "HOMEFEED_EVENT_LOG": storage.join(self.place, "event_log"),
            "HOMEFEED_WORKSPACE": storage.join(self.place, "workspace"),
            "HOMEFEED_REGISTERED_MODEL": f"on_{self.name}",
            "HOMEFEED_EXPERIMENT": f"on_{self.name}",
        }
        started = time.monotonic()
        command = [sys.executable, "-m", "pipelines.cli", *arguments]
        subprocess.run(
            command, cwd=ROOT, check=True, env=os.environ | own | self.variables, stdout=sys.stderr
        )
        return time.monotonic() - started


def measure(cycles: Cycles | None = None) -> list[Row]:
    """Return how much longer a cycle takes whose files lie in a bucket."""
    cycles = cycles or Cycles()
    with (
        tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder,
        s3_server() as url,
        mlflow_server(Path(folder) / "mlflow") as tracking_uri,
    ):
        shared = {
            "HOMEFEED_TRACKING_URI": tracking_uri,
            "HOMEFEED_HOME": str(Path(folder) / "home"),
            "HOMEFEED_RECIPE": cycles.recipe,
            "GX_ANALYTICS_ENABLED": "false",
        }
        disk = Side("disk", storage.to_uri(Path(folder) / "disk"), shared)
        store = Side("store", f"s3://{BUCKET}/bench", shared | environment(url))
        for side in (disk, store):
            side.run("ingest", cycles.adapter, "--to", storage.join(side.place, "event_log"))
        times = np.array(
            [[side.run("retrain", "--as-of", day) for side in (disk, store)] for day in cycles.days]
        )
    return [_row(times, cycles)]


def _row(times: np.ndarray, cycles: Cycles) -> Row:
    """Return the row of wall times [cycle, (disk, store)] in seconds."""
    ratios = times[:, 1] / times[:, 0]
    ratio = float(times[:, 1].sum() / times[:, 0].sum())
    return row(
        "s3_cycle_vs_local",
        ratio,
        f"times a cycle on the local disk (goal: <= {GOAL})",
        ratio=ratio,
        peer=f"the same {len(times)} cycles on the local disk in turn, {times[:, 0].sum():.0f} s",
        spread=f"{ratios.min():.2f} to {ratios.max():.2f} over the cycles",
        rows=len(times),
        seed="17",
        note=f"recipe {cycles.recipe}, by `homefeed retrain`; the S3 server (moto) runs on the "
        f"same cores",
    )
