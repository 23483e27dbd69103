"""The world with a known answer: how far each model gets from no sequence to the optimum.

    share = (model - no sequence) / (optimum - no sequence)

in repins in the top 3 of a holdout request, expected by the world's true chances at the positions
that the candidates had, so that no luck of the holdout's draws is in it. "No sequence" ranks by the
exact chance given the user's true taste, which is more than a model without a sequence is told; the
optimum is the exact filter of `pipelines.sources.world.draws`, which also sees what was shown
and not acted upon. The recipe was chosen on the world of another seed.
"""

import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_quality import WORLD_AS_OF, world_uri
from record import Row, row
from sample import make_run, spec_of
from timed import run_all

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import to_ms
from pipelines.recipes import world
from pipelines.snapshot.build import write_snapshot
from pipelines.sources.world.parameters import WorldParameters
from support.small_world import log_views
from training.bundle.score_split import score_split
from training.data.example_rows import ExampleRows, load_rows
from training.launch import launcher
from validation.model_gate.ranking_metrics import top_k_hits

PARAMETERS = WorldParameters()
SEEDS, RESAMPLES = (17, 18), 1000
VARIANTS = {
    "model": {},
    "without_sequence": {"use_sequence_encoder": False},
    "without_action_ages": {"use_action_ages": False},
    "with_two_layers": {"num_layers": 2, "feedforward_dim": 32},  # as published
}
RULES = ("optimum", "no_sequence", "popularity", "random")


@dataclass(frozen=True)
class Holdout:
    """The holdout's requests and the truth of each example."""

    rows: ExampleRows
    expected: np.ndarray  # (N,) chance of a repin where it was shown
    scores: dict[str, np.ndarray]  # rule -> (N,)

    def volume(self, score: np.ndarray) -> np.ndarray:
        """Return (M,) expected repins in each request's top 3."""
        return top_k_hits(self.rows, score, self.expected)


def measure() -> list[Row]:
    """Train each variant on each seed, and place it between no sequence and the optimum."""
    log_uri = world_uri(PARAMETERS)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        run = make_run(studied(), WORLD_AS_OF, Path(folder), log_uri)
        snapshot = write_snapshot(run)
        holdout = read_holdout(snapshot, log_uri)
        rules = {name: holdout.volume(score) for name, score in holdout.scores.items()}
        rows = [_rule_row(name, volume, holdout) for name, volume in rules.items()]
        trained = _train_all(snapshot, log_uri)
        return [*rows, *(_row(name, runs, rules, holdout) for name, runs in trained.items())]


def _train_all(snapshot: Snapshot, log_uri: str) -> dict[str, list[tuple[np.ndarray, float]]]:
    """Train every variant on every seed, each on a processor of its own."""
    jobs = [
        (snapshot, log_uri, name, seed, changes)
        for name, changes in VARIANTS.items()
        for seed in SEEDS
    ]
    runs = run_all(train, jobs)
    return {
        name: [run for job, run in zip(jobs, runs, strict=True) if job[2] == name]
        for name in VARIANTS
    }


def studied() -> RunConfig:
    """Return the world's recipe with twice its days of training, and popularity as its one number.

    The parts of the model were studied in this setting, and rows of different dates are comparable.
    """
    base = world()
    numeric = (NumericFeature(name="pin_popularity"),)
    return base.model_copy(
        update={
            "features": base.features.model_copy(update={"numeric": numeric}),
            "snapshot": base.snapshot.model_copy(update={"training_days": 42}),
        }
    )


def variant(seed: int, changes: dict[str, object]) -> RunConfig:
    """Return the studied recipe with another model and seed."""
    base = studied()
    model = base.model.model_copy(update=changes)
    training = base.training.model_copy(update={"seed": seed})
    return base.model_copy(update={"model": model, "training": training})


def read_holdout(snapshot: Snapshot, log_uri: str) -> Holdout:
    """Look up the truth of every example of the holdout."""
    folder = storage.local_path(snapshot.uri)
    rows = load_rows(snapshot, folder, SPLIT_HOLDOUT)
    pin_id = np.asarray(open_table(folder, "pins.arrow")["pin_id"])[rows.pin_row]
    window = [to_ms(each) for each in (snapshot.holdout.start, snapshot.holdout.end)]
    with log_views(storage.local_path(log_uri)) as sql:
        query = "FROM truth WHERE impressed_at >= ? AND impressed_at < ?"
        truth = sql.execute(query, window).to_arrow_table()
    place = _find(
        _keys(np.asarray(truth["request_id"]), np.asarray(truth["pin_id"])),
        _keys(rows.request_id[rows.request_index], pin_id),
    )
    names = ("filtered", "no_sequence", "expected_repins")
    found = {name: np.asarray(truth[name], dtype=np.float64)[place] for name in names}
    scores = {
        "optimum": found["filtered"],
        "no_sequence": found["no_sequence"],
        "popularity": rows.numeric["pin_popularity"].astype(np.float64),
        "random": np.zeros(len(pin_id)),
    }
    return Holdout(rows, found["expected_repins"], scores)


def train(
    snapshot: Snapshot, log_uri: str, name: str, seed: int, changes: dict[str, object]
) -> tuple[np.ndarray, float]:
    """Return the expected repins of each request's top 3, and the CPU minutes of the training."""
    config = variant(seed, changes)
    holdout = read_holdout(snapshot, log_uri)
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        before = _children_cpu_min()
        result = launcher.train(spec_of(snapshot, config, work_dir))
        cpu_min = _children_cpu_min() - before
        folder = storage.local_path(snapshot.uri)
        bundle_dir = Path(result.bundle_dir)
        scores = score_split(bundle_dir, snapshot, folder, SPLIT_HOLDOUT)
    volume = holdout.volume(scores.ranking_score)
    sys.stderr.write(f"  {name}, seed {seed}: {volume.mean():.4f}, {cpu_min:.1f} CPU-minutes\n")
    return volume, cpu_min


def _children_cpu_min() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def _keys(request_id: np.ndarray, pin_id: np.ndarray) -> np.ndarray:
    """Return one number per (request, pin); a world's request ids are "w" and digits."""
    number = np.array([int(text[1:]) for text in request_id], dtype=np.int64)
    return number * PARAMETERS.num_pins + pin_id


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each wanted key stands.

    Raises:
        LookupError: a key is not there.
    """
    order = np.argsort(keys)
    place = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
    if not (keys[place] == wanted).all():
        raise LookupError("an example of the holdout has no truth; was the world written anew?")
    return place


def resampled_means(hits: np.ndarray, user_id: np.ndarray) -> np.ndarray:
    """Return (RESAMPLES,) means over requests when users are drawn with replacement."""
    _, user = np.unique(user_id, return_inverse=True)
    total, count = np.bincount(user, hits), np.bincount(user)
    drawn = np.random.default_rng(5).multinomial(
        len(total), np.full(len(total), 1 / len(total)), size=RESAMPLES
    )
    return (drawn @ total) / (drawn @ count)


def _share(volume: np.ndarray, rules: dict[str, np.ndarray], user_id: np.ndarray) -> np.ndarray:
    """Return the share of the distance, in resamples of the users."""
    ours, low, high = (
        resampled_means(part, user_id) for part in (volume, rules["no_sequence"], rules["optimum"])
    )
    return (ours - low) / (high - low)


def _rule_row(name: str, volume: np.ndarray, holdout: Holdout) -> Row:
    low, high = np.percentile(resampled_means(volume, holdout.rows.user_id), [2.5, 97.5])
    return row(
        f"world_{name}",
        float(volume.mean()),
        "expected repins in top 3",
        spread=f"95 % interval {low:.3f} to {high:.3f}",
        rows=len(volume),
        seed=f"world {PARAMETERS.seed}",
    )


def _row(
    name: str,
    trained: list[tuple[np.ndarray, float]],
    rules: dict[str, np.ndarray],
    holdout: Holdout,
) -> Row:
    volume = np.mean([run for run, _ in trained], axis=0)
    means = {rule: float(rules[rule].mean()) for rule in RULES}
    shares = [
        (run.mean() - means["no_sequence"]) / (means["optimum"] - means["no_sequence"])
        for run, _ in trained
    ]
    low, high = np.percentile(_share(volume, rules, holdout.rows.user_id), [2.5, 97.5])
    return row(
        f"world_{name}",
        100 * float(np.mean(shares)),
        "% of the way from no sequence to the optimum",
        ratio=float(volume.mean()) / means["optimum"],
        peer=(
            f"optimum, {means['optimum']:.3f} expected repins in top 3 (no sequence "
            f"{means['no_sequence']:.3f}, this {volume.mean():.3f})"
        ),
        spread=(
            f"95 % paired interval {100 * low:.0f} to {100 * high:.0f} %; seeds "
            f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"
        ),
        rows=len(volume),
        seed=f"world {PARAMETERS.seed}, training {', '.join(map(str, SEEDS))}",
        note=f"{np.mean([minutes for _, minutes in trained]):.1f} CPU-minutes of training",
    )
