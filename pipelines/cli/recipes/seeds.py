"""`homefeed anchor seeds`: train a recipe with several seeds, and keep how much the models differ.

A change of recipe is told from the luck of its seed only if that luck is known. Tested in
tests/pipelines/cli/recipes/test_anchor.py.
"""

from pathlib import Path

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry.seed_noise import SeedNoise, keep, noise_folder
from pipelines.stages.runner import read_artifact


def measure_seeds(run_uri: str, num_seeds: int) -> SeedNoise:
    """Train the recipe of a run on its snapshot, once for each seed, and score the holdout.

    Trainings that ended are found again if this is killed and repeated.

    Args:
        run_uri: A run whose snapshot is built.
        num_seeds: How many; the run's own seed is the first, the next ones follow it.

    Raises:
        ConfigurationError: the run has no snapshot, the workspace is remote, or the target metric
            is zero in all trainings.
        HomefeedError: as training raises.
    """
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    snapshot = read_artifact(run_uri, "build_snapshot", Snapshot)
    folder = storage.local_path(noise_folder(run.workspace_uri)) / run.config.recipe_digest
    first = run.config.training.seed
    seeds = tuple(range(first, first + num_seeds))
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        values = [_value_of(run, snapshot, snapshot_dir, folder, seed) for seed in seeds]
    if not sum(values) > 0:
        raise ConfigurationError(
            f"{run.config.model_gate.target_metric} of the {num_seeds} trainings is {values}; "
            f"expected numbers above zero; measure on a run whose holdout has the action"
        )
    measured = SeedNoise(
        recipe=run.config.reference,
        recipe_digest=run.config.recipe_digest,
        snapshot_digest=snapshot.digest,
        code_digest=code_digest(),
        target_metric=run.config.model_gate.target_metric,
        seeds=seeds,
        values=tuple(values),
    )
    keep(run.workspace_uri, measured)
    deletion.remove(storage.to_uri(folder))
    return measured


def _value_of(
    run: ResolvedRun, snapshot: Snapshot, snapshot_dir: Path, folder: Path, seed: int
) -> float:
    """Return the target metric of one training on the holdout."""
    from training.bundle.score_split import score_split
    from training.data.example_rows import load_rows
    from training.fitting.spec import Lineage, TrainingSpec
    from training.launch import launcher
    from validation.model_gate.comparison import level_of
    from validation.model_gate.target_metric import target_metric

    options = run.config.training.model_copy(update={"seed": seed})
    work_dir = folder / f"seed-{seed}"
    work_dir.mkdir(parents=True, exist_ok=True)
    result = launcher.train(
        TrainingSpec(
            snapshot=snapshot,
            config=run.config.model_copy(update={"training": options}),
            lineage=Lineage(
                as_of=run.as_of,
                snapshot_digest=snapshot.digest,
                code_version=code_version(),
                code_digest=code_digest(),
                seed=seed,
            ),
            snapshot_dir=str(snapshot_dir),
            work_dir=str(work_dir),
            num_devices=run.num_devices * run.num_nodes,
            accelerator=run.accelerator,
            tracking_uri="",
            mlflow_run_id="",
        )
    )
    rows = load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
    scores = score_split(Path(result.bundle_dir), snapshot, snapshot_dir, SPLIT_HOLDOUT)
    heads = run.config.features.heads
    return level_of(rows, scores, heads, target_metric(run.config.model_gate, heads))
