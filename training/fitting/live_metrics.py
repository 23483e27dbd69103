"""What a training says while it runs: logged values, live in MLflow too, and progress lines.

Every value is in a local file (`training.fitting.metrics_file`), which is the truth; MLflow is
brought up to it during a training and afterwards, and draws the curves. Progress lines come every
few seconds rather than a bar that redraws itself: the output goes into a log. Not for what
the holdout thinks of it (`training.fitting.learning_curve`).
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.files import write_whole
from training.fitting.metrics_file import LOSS, append, read_metrics, replay, to_lines

log = logging.getLogger(__name__)
_SEND_EVERY_S, _LINE_EVERY_S = 2.0, 5.0
_NUM_LOGGED_STEPS = 200


class MetricLog(pl.Callback):
    """Logs values of about 200 steps, and a line with speed and time left every few seconds.

    The first process appends the values to metrics.jsonl and sends MLflow what it lacks, every two
    seconds (less often to a slow server) until that fails; then with one warning no more. Neither
    an outage nor a refusal ends a training: the stage sends the file afterwards, when hours of
    training can no longer be lost.

    Args:
        path: metrics.jsonl.
        tracking_uri: MLflow server.
        run_id: Run to log to; '' sends nothing.
    """

    def __init__(self, path: Path, tracking_uri: str, run_id: str) -> None:
        self._path, self._tracking_uri, self._run_id = path, tracking_uri, run_id
        self._started_at = self._line_at = time.monotonic()
        self._send_at = self._started_at + _SEND_EVERY_S
        self._first_step = self._num_candidates = self._num_sent = 0
        if run_id:
            # A server that hangs may cost the training these seconds, once. For this process alone.
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "5"

    def rewind(self, step: int) -> None:
        """Drop what an earlier attempt logged after the step that this one starts from."""
        kept = [value for value in read_metrics(self._path) if value.step <= step]
        # Whole or not at all: cut short, the file would lack steps that no attempt makes again.
        write_whole(self._path, to_lines(kept).encode())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._first_step = trainer.global_step
        self._started_at = self._line_at = time.monotonic()
        if trainer.is_global_zero:
            self.rewind(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log this step if it is one of those that are logged, on every process alike."""
        step, now, last = trainer.global_step, time.monotonic(), pl_module.num_steps
        self._num_candidates += batch[0].num_global_candidates.double()  # a sum on the device
        if step % max(1, last // _NUM_LOGGED_STEPS) and step != last:
            return
        pl_module.require_finite()
        loss: Any = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        if not trainer.is_global_zero:
            return
        elapsed_s = now - self._started_at
        speed = float(self._num_candidates) / elapsed_s
        values = {
            LOSS: float(loss),
            "training/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "training/gradient_norm": float(pl_module.gradient_norm),
            "training/candidates_per_s": speed,
        }
        append(self._path, step, values)
        # The stage sends the end. A request of ours that is answered late would log it twice.
        if self._run_id and step != last and now >= self._send_at:
            begun_at = time.monotonic()
            self._send()
            sent_at = time.monotonic()
            # So a slow server costs a twentieth of the time.
            self._send_at = sent_at + max(_SEND_EVERY_S, 20 * (sent_at - begun_at))
        if step == last or now - self._line_at >= _LINE_EVERY_S:
            self._line_at = now
            log.info(
                "step %d/%d, epoch %d/%s, %.0f candidates/s, loss %.4f, %.0f s left",
                *(step, last, trainer.current_epoch + 1, trainer.max_epochs, speed, loss),
                (last - step) * elapsed_s / (step - self._first_step),
            )

    def _send(self) -> None:
        from mlflow import MlflowClient
        from requests.exceptions import RequestException

        try:
            client = MlflowClient(tracking_uri=self._tracking_uri)
            self._num_sent = replay(client, self._path, self._run_id, self._num_sent)
        except (HomefeedError, RequestException) as error:
            self._run_id = ""
            log.warning(
                "live metrics end; the training goes on, and they are sent later: %s", error
            )
