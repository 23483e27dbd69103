"""Planted holdouts: rows and scores of two sides whose difference is known, without any model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.reasons import BaselineKind
from support.judgements import BEATEN, CHALLENGER, CHAMPION, HOLDOUT, SERVING
from training.bundle.score_split import SplitScores, ranking_score
from training.data.reader import ExampleRows
from validation.model_gate.comparison import ComparedModels, Holdout, compare
from validation.model_gate.self_test import run_self_test
from validation.model_gate.target_metric import volume_name
from validation.model_gate.verdict import decide

HEADS = (
    Head(name="repin", action_type="repin", utility_weight=1.0),
    Head(name="hide", action_type="hide", utility_weight=-0.5, is_wanted=False),
)
DIGEST = "d" * 64
NUM_DAYS = 14
NEW_CHALLENGER = CHALLENGER.model_copy(update={"bundle_digest": "a" * 64})
AGAINST_CHAMPION = ComparedModels(HOLDOUT, BaselineKind.CHAMPION, NEW_CHALLENGER, CHAMPION)
POPULARITY = "popularity, 28 days"
AGAINST_POPULARITY = ComparedModels(
    HOLDOUT, BaselineKind.RANKING, NEW_CHALLENGER, None, baseline_name=POPULARITY
)


def example_rows(
    counts: Sequence[int], users: Sequence[int] | np.ndarray, **fields: Any
) -> ExampleRows:
    """Return rows of requests that have so many candidates and are of these users."""
    num_requests, num = len(counts), sum(counts)
    values = {
        "is_core": np.zeros(num_requests, dtype=bool),
        "day": np.arange(num_requests) % NUM_DAYS,
        "request_id": np.array([f"r{i}" for i in range(num_requests)]),
        "pin_row": np.arange(num) % 17,
        "pin_ids": 7_000_000_000 + np.arange(1_000),
        "numeric": {},
        "labels": {},
        "position": np.concatenate([np.arange(count) for count in counts]),
        "is_exploration": np.zeros(num_requests, dtype=bool),
        "propensity": np.zeros(num, dtype=np.float32),
    }
    first = np.concatenate([[0], np.cumsum(counts)])
    requests = np.repeat(np.arange(num_requests), counts)
    return ExampleRows(requests, np.array(users), first_example=first, **values | fields)


def planted_rows(
    num_users: int = 300, requests_per_user: int = 4, candidates: int = 12, seed: int = 5
) -> tuple[ExampleRows, dict[str, np.ndarray]]:
    """Return rows and the truth per head (N,); a third of the requests are non-core."""
    rng = np.random.default_rng(seed)
    num_requests = num_users * requests_per_user
    num_examples = num_requests * candidates
    truth = {
        "repin": 1 / (1 + np.exp(-rng.normal(-2.2, 1.3, num_examples))),
        "hide": 1 / (1 + np.exp(-rng.normal(-3.5, 1.0, num_examples))),
    }
    popularity = np.log1p(rng.poisson(20 * truth["repin"]))
    return example_rows(
        [candidates] * num_requests,
        np.repeat(np.arange(num_users), requests_per_user),
        is_core=rng.random(num_requests) < 2 / 3,
        pin_row=rng.integers(0, 500, num_examples),
        numeric={"pin_popularity_28d": popularity.astype(np.float32)},
        labels={
            head: (rng.random(num_examples) < probability).astype(np.int8)
            for head, probability in truth.items()
        },
    ), truth


def popularity_scores(rows: ExampleRows) -> SplitScores:
    """Return the ranking by popularity as a side, without probabilities."""
    score = np.asarray(rows.numeric["pin_popularity_28d"], dtype=np.float64)
    return SplitScores(score, {}, DIGEST)


def noisy_scores(truth: dict[str, np.ndarray], noise: float, seed: int) -> SplitScores:
    """Return a side that knows the truth but for noise on the log-odds; 0 knows it exactly."""
    rng = np.random.default_rng(seed)
    probabilities = {}
    for head, probability in truth.items():
        log_odds = np.log(probability / (1 - probability))
        probabilities[head] = 1 / (1 + np.exp(-log_odds - rng.normal(0, noise, len(log_odds))))
    return SplitScores(ranking_score(probabilities, HEADS), probabilities, DIGEST)


def champion_with(bundle_digest: str) -> ModelRef:
    return CHAMPION.model_copy(update={"bundle_digest": bundle_digest})


def judged(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    models: ComparedModels,
    config: ModelGateConfig,
    heads: tuple[Head, ...] = HEADS,
) -> Judgement:
    """Return facts and verdict on sides that were scored already, as the stage does."""
    holdout = Holdout(rows, heads, config)
    comparison = compare(holdout, challenger, baseline, models).comparison
    found = run_self_test(holdout, challenger, baseline, comparison)
    return Judgement(
        comparison=comparison,
        self_test=found,
        serving=SERVING,
        verdict=decide(comparison, found, SERVING, config, heads, baselines=BEATEN),
        report_uri="",
    )


def level_of(holdout: Holdout, scores: SplitScores) -> float:
    """Return the target metric of one side alone; NaN where a score is not finite."""
    head, everybody = holdout.target_head.name, holdout.masks["all"]
    hits = holdout.hits(scores.ranking_score, head)
    is_volume = holdout.config.target_metric == volume_name(head)
    return float(hits.sum()) / (len(hits) if is_volume else holdout.count_users(everybody))
