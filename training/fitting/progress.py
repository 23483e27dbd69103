"""What a training says while it runs: progress lines, logged values, and the learning curve.

Lines every few seconds rather than a bar that redraws itself: the output goes into a log. Tested in
tests/training/launch/test_launcher.py and tests/training/fitting/test_live_metrics.py.
"""

import logging
import time
from pathlib import Path
from statistics import mean
from typing import Any

import pytorch_lightning as pl
import torch

from training.fitting.live_metrics import MetricLog, read_metrics

log = logging.getLogger(__name__)
LOSS = "training/loss"
_LINE_EVERY_S = 5.0
_NUM_LOGGED_STEPS = 200
_BAR_WIDTH = 24


class ProgressLogger(pl.Callback):
    """Logs values every so many steps, and a line with speed and time left every few seconds."""

    def __init__(self, metric_log: MetricLog, num_steps: int, num_epochs: int) -> None:
        self._metric_log = metric_log
        self._num_steps, self._num_epochs = num_steps, num_epochs
        self._every_steps = max(1, num_steps // _NUM_LOGGED_STEPS)
        self._started_at = self._line_at = 0.0
        self._first_step = 0
        self._num_candidates = 0
        self._loss = float("nan")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._first_step = trainer.global_step
        self._started_at = self._line_at = time.monotonic()
        if trainer.is_global_zero:
            self._metric_log.rewind(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log this step if it is one of those that are logged, on every process alike."""
        step = trainer.global_step
        self._num_candidates += int(batch.num_global_candidates)
        if step % self._every_steps and step != self._num_steps:
            return
        loss: torch.Tensor = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        self._loss = float(loss)
        if not trainer.is_global_zero:
            return
        values = {
            LOSS: self._loss,
            "training/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "training/gradient_norm": float(pl_module.gradient_norm),
            "training/candidates_per_s": self._num_candidates / self._elapsed_s(),
        }
        self._metric_log.add(step, trainer.current_epoch, values)
        is_last = step == self._num_steps
        if is_last or time.monotonic() - self._line_at >= _LINE_EVERY_S:
            self._line_at = time.monotonic()
            log.info("%s", self._line(step, trainer.current_epoch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send what is left."""
        if trainer.is_global_zero:
            self._metric_log.close()

    def _elapsed_s(self) -> float:
        return max(1e-6, time.monotonic() - self._started_at)

    def _line(self, step: int, epoch: int) -> str:
        filled = round(_BAR_WIDTH * step / self._num_steps)
        speed = self._num_candidates / self._elapsed_s()
        left_s = (self._num_steps - step) * self._elapsed_s() / max(1, step - self._first_step)
        return (
            f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] step {step}/{self._num_steps}, epoch "
            f"{epoch + 1}/{self._num_epochs}, {speed:,.0f} candidates/s, loss {self._loss:.4f}, "
            f"{left_s:.0f} s left"
        )


def final_loss(metrics_path: Path) -> float | None:
    """Return the mean of the last tenth of the logged losses; None where none was logged."""
    losses = [value.value for value in read_metrics(metrics_path) if value.name == LOSS]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last) if last else None


def draw_learning_curve(metrics_path: Path, target: Path) -> None:
    """Write a small PNG of the training loss over the steps, and of its running mean."""
    from matplotlib.figure import Figure

    rows = [value for value in read_metrics(metrics_path) if value.name == LOSS]
    steps, losses = [row.step for row in rows], [row.value for row in rows]
    span = max(1, len(rows) // 20)
    means = [mean(losses[max(0, end - span) : end]) for end in range(1, len(losses) + 1)]
    figure = Figure(figsize=(6, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, linewidth=0.7, alpha=0.4, label="batch")
    axes.plot(steps, means, color="C0", linewidth=1.8, label=f"mean of the last {span} logged")
    axes.legend(frameon=False)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training loss per candidate")
    axes.grid(alpha=0.3)
    figure.savefig(target, metadata={"Software": None})
