"""One process's part of a training: fit, and on the first process calibrate and write the bundle.

Not for starting processes (`training.launch.launcher`) nor for what a step is
(`training.fitting.lightning_module`).
"""

import logging
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.contracts.files import digest_files, digest_of_files, write_whole
from pipelines.contracts.schemas import SPLIT_TRAINING, label_column
from pipelines.contracts.snapshot_files import embedding_dim_of
from pipelines.contracts.time import DAY_MS
from training.bundle.calibration import Calibrator, drift_shift, fit_calibrator
from training.bundle.files import BundleConfig, Predictor, load_bundle, write_bundle
from training.bundle.score_split import logits_of
from training.data.data_module import HomefeedDataModule
from training.data.input_checks import require_meaning
from training.environment import require_devices
from training.fitting.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    newest_intact,
    require_same_start,
)
from training.fitting.learning_curve import LearningCurve
from training.fitting.lightning_module import RankerModule
from training.fitting.live_metrics import MetricLog
from training.fitting.metrics_file import LOSS, read_metrics
from training.fitting.spec import TrainingResult, TrainingSpec, WorkFolder
from training.model.ranker import Ranker

log = logging.getLogger(__name__)
_GOLDEN_REQUESTS, _GOLDEN_CANDIDATES = 8, 4
_CALIBRATION_BATCH = 2048


def run_process(spec: TrainingSpec, folder: WorkFolder, rank: int) -> None:
    """Train in this process; the first one publishes the result.

    Args:
        spec: the training.
        folder: its folder, the same on every node.
        rank: this process among those of all nodes; 0 is the first.

    Raises:
        ConfigurationError: a GPU was asked for and cannot be had.
        DataContractError: the loss became NaN or infinite, or the snapshot cannot be trained on.
    """
    require_devices(spec.num_devices, spec.accelerator)
    data = HomefeedDataModule(spec.snapshot, Path(spec.snapshot_dir), spec.config)
    num_steps = len(data) * spec.config.training.num_epochs
    embedding_dim = embedding_dim_of(Path(spec.snapshot_dir))
    module = RankerModule(spec.config, data.statistics(), embedding_dim, num_steps)
    if spec.starts_from:
        _begin_with(Path(spec.starts_from), spec.snapshot, module.ranker)
    checkpoint = newest_intact(folder.checkpoints)
    if checkpoint is not None and checkpoint.step >= num_steps:
        module.load_state_dict(torch.load(checkpoint.path, weights_only=True)["state_dict"])
    else:
        _fit(spec, folder, data, module, checkpoint)
    if rank > 0:
        return
    ranker = module.ranker.cpu().float()  # a bundle is float32, whatever it was trained in
    config = _calibrated(spec, data, ranker)
    golden = data.golden_batch(_GOLDEN_REQUESTS, _GOLDEN_CANDIDATES)
    write_bundle(folder.bundle, ranker, config, golden)
    losses = [value.value for value in read_metrics(folder.metrics) if value.name == LOSS]
    last = losses[-max(1, len(losses) // 10) :]
    result = TrainingResult(
        spec_identity=spec.identity(),
        bundle_dir=str(folder.bundle),
        bundle_digest=digest_of_files(digest_files(folder.bundle)),
        num_steps=num_steps,
        num_training_examples=int(data.training_index.num_examples_M.sum()),
        final_training_loss=sum(last) / len(last) if last else None,
        resumed_from_step=min(checkpoint.step, num_steps) if checkpoint is not None else 0,
        metrics_path=str(folder.metrics),
    )
    write_whole(folder.result, result.to_record())  # last
    log.info("trained %d steps; bundle in %s", num_steps, folder.bundle)


def _begin_with(bundle_dir: Path, snapshot: Snapshot, ranker: Ranker) -> None:
    """Give the model the weights and scales of a bundle.

    Raises:
        DataContractError: the bundle is damaged, understands other data than the snapshot's, or has
            tables or matrices of other shapes than the recipe's model.
    """
    start, whose = load_bundle(bundle_dir), f"the model of bundle {bundle_dir}"
    versions = start.config.embedding_version, snapshot.embedding_version
    require_meaning(snapshot, start.config.features, whose, {"embedding version": versions})
    try:
        ranker.load_state_dict(start.ranker.state_dict())
    except RuntimeError as error:  # It names all that differ.
        raise DataContractError(
            f"{whose} has other shapes than the recipe's: {error}; expected the same, because the "
            f"training begins with its weights; choose a bundle of this recipe, or none"
        ) from error


def _fit(
    spec: TrainingSpec,
    folder: WorkFolder,
    data: HomefeedDataModule,
    module: RankerModule,
    checkpoint: Checkpoint | None,
) -> None:
    training = spec.config.training
    folder.checkpoints.mkdir(exist_ok=True)
    trainer = pl.Trainer(
        accelerator=spec.accelerator,
        devices=spec.num_devices,
        num_nodes=spec.num_nodes,
        strategy=(
            # The gradients are views of the buffers that are sent, which saves a copy of them.
            DDPStrategy(gradient_as_bucket_view=True)
            if spec.num_devices * spec.num_nodes > 1
            else "auto"
        ),
        precision=training.precision,
        max_epochs=training.num_epochs,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[
            pl.callbacks.LambdaCallback(on_train_start=require_same_start),
            MetricLog(folder.metrics, spec.tracking_uri, spec.mlflow_run_id),
            # Of a training that no run tells, nobody looks at the curve.
            *([LearningCurve(folder.metrics, data, _config(spec))] if spec.mlflow_run_id else []),
            CheckpointWriter(folder.checkpoints, training.checkpoint_every_steps),
        ],
    )
    if checkpoint is not None:
        log.info("resuming from step %d of %d", checkpoint.step, module.num_steps)
    ckpt_path = str(checkpoint.path) if checkpoint is not None else None
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    if trainer.global_step != module.num_steps:
        raise TransientStorageError(
            f"training ended at step {trainer.global_step}, expected {module.num_steps}: it was "
            f"interrupted; retry to continue from the last checkpoint"
        )


def _config(spec: TrainingSpec) -> BundleConfig:
    """Return the bundle's configuration with calibrators that change nothing."""
    heads = spec.config.features.head_names
    return BundleConfig(
        features=spec.config.features,
        model=spec.config.model,
        embedding_version=spec.snapshot.embedding_version,
        embedding_dim=embedding_dim_of(Path(spec.snapshot_dir)),
        negative_keep_fraction=spec.config.training.negative_keep_fraction,
        calibrators=tuple(Calibrator(head=head, scale=1.0, shift=0.0) for head in heads),
        training=spec.snapshot.training,
        snapshot=spec.config.snapshot,
        recipe=spec.config.recipe_ref,
        **dict(spec.lineage),
    )


def _calibrated(spec: TrainingSpec, data: HomefeedDataModule, ranker: Ranker) -> BundleConfig:
    """Return the bundle's configuration with calibrators fitted on the users left out."""
    heads, config = spec.config.features.head_names, _config(spec)
    predictor = Predictor(ranker, config)
    logits_CH = logits_of(predictor, data.reader, data.calibration_index, _CALIBRATION_BATCH)
    labels_CH = data.reader.labels(data.calibration_index)
    # how far each head's rate moved through the training window, in log-odds
    reader, index = data.reader, data.reader.index(SPLIT_TRAINING)
    days = reader.request_column(index, "impressed_at") // DAY_MS
    _, day = np.unique(np.repeat(days, index.num_examples_M), return_inverse=True)
    fitted = []
    for h, head in enumerate(heads):
        positives_D = np.bincount(day, weights=reader.example_column(index, label_column(head)))
        drift = drift_shift(positives_D, np.bincount(day))
        calibrator = fit_calibrator(head, logits_CH[:, h], labels_CH[:, h])
        fitted.append(calibrator.model_copy(update={"drift": drift}))
    return config.model_copy(update={"calibrators": tuple(fitted)})
