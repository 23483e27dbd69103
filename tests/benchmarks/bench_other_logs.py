"""Small logs as strangers bring them: the proposed recipe against the regression, and vectors.

Each log has the recipe that `homefeed recipe propose` writes for it, as of the day after its last;
nothing of that recipe was chosen on the days that are reported. Vectors of texts, of co-occurrence
up to a day, and of both are held against each other with the recipe that is proposed for the log
with both.
"""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
from bench_quality import SEEDS, Sample, by_seed, row_of
from other_logs import TEXTS, packaged_log, part_of_sample, sample_with, small_world, version_of
from record import Row, row
from sample import HOME

from pipelines.contracts.config import RunConfig
from pipelines.event_log.log_files import open_event_log
from pipelines.log_check.propose import propose
from pipelines.recipes import make_recipe
from validation.model_gate.baselines import REGRESSION

LOGS = {
    "movielens": lambda: packaged_log("movielens"),
    "ta_feng": lambda: packaged_log("ta_feng"),
    "completejourney_10": lambda: part_of_sample(10),
    "completejourney_30": lambda: part_of_sample(30),
    "world_small": lambda: small_world(None),
    "world_small_fading": lambda: small_world(2.0),
}
CHOSEN = {"co_occurrence": {"to": "2017-07-01"}}
VECTORS: dict[str, dict[str, Any]] = {
    "texts": TEXTS,
    "co_occurrence": CHOSEN,
    "both": {**TEXTS, **CHOSEN},
}


def measure() -> list[Row]:
    """Import each log, have its recipe proposed, and train it with each seed."""
    rows = [against_regression(name) for name in LOGS]
    return rows + of_vectors()


def proposed(name: str, uri: str) -> RunConfig:
    """Return the recipe that is proposed for a log."""
    path = HOME / f"{name}.yaml"
    path.write_text(propose(uri, name), "utf-8")
    return make_recipe(str(path))


def against_regression(name: str) -> Row:
    """Return how the proposed recipe of a log stands to the regression."""
    uri = LOGS[name]()
    sample = Sample(name, proposed(name, uri), as_of(uri), uri)
    return row_of(f"quality_vs_regression_{name}", REGRESSION, sample, by_seed(sample))


def of_vectors() -> list[Row]:
    """Return the target metric with each kind of vectors, on a part of the sample."""
    uris = {kind: sample_with(how, 10) for kind, how in VECTORS.items()}
    config, found = proposed("vectors", uris["both"]), dict[str, list[float]]()
    for kind, uri in uris.items():
        version = {"embedding_version": version_of(VECTORS[kind])}
        snapshot = config.snapshot.model_copy(update=version)
        sample = Sample(kind, config.model_copy(update={"snapshot": snapshot}), as_of(uri), uri)
        facts = [next(f for f in each if f.name == REGRESSION) for each in by_seed(sample)]
        found[kind] = [each.level.value * (1 + each.change.value) for each in facts]
    return [
        row(
            f"quality_of_vectors_{kind}",
            float(np.mean(levels)),
            config.model_gate.target_metric,
            ratio=float(np.mean(levels) / np.mean(found["texts"])),
            peer="texts",
            spread=" and ".join(f"{each:.3f}" for each in levels),
            rows=len(SEEDS),
            seed=", ".join(map(str, SEEDS)),
        )
        for kind, levels in found.items()
    ]


def as_of(uri: str) -> datetime:
    """Return the midnight after the last day of a log."""
    last = open_event_log(uri).span("impressions")[1]
    return datetime.combine(last, time(), UTC) + timedelta(days=1)
