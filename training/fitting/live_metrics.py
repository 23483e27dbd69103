"""What a training says while it runs: logged values, live in MLflow too, and progress lines.

Every value is in a local file, metrics.jsonl, which is the truth; `replay` brings MLflow up to it
afterwards, and MLflow draws the curves. Progress lines come every few seconds rather than a bar
that redraws itself: the output goes into a log. Not for holdout metrics: those are the
comparison's.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
import torch

from pipelines.contracts.files import write_whole
from pipelines.contracts.mlflow_errors import translated_outages

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
LOSS = "training/loss"
_SEND_EVERY_S, _LINE_EVERY_S = 2.0, 5.0
_NUM_LOGGED_STEPS = 200
_MAX_PER_REQUEST = 1000
"""MLflow's limit of metrics in one log_batch."""
_BAR_WIDTH = 24


class LoggedValue(NamedTuple):
    """One line of metrics.jsonl."""

    step: int
    epoch: int
    name: str
    value: float
    timestamp_ms: int


def read_metrics(path: Path) -> list[LoggedValue]:
    """Return the values of a metrics.jsonl, [] if it is not there; a torn last line is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [LoggedValue(**json.loads(line)) for line in lines if line.endswith("\n")]


def _to_lines(values: list[LoggedValue]) -> str:
    return "".join(f"{json.dumps(value._asdict())}\n" for value in values)


class MetricLog:
    """Appends values to metrics.jsonl and sends them on to MLflow, on one process only.

    They are sent every two seconds until that fails; then with one warning no more. Neither an
    outage nor a refusal ends a training: the values are in metrics.jsonl, and the stage sends them
    afterwards, when hours of training can no longer be lost.

    Args:
        path: metrics.jsonl.
        tracking_uri: MLflow server; '' sends nothing.
        run_id: Run to log to; '' sends nothing.
    """

    def __init__(self, path: Path, tracking_uri: str, run_id: str) -> None:
        self._path, self._tracking_uri, self._run_id = path, tracking_uri, run_id
        self._is_sending = bool(tracking_uri and run_id)
        self._waiting: list[LoggedValue] = []
        self._sent_before: set[tuple[str, int]] | None = None
        self._sent_at = time.monotonic()
        if self._is_sending:
            # A server that hangs may cost the training these seconds, once. For this process alone.
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
            os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "5"

    def rewind(self, step: int) -> None:
        """Drop what an earlier attempt logged after the step that this one starts from."""
        kept = [value for value in read_metrics(self._path) if value.step <= step]
        # Whole or not at all: cut short, the file would lack steps that no attempt makes again.
        write_whole(self._path, _to_lines(kept).encode())

    def add(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Log some values of one step, now; send all that wait if it is time."""
        now_ms = time.time_ns() // 1_000_000
        rows = [LoggedValue(step, epoch, name, value, now_ms) for name, value in values.items()]
        with self._path.open("a") as stream:
            stream.write(_to_lines(rows))
        self._waiting += rows if self._is_sending else []
        if time.monotonic() - self._sent_at >= _SEND_EVERY_S:
            self.send()

    def send(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        self._sent_at = time.monotonic()
        if not (self._is_sending and waiting):
            return
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            client = MlflowClient(tracking_uri=self._tracking_uri)
            if self._sent_before is None:
                self._sent_before = _steps_of(client, self._run_id, waiting)
            _send(client, self._run_id, waiting, self._sent_before)
        except (MlflowException, RequestException) as error:
            self._is_sending = False
            log.warning(
                "MLflow at %s cannot be reached or refuses the metrics (%s); training goes on, its "
                "metrics are in metrics.jsonl and will be sent afterwards",
                *(self._tracking_uri, str(error)[:200]),
            )


def replay(client: "MlflowClient", metrics_path: Path, run_id: str) -> int:
    """Send what an MLflow run lacks of a metrics.jsonl; return how many values the file has.

    A step that the run has already is left as it is, so it does no harm to repeat this.

    Args:
        client: The stage's client.
        metrics_path: The file.
        run_id: The MLflow run.

    Raises:
        TrackingUnavailableError: the server cannot be reached; what was trained is kept.
    """
    values = read_metrics(metrics_path)
    with translated_outages(client.tracking_uri, "training is finished and is not repeated"):
        _send(client, run_id, values, _steps_of(client, run_id, values))
    return len(values)


def _steps_of(
    client: "MlflowClient", run_id: str, values: list[LoggedValue]
) -> set[tuple[str, int]]:
    """Return (name, step) of all that the run has under the names of some values."""
    names = {value.name for value in values}
    return {
        (name, metric.step) for name in names for metric in client.get_metric_history(run_id, name)
    }


def _send(
    client: "MlflowClient", run_id: str, values: list[LoggedValue], known: set[tuple[str, int]]
) -> None:
    """Send values, but for steps that the run has: they would stand twice in its history."""
    from mlflow.entities import Metric

    metrics = [
        Metric(value.name, value.value, value.timestamp_ms, value.step)
        for value in values
        if (value.name, value.step) not in known
    ]
    for first in range(0, len(metrics), _MAX_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[first : first + _MAX_PER_REQUEST])


class ProgressLogger(pl.Callback):
    """Logs values every so many steps, and a line with speed and time left every few seconds."""

    def __init__(self, metric_log: MetricLog, num_steps: int, num_epochs: int) -> None:
        self._metric_log = metric_log
        self._num_steps, self._num_epochs = num_steps, num_epochs
        self._every_steps = max(1, num_steps // _NUM_LOGGED_STEPS)
        self._started_at = self._line_at = 0.0
        self._first_step = self._num_candidates = 0

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
        step, now, last = trainer.global_step, time.monotonic(), self._num_steps
        self._num_candidates += int(batch.num_global_candidates)
        if step % self._every_steps and step != last:
            return
        mean: torch.Tensor = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        loss = float(mean)
        if not trainer.is_global_zero:
            return
        elapsed_s = max(1e-6, time.monotonic() - self._started_at)
        speed = self._num_candidates / elapsed_s
        values = {
            LOSS: loss,
            "training/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "training/gradient_norm": float(pl_module.gradient_norm),
            "training/candidates_per_s": speed,
        }
        self._metric_log.add(step, trainer.current_epoch, values)
        if step == last or now - self._line_at >= _LINE_EVERY_S:
            self._line_at = now
            filled = round(_BAR_WIDTH * step / last)
            left_s = (last - step) * elapsed_s / max(1, step - self._first_step)
            log.info(
                "[%s%s] step %d/%d, epoch %d/%d, %s candidates/s, loss %.4f, %.0f s left",
                *("#" * filled, "." * (_BAR_WIDTH - filled), step, last),
                *(trainer.current_epoch + 1, self._num_epochs, f"{speed:,.0f}", loss, left_s),
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send what is left."""
        if trainer.is_global_zero:
            self._metric_log.send()
