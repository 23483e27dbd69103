"""Body of `train_challenger`: train in its own process, log the bundle, register it.

Training itself is `training.launch`; this connects it with the workspace and the registry.
"""

import tempfile
from pathlib import Path

from pipelines import registry, storage, tracking
from pipelines.contracts.artifacts import Challenger, ResolvedRun, Snapshot
from pipelines.stages.runner import StageContext


def train_challenger(context: StageContext) -> Challenger:
    """Train on the snapshot and register the result as version with alias `challenger`.

    The work folder with its checkpoints outlives the attempt: a retry resumes there.

    Raises:
        TrainingDivergedError: non-finite loss.
        TrackingUnavailableError: MLflow cannot be reached; what was trained is kept.
    """
    from training.spec import TrainingSpec

    from training import launch, live_metrics, mlflow_model

    run = context.run
    snapshot = context.artifact("build_snapshot", Snapshot)
    client = tracking.connect(run.tracking_uri)
    name = f"{run.as_of:%Y-%m-%d} challenger"
    mlflow_run_id = tracking.open_run(client, run, "challenger", name)
    with tracking.translated_errors(run.tracking_uri):
        config = run.config.model_dump(mode="json")
        tracking.log_params(client, mlflow_run_id, tracking.flatten(config))
    work_dir = _work_dir(run)
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        spec = TrainingSpec(
            snapshot=snapshot,
            snapshot_dir=str(snapshot_dir),
            work_dir=str(work_dir),
            config=run.config,
            num_devices=run.num_devices,
            accelerator=run.accelerator,
            tracking_uri=run.tracking_uri,
            mlflow_run_id=mlflow_run_id,
            code_version=run.code_version,
        )
        result = launch.train(spec)
    bundle_dir = Path(result.bundle_dir)
    bundle_digest = storage.digest_of_files(storage.digest_files(bundle_dir))
    with tracking.translated_errors(run.tracking_uri):
        live_metrics.replay(Path(result.metrics_path), run.tracking_uri, mlflow_run_id)
        model_uri = mlflow_model.log_bundle(bundle_dir, mlflow_run_id, run.tracking_uri)
        client.log_artifact(mlflow_run_id, result.learning_curve_path, "training")
    lineage = {
        "bundle_digest": bundle_digest,
        "snapshot_digest": snapshot.digest,
        "recipe": run.config.recipe,
        "homefeed_run_id": run.run_id,
    }
    model = registry.register(client, run, mlflow_run_id, model_uri, lineage)
    _publish_bundle(bundle_dir, context)
    return Challenger(
        model=model,
        bundle_uri=storage.join(context.output_uri, "bundle"),
        num_steps=result.num_steps,
        num_training_examples=result.num_training_examples,
        final_training_loss=result.final_training_loss,
        seed=run.config.training.seed,
    )


def _work_dir(run: ResolvedRun) -> Path:
    """Return where checkpoints are kept between attempts of the same run."""
    if storage.is_local(run.run_uri):
        folder = storage.local_path(run.run_uri) / "train_challenger" / "work"
    else:
        folder = Path(tempfile.gettempdir()) / f"homefeed-work-{run.run_id}"
    with storage.translated_errors(str(folder), "making"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish_bundle(bundle_dir: Path, context: StageContext) -> None:
    """Publish a copy: the work folder keeps its own, for a retry after this point."""
    import shutil

    with storage.scratch_folder(context.run.workspace_uri) as scratch:
        copied = scratch / "bundle"
        shutil.copytree(bundle_dir, copied)
        storage.publish_folder(copied, storage.join(context.output_uri, "bundle"))
