"""A cycle whose files lie in a bucket, against the local disk; and a move of the champion there.

The S3 server (moto) runs beside the cycle on the same cores, and its work counts against the
bucket. Both sides keep their models in one MLflow server. Each cycle is one call of
`homefeed retrain`, and the sides take turns.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from record import Row, row

from pipelines import storage
from pipelines.cli.look import DEFAULT_DAYS
from support.killed_moves import ACTIONS, points, prepare
from support.mlflow_server import mlflow_server
from support.points import die_at
from support.record_world import record_world
from support.s3_server import BUCKET, environment, s3_server, use_s3

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "completejourney"
SEED, KILLS = 23, 3


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


def measure() -> list[Row]:
    """Return how much longer a cycle takes in a bucket, and how long a move after a kill."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as name, s3_server() as url:
        return [cycle_in_a_bucket(Path(name), url), move_after_a_kill(Path(name), url)]


def cycle_in_a_bucket(folder: Path, url: str) -> Row:
    """Run the cycles on both sides in turn."""
    with mlflow_server(folder / "mlflow") as tracking_uri:
        shared = {
            "HOMEFEED_TRACKING_URI": tracking_uri,
            "HOMEFEED_HOME": str(folder / "home"),
            "HOMEFEED_RECIPE": RECIPE,
            "GX_ANALYTICS_ENABLED": "false",
        }
        disk = Side("disk", storage.to_uri(folder / "disk"), shared)
        store = Side("store", f"s3://{BUCKET}/bench", shared | environment(url))
        for side in (disk, store):
            side.run("ingest", RECIPE, "--to", storage.join(side.place, "event_log"))
        times = np.array(
            [
                [side.run("retrain", "--as-of", day) for side in (disk, store)]
                for day in DEFAULT_DAYS
            ]
        )
    ratios, (disk_s, store_s) = times[:, 1] / times[:, 0], times.sum(axis=0)
    return row(
        "s3_cycle_vs_local",
        float(store_s / disk_s),
        "times a cycle on the local disk (goal: <= 1.15)",
        ratio=float(store_s / disk_s),
        peer=f"the same {len(times)} cycles on the local disk in turn, {disk_s:.0f} s",
        spread=f"{ratios.min():.2f} to {ratios.max():.2f} over the cycles",
        rows=len(times),
        seed="17",
        note=f"recipe {RECIPE}, by `homefeed retrain`; the S3 server (moto) runs on the same cores",
    )


def move_after_a_kill(folder: Path, url: str) -> Row:
    """Kill each move of the champion at drawn places, give it again and wait until it is done."""
    draw, seconds = random.Random(SEED), []
    with pytest.MonkeyPatch.context() as patch:
        use_s3(url, patch)
        for action in ACTIONS:
            dry = folder / f"{action} dry"
            names = points(dry, action, f"s3://{BUCKET}/{dry.name}")
            for place in draw.sample(range(len(names)), KILLS):
                name = f"{action} {place}"
                with record_world(folder / name, f"s3://{BUCKET}/{name}") as world:
                    prepare(world, action)
                    act = partial(ACTIONS[action], world)
                    if die_at(world, act, place) != "killed":
                        raise RuntimeError(f"{action} was not killed at {names[place]}")
                    started = time.monotonic()
                    act()
                    seconds.append(time.monotonic() - started)
    return row(
        "seconds_after_kill_s3",
        max(seconds),
        "s until a move that was killed is done when it is given again, the most (goal: <= 10)",
        spread=f"{min(seconds):.1f} to {max(seconds):.1f} s over {len(seconds)} kills",
        rows=len(seconds),
        seed=str(SEED),
        note=f"{', '.join(ACTIONS)}, each at {KILLS} places; the S3 server (moto) runs on the same "
        f"cores",
    )
