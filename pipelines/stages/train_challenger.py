"""Body of `train_challenger`: train in its own process, log the bundle, register it.

Training itself is `training.launch.launcher`; this connects it with the workspace and the registry.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, ModelRef, ResolvedRun, Snapshot
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.mlflow_errors import translated_errors
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry import registry, tracking
from pipelines.stages.runner import StageContext

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from training.fitting.spec import TrainingResult


def train_challenger(context: StageContext) -> Challenger:
    """Train on the snapshot and register the result as version with alias `challenger`.

    The work folder with its checkpoints outlives the attempt: a retry resumes there.

    Raises:
        TrainingDivergedError: non-finite loss.
        TrackingUnavailableError: MLflow cannot be reached; what was trained is kept.
    """
    run = context.run
    snapshot = context.artifact("build_snapshot", Snapshot)
    client = tracking.connect(run.tracking_uri)
    mlflow_run_id = _open_run(client, run)
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir)
        result = _train(run, snapshot, snapshot_dir, mlflow_run_id)
    model = _register(client, run, snapshot, result, mlflow_run_id)
    _publish_bundle(Path(result.bundle_dir), context)
    return Challenger(
        model=model,
        bundle_uri=storage.join(context.output_uri, "bundle"),
        num_steps=result.num_steps,
        num_training_examples=result.num_training_examples,
        final_training_loss=result.final_training_loss,
        seed=run.config.training.seed,
    )


def _open_run(client: "MlflowClient", run: ResolvedRun) -> str:
    mlflow_run_id = tracking.open_run(client, run, "challenger", f"{run.as_of:%Y-%m-%d} challenger")
    with translated_errors(run.tracking_uri):
        config = run.config.model_dump(mode="json")
        tracking.log_params(client, mlflow_run_id, tracking.flatten(config))
    return mlflow_run_id


def _train(
    run: ResolvedRun, snapshot: Snapshot, snapshot_dir: Path, mlflow_run_id: str
) -> "TrainingResult":
    from training.fitting.spec import Lineage, TrainingSpec
    from training.launch import launcher

    lineage = Lineage(
        as_of=run.as_of,
        snapshot_digest=snapshot.digest,
        code_version=run.code_version,
        seed=run.config.training.seed,
    )
    spec = TrainingSpec(
        snapshot=snapshot,
        snapshot_dir=str(snapshot_dir),
        work_dir=str(_work_dir(run)),
        config=run.config,
        num_devices=run.num_devices,
        accelerator=run.accelerator,
        tracking_uri=run.tracking_uri,
        mlflow_run_id=mlflow_run_id,
        lineage=lineage,
    )
    return launcher.train(spec)


def _register(
    client: "MlflowClient",
    run: ResolvedRun,
    snapshot: Snapshot,
    result: "TrainingResult",
    mlflow_run_id: str,
) -> ModelRef:
    """Log curves and bundle to the run and register the bundle; a retry repeats none of it."""
    from training.bundle import mlflow_model
    from training.fitting import live_metrics

    bundle_dir = Path(result.bundle_dir)
    tags = {
        "bundle_digest": digest_of_files(digest_files(bundle_dir)),
        "snapshot_digest": snapshot.digest,
        "recipe": run.config.recipe,
        "homefeed_run_id": run.run_id,
    }
    with translated_errors(run.tracking_uri):
        live_metrics.replay(Path(result.metrics_path), run.tracking_uri, mlflow_run_id)
        model_uri = mlflow_model.log_bundle(bundle_dir, mlflow_run_id, run.tracking_uri)
        client.log_artifact(mlflow_run_id, result.learning_curve_path, "training")
    return registry.register(client, run, mlflow_run_id, model_uri, tags)


def _work_dir(run: ResolvedRun) -> Path:
    """Return where checkpoints are kept between attempts of the same run."""
    if storage.is_local(run.run_uri):
        folder = storage.local_path(run.run_uri) / "train_challenger" / "training"
    else:
        folder = Path(tempfile.gettempdir()) / f"homefeed-work-{run.run_id}"
    with storage.translated_errors(str(folder), "making"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish_bundle(bundle_dir: Path, context: StageContext) -> None:
    """Publish a copy: the work folder keeps its own, for a retry after this point."""
    with storage.scratch_folder(context.run.workspace_uri) as scratch:
        copied = scratch / "bundle"
        shutil.copytree(bundle_dir, copied)
        storage.publish_folder(copied, storage.join(context.output_uri, "bundle"))
