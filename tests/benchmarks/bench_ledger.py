"""Offline changes beside true lifts: 45 pairs of models of a simulated world, five holdouts each.

Ten models of other sizes, speeds and seeds score the newest week. The gate compares each pair on
the requests of a fifth of the users. The truth is what both orders bring to all users on average,
by the hidden chances, as in `world run`: shown at the places that a model gives them.
"""

import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from bench_quality import WORLD_AS_OF
from record import Row, row
from sample import HOME, make_run, train_and_score

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.recipes import world
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.publish import ingest
from pipelines.sources.world.draws import EXAMINATION_C
from pipelines.sources.world.parameters import WorldParameters
from support.judgements import CHALLENGER, CHAMPION
from support.world_adapter import TRUTH, WorldAdapter
from training.bundle.score_split import SplitScores
from training.data.reader import ExampleRows, load_rows
from validation.model_gate.comparison import ComparedModels, Holdout, compare
from validation.model_gate.ranking_metrics import is_in_top
from validation.model_gate.target_metric import TOP_K

WORLD, NUM_HOLDOUTS = WorldParameters(num_users=3000, seed=9), 5
MODELS = (
    {}, {"seed": 18}, {"use_sequence_encoder": False}, {"max_actions": 8}, {"max_actions": 3},
    {"learning_rate": 0.0007}, {"learning_rate": 0.0003}, {"learning_rate": 0.006},
    {"use_action_ages": False}, {"use_sequence_matches": True},
)  # fmt: skip


def measure() -> list[Row]:
    """Return how often the signs agree, and how often the intervals cover the true lifts."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        uri = storage.to_uri(HOME / "world-of-pairs")
        ingest(WorldAdapter(WORLD), uri)
        snapshot = write_snapshot(make_run(world(), WORLD_AS_OF, Path(folder), uri))
        rows = load_rows(snapshot, storage.local_path(snapshot.uri), SPLIT_HOLDOUT)
        scores = [train_and_score(snapshot, config_of(changes)) for changes in MODELS]
    chance = true_chances(uri, rows)
    worth = [true_worth(rows, chance, each.ranking_score) for each in scores]
    window = snapshot.holdout
    models = ComparedModels(window, BaselineKind.CHAMPION, CHALLENGER, CHAMPION)
    found = []
    for part in range(NUM_HOLDOUTS):
        is_own = rows.user_id % NUM_HOLDOUTS == part
        holdout = Holdout(rows_of(rows, is_own), world().features.heads, world().model_gate)
        own = [scores_of(each, is_own[rows.request_index]) for each in scores]
        for a, b in combinations(range(len(MODELS)), 2):
            comparison = compare(holdout, own[a], own[b], models).comparison
            change, least = comparison.target_change, comparison.smallest_detectable_change
            assert change is not None and least is not None
            lift = worth[a] / worth[b] - 1
            is_covered = change.low <= lift <= change.high
            found.append((lift, change.value, abs(lift) > least, is_covered))
    lift, change, is_clear, is_covered = np.array(found).T
    signs = 100 * (lift * change > 0)[is_clear > 0].mean()
    apart = change - lift
    by_part = apart.reshape(NUM_HOLDOUTS, -1).mean(axis=1)
    return [
        row(
            "ledger_signs",
            float(signs),
            "% of clear pairs whose offline change has the sign of the true lift (goal: >= 95)",
            spread=f"{int(is_clear.sum())} of {len(found)} comparisons of 45 pairs are clear; "
            f"true lifts {100 * lift.min():+.1f} to {100 * lift.max():+.1f} %",
            rows=rows.request_id.size,
            seed=f"{WORLD.seed}",
            note="clear: the true lift exceeds the smallest detectable change",
        ),
        row(
            "ledger_coverage",
            100 * float(is_covered.mean()),
            "% of the gate's 95 % intervals hold the true lift",
            spread=f"estimates are {100 * apart.mean():+.2f} % off on average, "
            f"{100 * by_part.min():+.2f} to {100 * by_part.max():+.2f} by holdout",
            rows=len(found),
            seed=f"{WORLD.seed}",
        ),
    ]


def config_of(changes: dict[str, object]) -> RunConfig:
    base = world()
    parts = {
        name: getattr(base, name).model_copy(
            update={k: v for k, v in changes.items() if k in type(getattr(base, name)).model_fields}
        )
        for name in ("model", "training")
    }
    return base.model_copy(update=parts)


def rows_of(rows: ExampleRows, is_own_M: np.ndarray) -> ExampleRows:
    """Return the rows of some requests."""
    is_own_N, counts = is_own_M[rows.request_index], np.diff(rows.first_example)[is_own_M]
    names = ("user_id", "day", "is_core", "request_id", "is_exploration")
    of_requests = {name: getattr(rows, name)[is_own_M] for name in names}
    names = ("pin_row", "position", "propensity")
    of_examples = {name: getattr(rows, name)[is_own_N] for name in names}
    return replace(
        rows,
        request_index=np.repeat(np.arange(len(counts)), counts),
        first_example=np.concatenate([[0], np.cumsum(counts)]),
        numeric={name: of[is_own_N] for name, of in rows.numeric.items()},
        labels={name: of[is_own_N] for name, of in rows.labels.items()},
        **of_requests,
        **of_examples,
    )


def scores_of(scores: SplitScores, is_own_N: np.ndarray) -> SplitScores:
    own = {name: of[is_own_N] for name, of in scores.probabilities.items()}
    return replace(scores, ranking_score=scores.ranking_score[is_own_N], probabilities=own)


def true_chances(uri: str, rows: ExampleRows) -> np.ndarray:
    """Return (N,) the chance of a repin once a candidate is looked at, by the hidden state."""
    names, pins = rows.request_id[rows.request_index], rows.pin_ids[rows.pin_row]
    asked = {"request_id": names.tolist(), "pin_id": pins, "place": np.arange(len(pins))}
    columns = ["request_id", "pin_id", "oracle"]
    truth = ds.dataset(storage.local_path(f"{uri}/{TRUTH}"), partitioning=None)
    truth = truth.to_table(columns, filter=ds.field("request_id").isin(rows.request_id.tolist()))
    found = pa.table(asked).join(truth, ["request_id", "pin_id"], join_type="inner")
    assert len(found) == len(pins)
    return np.asarray(found.sort_by("place")["oracle"], dtype=np.float64)


def true_worth(rows: ExampleRows, chance_N: np.ndarray, score_N: np.ndarray) -> float:
    """Return the expected repins at the first three places, a request."""
    looked_N, above_N = np.zeros(len(score_N)), np.zeros(len(score_N), dtype=bool)
    for place in range(TOP_K):
        is_first_N = is_in_top(rows, score_N, place + 1)
        looked_N[is_first_N & ~above_N] = EXAMINATION_C[place]
        above_N = is_first_N
    return float(looked_N @ chance_N / len(rows.user_id))
