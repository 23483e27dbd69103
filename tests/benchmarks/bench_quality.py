"""Repins in the top 3 on the sample's holdout: rankings by rule, and trained variants.

Every figure is a mean over requests; intervals are 95 % bootstrap intervals over users, for trained
variants of the mean over seeds, beside the range over seeds.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from record import Row, row
from sample import AS_OF, Scored, make_run, train_and_score, variant

from pipelines import storage
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.snapshot.build import write_snapshot
from training.data.example_rows import load_rows
from validation.model_gate.ranking_metrics import top_k_hits

SEEDS = (17, 18)
RESAMPLES = 1000
VARIANTS = {
    "model": {},
    "model_without_encoder": {"encoder": False},
    "model_without_count": {"count": False},
    "model_without_matches": {"matches": False},
    "model_without_sequence": {"encoder": False, "matches": False},
    "model_without_sequence_and_count": {"encoder": False, "count": False, "matches": False},
}


def measure() -> list[Row]:
    """Score the rules, train the variants on each seed, and compare all with popularity."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        workspace = Path(folder)
        rules = _rules(workspace)
        popularity = rules["popularity"]
        rows = [_row(name, [scored], popularity, "none") for name, scored in rules.items()]
        for name, parts in VARIANTS.items():
            runs = []
            for seed in SEEDS:
                sys.stderr.write(f"  {name}, seed {seed}\n")
                runs.append(train_and_score(variant(seed, **parts), AS_OF, workspace))
            rows.append(_row(name, runs, popularity, ", ".join(map(str, SEEDS))))
            rows.append(_against(name, runs, rules["past_purchases"]))
    return rows


def _rules(workspace: Path) -> dict[str, Scored]:
    """Rank the holdout by chance, by popularity, and by past purchases with ties by popularity."""
    snapshot = write_snapshot(make_run(variant(SEEDS[0]), AS_OF, workspace))
    rows = load_rows(snapshot, storage.local_path(snapshot.uri), SPLIT_HOLDOUT)
    popularity = rows.numeric["pin_popularity"].astype(np.float64)
    past = np.round(np.expm1(rows.numeric["past_engagements"].astype(np.float64)))
    scores = {
        "random": np.random.default_rng(1).random(len(popularity)),
        "popularity": popularity,
        "past_purchases": past * (popularity.max() + 1) + popularity,
    }
    label = rows.labels["repin"]
    return {
        name: Scored(top_k_hits(rows, score, label), rows.user_id) for name, score in scores.items()
    }


def _row(name: str, runs: list[Scored], peer: Scored, seeds: str) -> Row:
    hits = np.mean([run.hits for run in runs], axis=0)
    low, high = np.percentile(resampled_means(hits, runs[0].user_id), [2.5, 97.5])
    means = [float(run.hits.mean()) for run in runs]
    spread = f"95 % interval {low:.3f} to {high:.3f}"
    if len(runs) > 1:
        spread += f"; seeds {min(means):.3f} to {max(means):.3f}"
    is_peer = name == "popularity"
    return row(
        f"quality_{name}",
        float(hits.mean()),
        "repins in top 3",
        ratio=None if is_peer else float(hits.mean() / peer.hits.mean()),
        peer=None if is_peer else f"popularity, {peer.hits.mean():.3f}",
        spread=spread,
        rows=len(hits),
        seed=seeds,
    )


def _against(name: str, runs: list[Scored], peer: Scored) -> Row:
    """Paired difference to the strong baseline on the same requests."""
    hits = np.mean([run.hits for run in runs], axis=0)
    change = resampled_means(hits, peer.user_id) / resampled_means(peer.hits, peer.user_id) - 1
    low, high = np.percentile(change, [2.5, 97.5])
    ratio = float(hits.mean() / peer.hits.mean())
    return row(
        f"quality_{name}_vs_past_purchases",
        100 * (ratio - 1),
        "% repins in top 3",
        ratio=ratio,
        peer=f"past purchases, ties by popularity, {peer.hits.mean():.3f}",
        spread=f"95 % paired interval {100 * low:+.1f} to {100 * high:+.1f} %",
        rows=len(hits),
        seed=", ".join(map(str, SEEDS)),
    )


def resampled_means(hits: np.ndarray, user_id: np.ndarray) -> np.ndarray:
    """Return (RESAMPLES,) means over requests when users are drawn with replacement."""
    _, user = np.unique(user_id, return_inverse=True)
    total, count = np.bincount(user, hits), np.bincount(user)
    drawn = np.random.default_rng(5).multinomial(
        len(total), np.full(len(total), 1 / len(total)), size=RESAMPLES
    )
    return (drawn @ total) / (drawn @ count)
