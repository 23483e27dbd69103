"""One side of a comparison in its MLflow run, and its numbers at the model that they are of.

MLflow 3 keeps a model apart from the run that logged it. A champion's page there shows what it
scored in each cycle in which it was the baseline, and on which rows. Tested in
tests/pipelines/registry/in_mlflow/test_sides.py.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.registry import tracking
from pipelines.registry.in_mlflow.datasets import Named
from pipelines.registry.registry import find_location, find_logged_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_OF_MODEL = ("holdout", "serving/")
"""Metrics whose names begin so are the model's own; the others are about the comparison."""


class Side(NamedTuple):
    """A side of a comparison."""

    name: str  # 'challenger', 'baseline' or 'anchor'
    label: str  # What a new MLflow run is named after.
    model: ModelRef | None  # None where the baseline is no model.


def log_side(
    client: "MlflowClient",
    run: ResolvedRun,
    side: Side,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    rows: Named | None = None,
    folder: Path | None = None,
) -> str:
    """Log one side of a comparison to its MLflow run, end the run, and return the run's id.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        side: Which side.
        metrics: Final numbers; they are logged at step 0.
        tags: What else is known of the comparison.
        rows: The dataset that the model's own metrics were measured on; None logs none of them to
            the model.
        folder: Files to log, or None.
    """
    from mlflow.entities import RunTag

    run_id = tracking.open_run(client, run, side.name, side.label)
    with translated_outages(client.tracking_uri):
        # All have the time at which the run began: a retry then sends exact duplicates, which the
        # server drops.
        started = client.get_run(run_id).info.start_time
        model_id = _model_id(client, side.model) if rows and side.model else ""
        told = [RunTag(name, value[: tracking.LONGEST_TAG]) for name, value in tags.items()]
        measured = (
            _of_model(client, run_id, metrics, started, model_id, rows)
            if model_id and rows
            else _of_run(metrics, started)
        )
        client.log_batch(run_id, metrics=measured, tags=told)
        if folder is not None:
            client.log_artifacts(run_id, str(folder), artifact_path="comparison")
        client.set_terminated(run_id, "FINISHED")
    return run_id


def _of_run(metrics: Mapping[str, float], started: int) -> "list[Metric]":
    from mlflow.entities import Metric

    return [Metric(key, value, started, 0) for key, value in sorted(metrics.items())]


def _of_model(
    client: "MlflowClient",
    run_id: str,
    metrics: Mapping[str, float],
    started: int,
    model_id: str,
    rows: Named,
) -> "list[Metric]":
    """Return the metrics, the model's own with the model that does not have them yet.

    A server fails where a model has another value of the same name, run, time and step already. A
    number that an attempt before this one has measured otherwise gets the next millisecond.
    """
    from mlflow.entities import Metric

    known = defaultdict(list)
    for each in client.get_logged_model(model_id).metrics or ():
        if each.run_id == run_id:
            known[each.key].append(each.value)
    measured = []
    for each in _of_run(metrics, started):
        values = known[each.key]
        is_new = each.key.startswith(_OF_MODEL) and each.value not in values
        if not is_new:
            measured.append(each)
            continue
        time = started + len(values)
        measured.append(Metric(each.key, each.value, time, 0, model_id, rows.name, rows.digest))
    return measured


def _model_id(client: "MlflowClient", model: ModelRef) -> str:
    """Return the id of a version's logged model; '' where it has none, or is deleted."""
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version(model.name, model.version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""
    model_id = find_logged_model(client, version)
    return model_id if model_id and find_location(client, model_id) else ""
