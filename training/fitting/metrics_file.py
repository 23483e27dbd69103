"""metrics.jsonl, the values that a training logs, and MLflow brought up to it.

Not for when a training logs (`training.fitting.live_metrics`). The stage reads the file without
Lightning, whose import takes seconds. Tested in tests/training/fitting/test_live_metrics.py.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.contracts.mlflow_errors import translated_outages

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOSS, CURVE = "training/loss", "training/holdout_volume_at_3"


class LoggedValue(NamedTuple):
    """One line of metrics.jsonl."""

    step: int
    name: str
    value: float
    timestamp_ms: int


def read_metrics(path: Path) -> list[LoggedValue]:
    """Return the values of a metrics.jsonl, [] if it is not there; a torn last line is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [LoggedValue(**json.loads(line)) for line in lines if line.endswith("\n")]


def append(path: Path, step: int, values: dict[str, float]) -> None:
    """Log some values of one step, now."""
    now_ms = time.time_ns() // 1_000_000
    rows = [LoggedValue(step, name, value, now_ms) for name, value in values.items()]
    with path.open("a") as stream:
        stream.write(to_lines(rows))


def to_lines(values: list[LoggedValue]) -> str:
    """Return values as lines of a metrics.jsonl."""
    return "".join(f"{json.dumps(value._asdict())}\n" for value in values)


def replay(client: "MlflowClient", metrics_path: Path, run_id: str, num_sent: int = 0) -> int:
    """Send what an MLflow run lacks of a metrics.jsonl; return how many values the file has.

    A step that the run has already is left as it is, so it does no harm to repeat this.

    Args:
        client: The client of the stage, or of the training.
        metrics_path: The file.
        run_id: The MLflow run.
        num_sent: Values at the file's beginning that the same process has sent; with 0 the run is
            asked for all that it has.

    Raises:
        TrackingUnavailableError: the server cannot be reached; what was trained is kept.
    """
    from mlflow.entities import Metric

    values = read_metrics(metrics_path)
    asked = set() if num_sent else {value.name for value in values}
    with translated_outages(client.tracking_uri, "what was trained is kept, metrics.jsonl too"):
        known = {
            (name, metric.step)
            for name in asked
            for metric in client.get_metric_history(run_id, name)
        }
        metrics = [
            Metric(value.name, value.value, value.timestamp_ms, value.step)
            for value in values[num_sent:]
            if (value.name, value.step) not in known
        ]
        client.log_batch(run_id, metrics)
    return len(values)
