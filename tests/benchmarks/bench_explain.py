"""In how many of 30 cycles that lost for a planted cause the largest share falls on that cause.

Each is a planted world of its own, whose challenger and champion are two weeks apart: so old data
are a part in each, and in one of five it is they that make the difference. What one planting found
is kept below .homefeed/, so that the row goes on where it was ended.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import Row, row
from sample import HOME

from pipelines import storage
from pipelines.explain.explaining import explain
from pipelines.explain.parts import Setting
from pipelines.recipes import smoke
from support.lost_cycles import changed, lose, setting, with_seed
from support.older_code import keep_older_code
from support.runs import PLANTED_AS_OF
from support.worlds import embedding_column, unit_rows, write_planted_world

NUM_OF_EACH, NUM_SEEDS = 6, 8
OURS = setting(smoke(), PLANTED_AS_OF)
THEIRS = setting(smoke(), PLANTED_AS_OF - timedelta(days=14))
Planted = tuple[Setting, ...]
"""The champion's setting and those of the challenger, of which the worst is taken."""
NUM_LUCKY = 3
"""Champions of which the best is taken, where seeds differ much: one may be unlucky itself."""
CODE = ("training/fitting/lightning_module.py", "lr=training.learning_rate,")


def lost_action_type(folder: Path, seed: int) -> Planted:
    """Repins do not reach the log, but for the first days of the challenger's training window."""
    first = PLANTED_AS_OF - timedelta(days=23 - 2 - seed % 3)
    last = PLANTED_AS_OF - timedelta(days=9)
    for path in sorted((folder / "event_log" / "actions").glob("*/*.parquet")):
        if f"day={first:%Y-%m-%d}" <= path.parent.name < f"day={last:%Y-%m-%d}":
            rows = pq.read_table(path, partitioning=None)
            lost = np.asarray(rows["action_type"].to_pylist()) == "repin"
            pq.write_table(rows.filter(pa.array(~lost)), path)
    return THEIRS, OURS


def stale_embeddings(folder: Path, seed: int) -> Planted:
    """The challenger's embedding version has most pins as others were long ago."""
    pins, rng = pq.read_table(folder / "event_log" / "pins"), np.random.default_rng(seed)
    fresh = np.stack(pins["embedding"].to_numpy())
    is_stale = rng.random(len(fresh)) < 0.7
    old = np.where(is_stale[:, None], unit_rows(rng.normal(size=fresh.shape)), fresh)
    versions = pa.array(["planted-0"] * len(fresh), pins.schema.field("embedding_version").type)
    for name, column in (("embedding_version", versions), ("embedding", embedding_column(old))):
        place = pins.schema.get_field_index(name)
        pins = pins.set_column(place, pins.schema.field(name), column)
    pq.write_table(pins, folder / "event_log" / "pins" / "part-1.parquet")
    recipe = changed(smoke(), "snapshot", embedding_version="planted-0")
    return THEIRS, replace(OURS, recipe=recipe)


def shorter_window(folder: Path, seed: int) -> Planted:
    """The challenger is trained on two or three days."""
    recipe = changed(smoke(), "snapshot", training_days=2 + seed % 2)
    return THEIRS, replace(OURS, recipe=recipe)


def changed_code(folder: Path, seed: int) -> Planted:
    """The challenger's code learns ten to twenty times more slowly."""
    change = (*CODE, f"lr=training.learning_rate * {0.05 + 0.01 * seed},")
    code = keep_older_code(storage.to_uri(folder / "workspace"), folder / "older", change)
    return THEIRS, replace(OURS, code=code)


def unlucky_seed(folder: Path, seed: int) -> Planted:
    """Both sides learn so fast that seeds differ by a quarter; the challenger has the worst."""
    wild = changed(smoke(), "training", learning_rate=0.1)
    sides = [THEIRS] * NUM_LUCKY + [OURS] * NUM_SEEDS
    seeds = range(100 * seed + 100, 100 * seed + 100 + len(sides))
    recipes = [with_seed(wild, each) for each in seeds]
    return tuple(replace(s, recipe=r) for s, r in zip(sides, recipes, strict=True))


CAUSES: dict[str, tuple[Callable[[Path, int], Planted], str]] = {
    "a lost action type": (lost_action_type, "data"),
    "stale embeddings": (stale_embeddings, "snapshot.embedding_version"),
    "a shorter window": (shorter_window, "snapshot.training_days"),
    "changed code": (changed_code, "code"),
    "an unlucky seed": (unlucky_seed, "seed"),
}


def find(cause: str, seed: int, place: Path = HOME / "explain") -> dict[str, float]:
    """Return the gains that are found of one planting, once."""
    folder = place / f"{cause.replace(' ', '_')}-{seed}"
    if not (note := folder / "gains.json").exists():
        if not (folder / "whole").exists():
            write_planted_world(folder / "event_log", num_users=480, seed=seed)
            (folder / "whole").touch()
        plant, _ = CAUSES[cause]
        num_champions = NUM_LUCKY if plant is unlucky_seed else 1
        found = explain(lose(folder, *plant(folder, seed), num_champions=num_champions).run_uri)
        note.write_text(json.dumps({p.name: p.gain.value for p in found.parts if p.gain}))
    return json.loads(note.read_text())


def measure() -> list[Row]:
    """Return in how many plantings the true cause has the largest share."""
    hits = {
        cause: sum(
            max(gains, key=gains.__getitem__) == name
            for gains in (find(cause, seed) for seed in range(NUM_OF_EACH))
        )
        for cause, (_, name) in CAUSES.items()
    }
    num = NUM_OF_EACH * len(CAUSES)
    return [
        row(
            "explain_true_cause",
            sum(hits.values()),
            f"of {num} planted causes have the largest share (goal: >= 27)",
            ratio=sum(hits.values()) / num,
            peer="all of them",
            spread=", ".join(
                f"{cause} {each} of {NUM_OF_EACH}"
                for cause, each in hits.items()
                if each < NUM_OF_EACH
            )
            or f"{NUM_OF_EACH} of {NUM_OF_EACH} of each cause",
            rows=num,
            seed=f"0 to {NUM_OF_EACH - 1}",
        )
    ]
