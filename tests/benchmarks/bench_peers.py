"""The ranker on the sample against average pooling, no sequence, and FuxiCTR's TransAct and DCNv2.

The same rows, the same seeds; HIT@3/repin (repins in the top 3, summed over a user's requests,
averaged over users) and AUC of the repin head. Intervals are 95 % paired bootstrap intervals over
users of the mean over seeds. FuxiCTR's models have the recipe's sizes, epochs, batch and dropout;
its learning rate was chosen like ours, at as_of 2017-05-15 (see LEARNING_RATE).
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import fuxictr_peer
import numpy as np
from pool import run_all
from record import Row, row
from sample import AS_OF, make_run, spec_of, variant

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.snapshot import build_snapshot
from training import launch, scoring
from training.metrics import top_k_hits

SEEDS = (17, 18, 19, 20, 21)
RESAMPLES = 500
LEARNING_RATE = 0.002
VARIANTS = {
    "model": {},
    # without matches: average pooling takes the place of all that looks at the sequence
    "average_pooling": {"encoder_variant": "average", "use_sequence_matches": False},
    "no_sequence": {"use_sequence_encoder": False, "use_sequence_matches": False},
}
PEERS = {"fuxictr_transact": "TransAct", "fuxictr_dcnv2": "DCNv2"}


@dataclass(frozen=True)
class Measured:
    """A model's means over seeds: whole, per seed, and per resample of the users."""

    hit_at_3: float
    auc: float
    per_seed: np.ndarray  # (seeds, 2)
    resampled: np.ndarray  # (RESAMPLES, 2)


def measure() -> list[Row]:
    """Train each on every seed and compare it with the recipe's model."""
    fuxictr_peer.install()
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as temporary:
        folder = Path(temporary)
        config = variant(SEEDS[0])
        snapshot = build_snapshot(make_run(config, AS_OF, folder))
        snapshot_dir = storage.local_path(snapshot.uri)
        rows = scoring.load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
        rate = config.training.model_copy(update={"learning_rate": LEARNING_RATE})
        peer_config = config.model_copy(update={"training": rate})
        fuxictr_peer.export(snapshot, snapshot_dir, peer_config, folder)
        jobs = [(snapshot, folder, name, seed) for seed in SEEDS for name in (*VARIANTS, *PEERS)]
        found = run_all(train_and_score, jobs)
    scores = {
        name: [score for job, score in zip(jobs, found, strict=True) if job[2] == name]
        for name in (*VARIANTS, *PEERS)
    }
    measured = {name: _measured(found, rows) for name, found in scores.items()}
    return [
        _row(name, which, found, measured["model"], len(rows.request_index))
        for name, found in measured.items()
        for which in (0, 1)
    ]


def train_and_score(snapshot: Snapshot, folder: Path, name: str, seed: int) -> np.ndarray:
    """Return the holdout's ranking scores of one model; in this recipe repin alone has a weight."""
    if name in PEERS:
        return fuxictr_peer.train_and_score(folder, PEERS[name], seed)
    base = variant(seed)
    model = base.model.model_copy(update=VARIANTS[name])
    config: RunConfig = base.model_copy(update={"model": model})
    snapshot_dir = storage.local_path(snapshot.uri)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        result = launch.train(spec_of(snapshot, config, work_dir))
        found = scoring.score(Path(result.bundle_dir), snapshot, snapshot_dir, SPLIT_HOLDOUT)
    sys.stderr.write(f"  {name}, seed {seed}: done\n")
    return scoring.ranking_score(found, config.features.heads)


def _measured(scores: list[np.ndarray], rows: scoring.ExampleRows) -> Measured:
    """Return HIT@3 and AUC of one model, with the same resamples of users for all models."""
    label = rows.labels["repin"]
    _, user_of_request = np.unique(rows.user_id, return_inverse=True)
    user_of_row = user_of_request[rows.request_index]
    num_users = int(user_of_request.max()) + 1
    drawn = np.random.default_rng(5).multinomial(
        num_users, np.full(num_users, 1 / num_users), size=RESAMPLES
    )
    per_seed, resampled = [], []
    for score in scores:
        hits_U = np.bincount(user_of_request, top_k_hits(rows, score, label))
        place = np.unique(score, return_inverse=True)[1]
        aucs = [_auc(place, label, weight[user_of_row]) for weight in drawn]
        resampled.append(np.stack([drawn @ hits_U / num_users, np.array(aucs)], axis=1))
        per_seed.append([hits_U.mean(), _auc(place, label, np.ones(len(label)))])
    means = np.mean(per_seed, axis=0)
    return Measured(means[0], means[1], np.array(per_seed), np.mean(resampled, axis=0))


def _auc(place: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted area under the ROC curve; ties count half.

    Args:
        place: (N,) rank of the score among the different scores, from 0.
        label: (N,) 0 or 1.
        weight: (N,) how often the row counts.
    """
    positive = np.bincount(place, weight * label)
    negative = np.bincount(place, weight * (1 - label))
    below = np.cumsum(negative) - 0.5 * negative
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def _row(name: str, which: int, found: Measured, model: Measured, num_rows: int) -> Row:
    metric = ("hit_at_3", "auc")[which]
    figure, ours = (getattr(part, metric) for part in (found, model))
    low, high = np.percentile(found.resampled[:, which], [2.5, 97.5])
    spread = (
        f"95 % interval {low:.4f} to {high:.4f}; seeds {found.per_seed[:, which].min():.4f} to "
        f"{found.per_seed[:, which].max():.4f}"
    )
    if found is not model:
        change = found.resampled[:, which] / model.resampled[:, which] - 1
        low, high = 100 * np.percentile(change, [2.5, 97.5])
        spread += f"; against the model {low:+.2f} to {high:+.2f} %"
    return row(
        f"peers_{name}_{metric}",
        figure,
        "HIT@3/repin" if which == 0 else "AUC of repin",
        ratio=None if found is model else figure / ours,
        peer=None if found is model else f"the recipe's model, {ours:.4f}",
        spread=spread,
        rows=num_rows,
        seed=", ".join(map(str, SEEDS)),
    )
