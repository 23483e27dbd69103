"""Trainings that differ in their seed alone: how much models of a recipe differ by luck.

Tested in tests/pipelines/cli/test_anchor.py.
"""

from pathlib import Path

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry.evidence import SeedNoise, keep, noise_folder
from pipelines.stages.runner import read_artifact
from pipelines.stages.train import train_apart


def measure_seeds(run_uri: str, num_seeds: int) -> SeedNoise:
    """Train the recipe of a run on its snapshot, once for each seed, and score the holdout.

    Trainings that ended are found again if this is killed and repeated. A change of recipe is told
    from the luck of its seed only if that luck is known.

    Args:
        run_uri: A run whose snapshot is built.
        num_seeds: How many; the run's own seed is the first, the next ones follow it.

    Raises:
        ConfigurationError: the run has no snapshot, the workspace is remote, or the target metric
            is zero in all trainings.
        HomefeedError: as training raises.
    """
    from training.bundle.score_split import score_split
    from training.data.reader import load_rows
    from validation.model_gate.comparison import Holdout, level_of

    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    snapshot = read_artifact(run_uri, "build_snapshot", Snapshot)
    folder = storage.local_path(noise_folder(run.workspace_uri)) / run.config.recipe_digest
    first, gate = run.config.training.seed, run.config.model_gate
    seeds, values = tuple(range(first, first + num_seeds)), list[float]()
    hardware = run.accelerator, run.num_devices * run.num_nodes
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        rows = load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
        holdout = Holdout(rows, run.config.features.heads, gate)
        for seed in seeds:
            options = run.config.training.model_copy(update={"seed": seed})
            config = run.config.model_copy(update={"training": options})
            made = train_apart(snapshot, config, folder / f"seed-{seed}", *hardware)
            scores = score_split(Path(made.bundle_dir), snapshot, snapshot_dir, SPLIT_HOLDOUT)
            values.append(level_of(holdout, scores))
    if not sum(values) > 0:
        raise ConfigurationError(
            f"{gate.target_metric} of the {num_seeds} trainings is {values}; expected numbers "
            f"above zero; measure on a run whose holdout has the action"
        )
    measured = SeedNoise(
        recipe=run.config.reference,
        recipe_digest=run.config.recipe_digest,
        snapshot_digest=snapshot.digest,
        code_digest=code_digest(),
        target_metric=gate.target_metric,
        seeds=seeds,
        values=tuple(values),
    )
    keep(run.workspace_uri, measured)
    deletion.remove(storage.to_uri(folder))
    return measured
