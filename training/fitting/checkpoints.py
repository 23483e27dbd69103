"""Checkpoints: written whole or not at all, the newest two kept, a corrupt one passed over.

On SIGTERM one is written before the process ends. Not for bundles: a checkpoint is for going on
with a training, never for serving.
"""

import logging
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch

from pipelines.contracts.base import sha256_of
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.files import temporary_files_in

log = logging.getLogger(__name__)
NUM_KEPT = 2


class Checkpoint(NamedTuple):
    """A checkpoint on disk."""

    step: int
    path: Path


def require_same_start(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse, before anything is changed, processes that go on from different steps.

    Raises:
        TransientStorageError: a node sees an older state of the folder than another one.
    """
    own = torch.tensor([trainer.global_step], device=module.device)
    steps = torch.as_tensor(trainer.strategy.all_gather(own)).flatten().tolist()
    if len(set(steps)) > 1:
        raise TransientStorageError(
            f"the processes found checkpoints of steps {steps}, by rank; expected the same: the "
            f"folder is not yet the same on every node; retry"
        )


class CheckpointWriter(pl.Callback):
    """Saves every so many steps, at the end of every epoch, and when told to stop.

    Every process takes part in a save; the first one writes. The file appears under its name only
    when it is complete, and the name has its sha256.
    """

    def __init__(self, folder: Path, every_steps: int) -> None:
        self._folder, self._every_steps = folder, every_steps
        self._is_told_to_stop = False

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Take SIGTERM over from the trainer, whose handler talks to the other processes.

        It would do so at whatever point of a step each of them has come to. Here it is noted, and
        all processes look at it together at the end of a step.
        """

        def note(*_: Any) -> None:
            self._is_told_to_stop = True

        signal.signal(signal.SIGTERM, note)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save within an epoch; its end is `on_train_epoch_end`'s.

        Raises:
            TransientStorageError: some process was told to stop; all have saved this step.
        """
        if trainer.global_step % int(trainer.num_training_batches):
            self._save_if(trainer, trainer.global_step % self._every_steps == 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save at the end of an epoch; a stop that came in its last step waits for this."""
        self._save_if(trainer, is_due=True)

    def _save_if(self, trainer: pl.Trainer, is_due: bool) -> None:
        is_told = trainer.strategy.reduce_boolean_decision(self._is_told_to_stop, all=False)
        if is_due or is_told:
            self._save(trainer)
        if is_told:
            raise TransientStorageError(
                f"training was told to stop and saved step {trainer.global_step} in "
                f"{self._folder}; retry to go on from there"
            )

    def _save(self, trainer: pl.Trainer) -> None:
        scratch = self._folder / ".writing"
        if trainer.is_global_zero:
            for left in self._folder.glob("tmp*"):
                left.unlink()  # of an attempt that was killed while it saved
        # The trainer writes a temporary file first, and gives it the name when it is complete.
        with temporary_files_in(self._folder):
            trainer.save_checkpoint(scratch, weights_only=False)  # the optimizer too
        if not trainer.is_global_zero:
            return
        name = f"step-{trainer.global_step:09d}-{sha256_of(scratch)}.ckpt"
        scratch.replace(self._folder / name)
        for old in _newest_first(self._folder)[NUM_KEPT:]:
            old.unlink()


def newest_intact(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose content is what was written, or None."""
    for path in _newest_first(folder):
        step, _, digest = path.stem.removeprefix("step-").partition("-")
        if sha256_of(path) == digest:
            return Checkpoint(int(step), path)
        log.warning("checkpoint %s is corrupt; falling back to the one before it", path.name)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*-*.ckpt"), reverse=True)
