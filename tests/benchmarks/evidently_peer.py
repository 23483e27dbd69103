"""Evidently as a peer of the data gate: installed beside the project, handed the same windows.

It gets one row for each impression, as a table of training examples has them: times, place,
categories, what was done, and the first coordinates of the embeddings. Each window is held against
the days before it by the library's defaults. Nothing here needs its environment to be ours.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sample import HOME

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.time import DAY_MS
from support.planted import LogRows

VERSION = "0.7.23"
FOLDER = HOME / f"evidently-{VERSION}"
WORKER = Path(__file__).with_name("evidently_worker.py")
NUM_COORDINATES = 4
MOST_ROWS = 50_000
"""Rows of a table at most, drawn at random: the library's tests cost much for more."""


def install() -> None:
    """Make the library's environment, the first time."""
    if (FOLDER / "ready").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    # With pandas 3 this release cannot be imported.
    subprocess.run([*pip, f"evidently=={VERSION}", "pandas<3", "pyarrow"], check=True)
    (FOLDER / "ready").touch()


def write_pair(folder: Path, reference: LogRows, current: LogRows) -> None:
    """Write the tables of one window and of the days before it."""
    folder.mkdir(parents=True)
    examples_of(reference).to_parquet(folder / "reference.parquet")
    examples_of(current).to_parquet(folder / "current.parquet")


def examples_of(log: LogRows) -> pd.DataFrame:
    """Return one row for each impression on the days that are judged."""
    day = to_numpy(log.impressions["impressed_at"]) // DAY_MS
    inside = np.flatnonzero((day >= log.first_day) & (day < log.end_day))
    rng = np.random.default_rng(1)
    chosen = np.sort(rng.choice(inside, min(len(inside), MOST_ROWS), replace=False))
    shown = log.impressions.take(chosen).to_pandas()
    table = pd.DataFrame(
        {
            "hour": shown["impressed_at"] % DAY_MS / 3_600_000,
            "lag_s": (shown["known_at"] - shown["impressed_at"]) / 1000,
            "is_exploration": shown["is_exploration"].astype(int),
            "position": shown["position"],
        }
    )
    for name in shown.columns.difference(["request_id", "user_id", "pin_id"]):
        if not pd.api.types.is_numeric_dtype(shown[name]):
            table[name] = shown[name].astype(str)
    acted = log.actions.to_pandas()
    pairs = pd.MultiIndex.from_frame(shown[["request_id", "pin_id"]])
    for kind, rows in acted[acted["request_id"].notna()].groupby("action_type", observed=True):
        is_done = pairs.isin(pd.MultiIndex.from_frame(rows[["request_id", "pin_id"]]))
        table[f"got_{kind}"] = is_done.astype(int)
    users = log.users.filter(np.asarray(to_numpy(log.users["as_of"]) < log.end_day * DAY_MS))
    _add_vectors(table, "pin", shown["pin_id"], log.pins["pin_id"], log.pins["embedding"])
    _add_vectors(table, "user", shown["user_id"], users["user_id"], users["embedding"])
    return table


def _add_vectors(
    table: pd.DataFrame, what: str, wanted: pd.Series, ids: object, vectors: object
) -> None:
    """Add the first coordinates of each row's embedding; of several rows of a user, the last."""
    numbers = pd.DataFrame(to_numpy(vectors)[:, :NUM_COORDINATES], index=to_numpy(ids))
    numbers = numbers[~numbers.index.duplicated(keep="last")]
    found = numbers.reindex(wanted.to_numpy()).to_numpy()
    for place in range(NUM_COORDINATES):
        table[f"{what}_{place}"] = found[:, place]


def drifted_shares(root: Path) -> dict[str, float]:
    """Return the share of columns that drift, by folder below a root."""
    command = [str(FOLDER / "bin" / "python"), str(WORKER), str(root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {name: float(share) for name, share in json.loads(done.stdout.splitlines()[-1]).items()}
