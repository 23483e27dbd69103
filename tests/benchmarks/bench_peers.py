"""The ranker on the sample against average pooling, no sequence, and FuxiCTR's TransAct and DCNv2.

The same rows, the same seeds; HIT@3/repin (repins in the top 3, summed over a user's requests,
averaged over users) and AUC of the repin head. Intervals are 95 % paired bootstrap intervals over
users of the mean over seeds. FuxiCTR's models have the recipe's sizes, epochs, batch, dropout and
schedule (warm-up, then cosine); they have no weight decay, train on the 5 % of the users that ours
keeps for calibration besides, and see neither matches nor the dot product of user and candidate,
which are no part of them. Their learning rates were chosen like ours, at as_of 2017-05-15 and seed
17. Repins in the top 3 of a request there: TransAct 1.659 at 0.001, 1.673 at 0.002, 1.687 at 0.004,
1.698 at 0.008, 1.696 at 0.012, 1.697 at 0.016; DCNv2 1.679 at 0.0005, 1.692 at 0.001, 1.696 at
0.002, 1.692 at 0.004.
"""

import sys
import tempfile
import time
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
from pipelines.snapshot.build import write_snapshot
from training.bundle.score_split import score_split
from training.data.example_rows import ExampleRows, load_rows
from training.launch import launcher
from validation.model_gate.ranking_metrics import top_k_hits

SEEDS = (17, 18, 19, 20, 21)
RESAMPLES = 500
VARIANTS = {
    "model": {},
    "without_matches": {"use_sequence_matches": False},
    # without matches: average pooling takes the place of all that looks at the sequence
    "average_pooling": {"encoder_variant": "average", "use_sequence_matches": False},
    "no_sequence": {"use_sequence_encoder": False, "use_sequence_matches": False},
}
PEERS = {"fuxictr_transact": ("TransAct", 0.008), "fuxictr_dcnv2": ("DCNv2", 0.002)}
"""Name -> the library's model, its learning rate."""


@dataclass(frozen=True)
class Measured:
    """A model's means over seeds: whole, per seed, per resample of the users; its time."""

    hit_at_3: float
    auc: float
    per_seed: np.ndarray  # (seeds, 2)
    resampled: np.ndarray  # (RESAMPLES, 2)
    minutes: float  # to train and score, one thread


def measure() -> list[Row]:
    """Train each on every seed and compare it with the recipe's model, twice."""
    fuxictr_peer.install()
    return [*measure_features(has_count=True), *measure_features(has_count=False)]


def measure_features(*, has_count: bool) -> list[Row]:
    """Return the rows of all models on one set of features."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as temporary:
        folder = Path(temporary)
        config = variant(SEEDS[0], count=has_count)
        snapshot = write_snapshot(make_run(config, AS_OF, folder))
        snapshot_dir = storage.local_path(snapshot.uri)
        rows = load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
        fuxictr_peer.export(snapshot, snapshot_dir, config, folder)
        names = (*VARIANTS, *PEERS)
        jobs = [(snapshot, folder, name, seed, has_count) for seed in SEEDS for name in names]
        found = run_all(train_and_score, jobs)
    measured = {
        name: _measured([run for job, run in zip(jobs, found, strict=True) if job[2] == name], rows)
        for name in names
    }
    suffix = "" if has_count else "_without_count"
    return [
        _row(name, suffix, which, measured, len(rows.request_index))
        for name in measured
        for which in (0, 1)
    ]


def train_and_score(
    snapshot: Snapshot, folder: Path, name: str, seed: int, has_count: bool
) -> tuple[np.ndarray, float]:
    """Return the holdout's ranking scores of one model, and the minutes that it took."""
    started = time.perf_counter()
    if name in PEERS:
        scores = fuxictr_peer.train_and_score(folder, *PEERS[name], seed)
    else:
        scores = _train_and_score(snapshot, name, variant(seed, count=has_count))
    sys.stderr.write(f"  {name}, seed {seed}: done\n")
    return scores, (time.perf_counter() - started) / 60


def _train_and_score(snapshot: Snapshot, name: str, base: RunConfig) -> np.ndarray:
    """Return the scores of one of ours; in this recipe repin alone has a weight."""
    model = base.model.model_copy(update=VARIANTS[name])
    config: RunConfig = base.model_copy(update={"model": model})
    snapshot_dir = storage.local_path(snapshot.uri)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        result = launcher.train(spec_of(snapshot, config, work_dir))
        bundle_dir = Path(result.bundle_dir)
        found = score_split(bundle_dir, snapshot, snapshot_dir, SPLIT_HOLDOUT)
    return found.ranking_score


def _measured(runs: list[tuple[np.ndarray, float]], rows: ExampleRows) -> Measured:
    """Return HIT@3 and AUC of one model, with the same resamples of users for all models."""
    label = rows.labels["repin"]
    _, user_of_request = np.unique(rows.user_id, return_inverse=True)
    user_of_row = user_of_request[rows.request_index]
    num_users = int(user_of_request.max()) + 1
    drawn = np.random.default_rng(5).multinomial(
        num_users, np.full(num_users, 1 / num_users), size=RESAMPLES
    )
    per_seed, resampled = [], []
    for score, _ in runs:
        hits_U = np.bincount(user_of_request, top_k_hits(rows, score, label))
        place = np.unique(score, return_inverse=True)[1]
        aucs = [_auc(place, label, weight[user_of_row]) for weight in drawn]
        resampled.append(np.stack([drawn @ hits_U / num_users, np.array(aucs)], axis=1))
        per_seed.append([hits_U.mean(), _auc(place, label, np.ones(len(label)))])
    means = np.mean(per_seed, axis=0)
    minutes = float(np.mean([minutes for _, minutes in runs]))
    return Measured(means[0], means[1], np.array(per_seed), np.mean(resampled, axis=0), minutes)


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


def _row(name: str, suffix: str, which: int, measured: dict[str, Measured], num_rows: int) -> Row:
    metric = ("hit_at_3", "auc")[which]
    found, model = measured[name], measured["model"]
    figure, ours = (getattr(part, metric) for part in (found, model))
    low, high = np.percentile(found.resampled[:, which], [2.5, 97.5])
    spread = (
        f"95 % interval {low:.4f} to {high:.4f}; seeds {found.per_seed[:, which].min():.4f} to "
        f"{found.per_seed[:, which].max():.4f}"
    )
    for other in ("model", "without_matches") if found is not model else ():
        change = found.resampled[:, which] / measured[other].resampled[:, which] - 1
        low, high = 100 * np.percentile(change, [2.5, 97.5])
        spread += f"; against {other} {low:+.2f} to {high:+.2f} %" if other != name else ""
    return row(
        f"peers_{name}_{metric}{suffix}",
        figure,
        "HIT@3/repin" if which == 0 else "AUC of repin",
        ratio=None if found is model else figure / ours,
        peer=None if found is model else f"the recipe's model, {ours:.4f}",
        spread=spread,
        rows=num_rows,
        seed=", ".join(map(str, SEEDS)),
        note=f"{found.minutes:.1f} minutes to train and score, one thread of two in use",
    )
