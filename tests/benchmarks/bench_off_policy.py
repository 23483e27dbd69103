"""The gate's off-policy estimates of a trained model beside `obp`, on a world's holdout.

Log, snapshot, training, scoring and holdout are a cycle's, with the recipe's own settings; the
other side is the ranking by popularity. `obp` (Saito et al. 2021) gets what was shown first, with
the chance of one in as many candidates as the request has, requests of equally many at a time.
"""

import tempfile
from pathlib import Path

import numpy as np
from bench_quality import SEEDS, WORLD_AS_OF, WORLDS, world_uri
from obp.ope import DoublyRobust, InverseProbabilityWeighting
from obp.ope import SelfNormalizedInverseProbabilityWeighting as SelfNormalized
from record import Row, row
from sample import make_run, train_and_score

from pipelines import storage
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.recipes import world
from pipelines.snapshot.build import write_snapshot
from training.bundle.score_split import SplitScores
from training.data.reader import load_rows
from validation.model_gate.comparison import Holdout
from validation.model_gate.off_policy import estimate
from validation.model_gate.ranking_metrics import is_in_top


def measure() -> list[Row]:
    """Return the largest difference between an estimate of the gate and `obp`'s."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        run = make_run(world(), WORLD_AS_OF, Path(folder), world_uri(WORLDS["world"]))
        snapshot = write_snapshot(run)
        ours = train_and_score(snapshot, run.config)
        rows = load_rows(snapshot, storage.local_path(snapshot.uri), SPLIT_HOLDOUT)
    theirs = SplitScores(rows.numeric["pin_popularity_28d"], {}, ours.holdout_digest)
    holdout = Holdout(rows, run.config.features.heads, run.config.model_gate)
    found = {each.estimator: each for each in estimate(holdout, ours, theirs)}
    expected = _by_obp(holdout, ours, theirs)
    differences = {
        name: max(abs(values[0] - found[name].challenger), abs(values[1] - found[name].baseline))
        for name, values in expected.items()
    }
    return [
        row(
            "obp_difference",
            max(differences.values()),
            "reward, absolute",
            ratio=max(differences.values()) / 1e-9,
            peer="1e-9",
            spread=f"the largest of {len(differences)} estimators",
            rows=found["IPS, first place"].num_requests,
            seed=str(SEEDS[0]),
        )
    ]


def _by_obp(
    holdout: Holdout, ours: SplitScores, theirs: SplitScores
) -> dict[str, tuple[float, float]]:
    rows, head = holdout.rows, holdout.target_head.name
    inside = np.flatnonzero(rows.is_exploration[rows.request_index])
    order = inside[np.lexsort((rows.position[inside], rows.request_index[inside]))]
    sizes = np.bincount(rows.request_index, minlength=len(rows.user_id))
    [num] = set(sizes[rows.is_exploration].tolist())
    shape = (-1, num)
    reward, predicted = (
        of[order].reshape(shape) for of in (rows.labels[head], ours.probabilities[head])
    )
    values: dict[str, list[float]] = {}
    for side in (ours, theirs):
        # Which of equals goes first is the gate's rule, and no part of an estimate.
        best = is_in_top(rows, side.ranking_score, 1)[order].reshape(shape).argmax(axis=1)
        first = {
            "reward": reward[:, 0].astype(float),
            "action": np.zeros(len(reward), dtype=int),
            "pscore": np.full(len(reward), 1 / num),
            "action_dist": np.eye(num)[best][:, :, None],
        }
        robust = first | {"estimated_rewards_by_reg_model": predicted.astype(float)[:, :, None]}
        for name, obp, given in (
            ("IPS, first place", InverseProbabilityWeighting(), first),
            ("SNIPS, first place", SelfNormalized(), first),
            ("doubly robust, first place", DoublyRobust(), robust),
        ):
            values.setdefault(name, []).append(obp.estimate_policy_value(**given))
    return {name: (mine, other) for name, (mine, other) in values.items()}
