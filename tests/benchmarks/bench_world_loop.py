"""The closed loop: a world answers the champion, the pipeline retrains it, and the truth is known.

One world for each seed, whose pins fade and whose topics come and go. Five weeks are shown in a
random order and train the first champion; then cycles go on for 24 weeks, each by the project's own
commands: never, every 14 days, every 3 and 4 days in turn, and without cycles the optimum. All see
the same requests with the same luck. It takes hours, and goes on from where it was stopped.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from shutil import copytree

import numpy as np
from record import Row, row
from sample import HOME

from pipelines import storage
from pipelines.world_run.days import TRUTH_DAYS, DayOfWorld
from support.mlflow_server import mlflow_server

SEEDS, WEEKS_BEFORE, WEEKS = (1, 2), 5, 24
START = date(2024, 1, 1) + timedelta(weeks=WEEKS_BEFORE)
SIZES = {"num_users": 400, "num_pins": 1200, "pin_lifetime_days": 14, "trend": 1.0}
EXPLORATION = {"": 0.05, "_unexplored": 0.0}
CADENCES = {"never": (7 * WEEKS,), "every_14_days": (14,), "every_3_5_days": (3, 4)}
OPTIMUM = "optimum"


def measure() -> list[Row]:
    """Return what each way earns a request in the top 3, and its share of the best cadence."""
    folder = HOME / "bench" / "world_loop"
    found: dict[str, list[float]] = {}
    with mlflow_server(folder / "mlflow") as url:
        for seed in SEEDS:
            for kind, share in EXPLORATION.items():
                place = folder / f"{seed}{kind}"
                _begin(place, url, seed, share)
                for name in (*CADENCES, OPTIMUM):
                    _run(place, url, name)
                    found.setdefault(f"{name}{kind}", []).append(_worth(place / name))
    rows = []
    for kind in EXPLORATION:
        best = np.max([found[f"{name}{kind}"] for name in CADENCES], axis=0)
        rows += [_row(f"{name}{kind}", found[f"{name}{kind}"], best) for name in CADENCES]
        rows.append(_row(f"{OPTIMUM}{kind}", found[f"{OPTIMUM}{kind}"], best))
    return rows


def _row(name: str, by_seed: Sequence[float], best: np.ndarray) -> Row:
    ratios = np.array(by_seed) / best
    return row(
        f"world_loop_{name}",
        float(np.mean(by_seed)),
        "expected repins a request in the top 3",
        ratio=float(ratios.mean()),
        peer="the best of the cadences in hindsight",
        spread=f"ratio {ratios.min():.4f} to {ratios.max():.4f} over {len(SEEDS)} seeds",
        rows=7 * WEEKS,
        seed=", ".join(map(str, SEEDS)),
        note="; ".join(f"{size} {value}" for size, value in SIZES.items()),
    )


def _begin(place: Path, url: str, seed: int, exploration: float) -> None:
    """Write the weeks before, and train the first champion on them."""
    sizes = SIZES | {"seed": seed, "num_days": 7 * (WEEKS_BEFORE + WEEKS)}
    sizes |= {"exploration_share": exploration}
    _grow(place, url, "base", "random", START, [f"--size={k}={v}" for k, v in sizes.items()])


def _run(place: Path, url: str, name: str) -> None:
    """Let one way go on to the end."""
    if not (place / name).exists():
        copytree(place / "base", place / f".{name}")
        (place / f".{name}").rename(place / name)
    end, day, steps = START + timedelta(weeks=WEEKS), START, CADENCES.get(name, (7 * WEEKS,))
    number = 0
    while day < end:
        if name != OPTIMUM:
            _homefeed(place, url, name, "retrain", "--as-of", f"{day}")
        day = min(end, day + timedelta(days=steps[number % len(steps)]))
        _grow(place, url, name, OPTIMUM if name == OPTIMUM else "champion", day)
        number += 1


def _grow(
    place: Path, url: str, name: str, policy: str, to: date, sizes: Sequence[str] = ()
) -> None:
    """Let a log grow to a day, which is not included."""
    days = len(list((place / name).glob("impressions/day=*")))
    missing = (to - START).days + 7 * WEEKS_BEFORE - days
    if missing > 0:
        where = ["--to", str(place / name), "--policy", policy, "--days", str(missing)]
        _homefeed(place, url, name, "world", "run", *where, *sizes)


def _homefeed(place: Path, url: str, name: str, *words: str) -> None:
    own = {"RECIPE": "world", "TRACKING_URI": url, "EVENT_LOG": str(place / name)}
    own |= {"WORKSPACE": str(place / f"{name}-workspace"), "HOME": str(place / "home")}
    own |= {"REGISTERED_MODEL": f"loop-{place.name}-{name}"}
    environment = os.environ | {f"HOMEFEED_{key}": value for key, value in own.items()}
    command = [sys.executable, "-m", "pipelines.cli", *words]
    with (place.parent / f"{place.name}-{name}.log").open("ab") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def _worth(log: Path) -> float:
    """Return the expected repins a request in the top 3, over all days of the cycles."""
    place = storage.to_uri(log / TRUTH_DAYS)
    days = [
        storage.read_model(storage.join(place, name), DayOfWorld)
        for name in storage.list_names(place)
        if name >= f"{START}"
    ]
    return sum(d.expected_in_top_3 for d in days) / sum(d.num_requests for d in days)
