"""Each sample's model against simple ways to rank.

The baselines are the gate's own (`validation.model_gate.baselines`), measured on the same requests.
A model has a row for the best of them and one for each. A row's ratio is the mean over the seeds,
and its intervals are the gate's, over users.
"""

import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from record import Row, row
from sample import AS_OF, HOME, event_log_uri, make_run, train_and_score

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.reasons import BaselineFacts
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.recipes import completejourney, world
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.publish import ingest
from pipelines.sources.world.parameters import WorldParameters
from support.world_adapter import WorldAdapter
from training.data.reader import load_rows
from validation.model_gate.baselines import measure as measure_baselines

SEEDS = (17, 18)
WORLDS = {"world": WorldParameters(), "world_fading": WorldParameters(pin_lifetime_days=2)}
WORLD_AS_OF = datetime(2024, 3, 1, tzinfo=UTC)  # midnight after the last of its days


@dataclass(frozen=True)
class Sample:
    """One log, its recipe and the day of the cycle."""

    name: str
    config: RunConfig
    as_of: datetime
    log_uri: str


def measure() -> list[Row]:
    """Train each sample's recipe on each seed."""
    rows, samples = [], [Sample("completejourney", completejourney(), AS_OF, event_log_uri())]
    samples += [Sample(name, world(), WORLD_AS_OF, world_uri(WORLDS[name])) for name in WORLDS]
    for sample in samples:
        found = by_seed(sample)
        names = {"best_baseline": found[0][0].name}
        names |= {each.name.replace(",", "").replace(" ", "_"): each.name for each in found[0]}
        rows += [
            row_of(f"quality_vs_{slug}_{sample.name}", name, sample, found)
            for slug, name in names.items()
        ]
    return rows


def world_uri(parameters: WorldParameters) -> str:
    """Return the event log of a world, written the first time."""
    kind = "" if parameters.pin_lifetime_days is None else "-fading"
    uri = storage.to_uri(HOME / f"world{kind}-{parameters.seed}")
    ingest(WorldAdapter(parameters), uri)
    return uri


def by_seed(sample: Sample) -> list[tuple[BaselineFacts, ...]]:
    """Return what is found of all baselines with each seed."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        return [against_baselines(sample, seed, Path(folder)) for seed in SEEDS]


def against_baselines(sample: Sample, seed: int, workspace: Path) -> tuple[BaselineFacts, ...]:
    """Train with one seed, and return the facts of every baseline, the best first."""
    training = sample.config.training.model_copy(update={"seed": seed})
    config = sample.config.model_copy(update={"training": training})
    snapshot = write_snapshot(make_run(config, sample.as_of, workspace, sample.log_uri))
    folder = storage.local_path(snapshot.uri)
    scores = train_and_score(snapshot, config)
    rows = load_rows(snapshot, folder, SPLIT_HOLDOUT)
    training_rows = load_rows(snapshot, folder, SPLIT_TRAINING)
    facts = measure_baselines(rows, training_rows, scores.ranking_score, config).facts
    for each in facts:
        level, change = each.level.value, each.change
        sys.stderr.write(
            f"  {sample.name}, seed {seed}, {each.name}: {level:.4f}, the model "
            f"{change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%})\n"
        )
    return facts


def row_of(name: str, peer: str, sample: Sample, by_seed: list[tuple[BaselineFacts, ...]]) -> Row:
    """Return how the model stands to one baseline: the ratio of the target metric."""
    facts = [next(each for each in found if each.name == peer) for found in by_seed]
    level = facts[0].level.value
    ratio = 1 + float(np.mean([each.change.value for each in facts]))
    changes = [f"{100 * each.change.low:+.1f} to {100 * each.change.high:+.1f} %" for each in facts]
    return row(
        name,
        level * ratio,
        f"{sample.config.model_gate.target_metric} of the model",
        ratio=ratio,
        peer=f"{peer}, {level:.3f}",
        spread=f"95 % of the seeds: {' and '.join(changes)}",
        rows=len(SEEDS),
        seed=", ".join(map(str, SEEDS)),
    )
