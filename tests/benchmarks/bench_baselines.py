"""Each sample's model against the simple ways to rank that the gate holds a first champion against.

The baselines and their columns are the gate's own (`validation.model_gate.baselines`), measured on
the same requests. One row per sample compares with the best of them, and one with each.
"""

import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from record import Row, row
from sample import AS_OF, HOME, event_log_uri, make_run, spec_of

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.judgement import BaselineFacts
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.recipes import completejourney, world
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import WorldAdapter
from pipelines.sources.world.parameters import FadingPins, WorldParameters
from training.bundle.score_split import score_split
from training.data.example_rows import load_rows
from training.launch import launcher
from validation.model_gate.baselines import make_baselines
from validation.model_gate.baselines import measure as measure_baselines

SEEDS = (17, 18)
FADING = FadingPins(lifetime_days=2)
WORLD_AS_OF = datetime(2024, 3, 1, tzinfo=UTC)  # midnight after the last of its days


@dataclass(frozen=True)
class Sample:
    """One log, its recipe and the day of the cycle."""

    name: str
    config: RunConfig
    as_of: datetime
    log_uri: str


def measure() -> list[Row]:
    """Train each sample's recipe on each seed, and hold it against every baseline."""
    samples = (
        Sample("completejourney", completejourney(), AS_OF, event_log_uri()),
        Sample("world", world(), WORLD_AS_OF, world_uri(WorldParameters())),
        Sample("world_fading", world(), WORLD_AS_OF, world_uri(WorldParameters(fading=FADING))),
    )
    return [made for sample in samples for made in _rows(sample)]


def world_uri(parameters: WorldParameters) -> str:
    """Return the event log of a world, written the first time."""
    kind = "" if parameters.fading is None else "-fading"
    uri = storage.to_uri(HOME / f"world{kind}-{parameters.seed}")
    ingest(WorldAdapter(parameters), uri)
    return uri


def _rows(sample: Sample) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        by_seed = [against_baselines(sample, seed, Path(folder)) for seed in SEEDS]
    names = [facts.name for facts in by_seed[0]]
    each = [_row(_slug(name), name, sample, by_seed) for name in names]
    return [_row("best_baseline", names[0], sample, by_seed), *each]


def against_baselines(sample: Sample, seed: int, workspace: Path) -> tuple[BaselineFacts, ...]:
    """Train with one seed, and return the facts of every baseline, the best first."""
    training = sample.config.training.model_copy(update={"seed": seed})
    config = sample.config.model_copy(update={"training": training})
    snapshot = write_snapshot(make_run(config, sample.as_of, workspace, sample.log_uri))
    folder = storage.local_path(snapshot.uri)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        result = launcher.train(spec_of(snapshot, config, work_dir))
        scores = score_split(Path(result.bundle_dir), snapshot, folder, SPLIT_HOLDOUT)
    rows = load_rows(snapshot, folder, SPLIT_HOLDOUT)
    made = make_baselines(rows, load_rows(snapshot, folder, SPLIT_TRAINING), config)
    facts = measure_baselines(rows, scores, made, config).facts
    for each in facts:
        level, change = each.level.value, each.change
        sys.stderr.write(
            f"  {sample.name}, seed {seed}, {each.name}: {level:.4f}, the model "
            f"{change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%})\n"
        )
    return facts


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def _row(slug: str, name: str, sample: Sample, by_seed: list[tuple[BaselineFacts, ...]]) -> Row:
    """Return how the model stands to one baseline: the ratio of the target metric."""
    facts = [next(each for each in found if each.name == name) for found in by_seed]
    level = facts[0].level.value
    ratio = 1 + float(np.mean([each.change.value for each in facts]))
    changes = [f"{100 * each.change.low:+.1f} to {100 * each.change.high:+.1f} %" for each in facts]
    return row(
        f"quality_vs_{slug}_{sample.name}",
        level * ratio,
        f"{sample.config.model_gate.target_metric} of the model",
        ratio=ratio,
        peer=f"{name}, {level:.3f}",
        spread=f"95 % paired intervals of the seeds: {' and '.join(changes)}",
        rows=len(SEEDS),
        seed=", ".join(map(str, SEEDS)),
    )
