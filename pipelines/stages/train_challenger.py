"""`train_challenger`: train in a process of its own, log the bundle, register it, publish it.

    <run>/train_challenger/training/    work folder with checkpoints, kept between attempts
    <output_uri>/bundle/                the bundle (see training/bundle/files.py)

Training itself is `training.launch.launcher`.
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines import storage
from pipelines.alerts.commands import rebuild_command, stage_command
from pipelines.contracts.artifacts import Challenger, DataReport, ModelRef, ResolvedRun, Snapshot
from pipelines.contracts.code_identity import code_digest, code_version
from pipelines.contracts.errors import DataGateFailedError
from pipelines.contracts.files import digest_files, temporary_files_in
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.snapshot_files import verify_files
from pipelines.registry import registry, tracking
from pipelines.stages.nodes import work_dir_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from training.fitting.spec import NodeAddress, TrainingResult, TrainingSpec

log = logging.getLogger(__name__)
WORK_WAIT_S = 600.0
"""How long an attempt waits for another one in the same work folder, which may be local where the
run's is not, in seconds."""


def train_challenger(
    run: ResolvedRun,
    snapshot: Snapshot,
    report: DataReport,
    output_uri: str,
    node: "NodeAddress | None" = None,
) -> Challenger:
    """Train on the snapshot and register the result as the version with alias `challenger`.

    The work folder outlives the attempt: a retry resumes there. On several machines this is what
    machine 0 does (`node`); for the others see `pipelines.stages.nodes`.

    Raises:
        DataGateFailedError: the report does not accept this snapshot.
        DataContractError: the loss became NaN or infinite.
        TrackingUnavailableError: MLflow cannot be reached; what was trained is kept.
    """
    require_accepted(report, snapshot, run.run_uri)
    repair = f"run `{rebuild_command(run.run_uri)}`"
    return train_side(run, snapshot, "challenger", output_uri, repair, node, report)


def train_side(
    run: ResolvedRun,
    snapshot: Snapshot,
    side: Literal["challenger", "anchor"],
    output_uri: str,
    repair: str,
    node: "NodeAddress | None" = None,
    report: DataReport | None = None,
) -> Challenger:
    """Train one side of a cycle and register the result as the version with the side's alias.

    Args:
        run: The cycle, with the side's configuration.
        snapshot: What it is trained on.
        side: Which side; the MLflow run, the alias and the work folder have its name.
        output_uri: Where the bundle is published.
        repair: What a person does about a damaged snapshot.
        node: Machine 0 of several; None for the only one.
        report: What the data gate found, for the MLflow run; None where it is another run's.

    Raises:
        DataContractError: the loss became NaN or infinite.
        TrackingUnavailableError: MLflow cannot be reached; what was trained is kept.
    """
    from training.launch import launcher

    client = tracking.connect(run.tracking_uri)
    mlflow_run_id = tracking.open_run(client, run, side, side)
    with translated_outages(run.tracking_uri):
        tracking.log_config(client, mlflow_run_id, run.config)
        # The run may have been opened by an attempt with other code.
        client.set_tag(mlflow_run_id, "code_digest", code_digest())
        client.set_tag(mlflow_run_id, "code_version", code_version())
    tracking.log_dataset(client, mlflow_run_id, snapshot, "training")
    if report is not None:
        tracking.log_gate(client, run, mlflow_run_id, report)
    with storage.local_copy(snapshot.uri) as snapshot_dir:
        verify_files(snapshot, snapshot_dir, repair)
        spec = _specify(run, snapshot, snapshot_dir, side, mlflow_run_id)
        with storage.exclusive_lock(spec.work_dir, f"train_{side} of {run.run_uri}", WORK_WAIT_S):
            result = launcher.train(spec, node)
    bundle_uri = storage.join(output_uri, "bundle")
    # MLflow makes temporary files too, and a process that is killed removes none.
    with storage.scratch_folder(run.workspace_uri) as scratch, temporary_files_in(scratch):
        model = _register(client, run, snapshot, side, mlflow_run_id, result)
        # A copy is published, so that a retry after this point finds the bundle in the work folder.
        copied = shutil.copytree(result.bundle_dir, scratch / "bundle")
        again = stage_command(f"train_{side}", run.run_uri)
        registry.require_bundle(model, copied, f"run `{again}`: the bundle is written anew")
        bundle_files = digest_files(copied)
        storage.publish_folder(copied, bundle_uri)
    return Challenger(
        model=model,
        bundle_uri=bundle_uri,
        bundle_files=bundle_files,
        num_steps=result.num_steps,
        num_training_examples=result.num_training_examples,
        final_training_loss=result.final_training_loss,
        seed=run.config.training.seed,
    )


def _specify(
    run: ResolvedRun, snapshot: Snapshot, snapshot_dir: Path, side: str, mlflow_run_id: str
) -> "TrainingSpec":
    """Return the specification of the training.

    Its lineage names the code that runs now, which may differ from the code that resolved the run.
    """
    from training.fitting.spec import Lineage, TrainingSpec

    if run.code_digest not in ("", code_digest()):
        log.warning(
            "the run was resolved by code %s and is trained by code %s; the training starts anew, "
            "and what the other code had trained is not used",
            *(run.code_digest[:12], code_digest()[:12]),
        )
    return TrainingSpec(
        snapshot=snapshot,
        snapshot_dir=str(snapshot_dir),
        work_dir=str(work_dir_of(run, side)),
        config=run.config,
        num_devices=run.num_devices,
        num_nodes=run.num_nodes,
        accelerator=run.accelerator,
        tracking_uri=run.tracking_uri,
        mlflow_run_id=mlflow_run_id,
        lineage=Lineage(
            as_of=run.as_of,
            snapshot_digest=snapshot.digest,
            code_version=code_version(),
            code_digest=code_digest(),
            seed=run.config.training.seed,
        ),
    )


def _register(
    client: "MlflowClient",
    run: ResolvedRun,
    snapshot: Snapshot,
    side: str,
    mlflow_run_id: str,
    result: "TrainingResult",
) -> ModelRef:
    """Log curves and bundle to the MLflow run and register the bundle; a retry repeats nothing.

    It is registered under the digest that the training noted, whatever lies there by now.
    """
    from training.bundle import mlflow_model
    from training.fitting import live_metrics

    with translated_outages(run.tracking_uri):
        live_metrics.replay(client, Path(result.metrics_path), mlflow_run_id)
        logged = mlflow_model.log_bundle(client, Path(result.bundle_dir), mlflow_run_id)
    tags = {
        "bundle_digest": result.bundle_digest,
        "model_digest": logged.digest,
        "snapshot_digest": snapshot.digest,
        "code_digest": code_digest(),
        "code_version": code_version(),
        **tracking.recipe_tags(run.config),
        "homefeed_run_id": run.run_id,
        "homefeed_side": side,
    }
    return registry.register(client, run, mlflow_run_id, logged.uri, tags, alias=side)


def require_accepted(report: DataReport, snapshot: Snapshot, run_uri: str) -> None:
    """Refuse to train on a snapshot that the data gate has not accepted.

    Raises:
        DataGateFailedError: the report refuses the snapshot, or is about another one.
    """
    if report.snapshot_digest != snapshot.digest or not report.is_accepted:
        raise DataGateFailedError(
            f"the report of the data gate is about snapshot {report.snapshot_digest[:12]} and "
            f"{'accepts' if report.is_accepted else 'refuses'} it; expected one that accepts "
            f"{snapshot.digest[:12]}; run `{stage_command('check_snapshot', run_uri, again=True)}`"
        )
