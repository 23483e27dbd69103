"""What MLflow's page of the experiment shows first: a sentence, a list of runs, and two charts.

The list is a view as MLflow's button *Share* keeps it, found by its name in an address. MLflow
draws a line through the values of one run, so that a run of each registered model's own holds the
changes of all cycles. Not for what becomes of a cycle: that comes from the outcome.
"""

import json
from typing import TYPE_CHECKING, Any

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.mlflow_errors import make_once, translated_outages
from pipelines.contracts.reasons import Interval
from pipelines.registry.tracking import CYCLE, DESCRIPTION, LONGEST_TAG
from pipelines.settings import RUN_LIST

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALL = "all cycles"
"""Stands where other runs have a cycle's day; it sorts after all days, and so stays on top."""
LEARNING = "learning curves on the holdout"
CHANGES = tuple(f"{ALL}/{name}_percent" for name in ("change", "low", "high"))
"""Metrics of that run, at the cycles' days: the change of the target metric with its interval."""


def show_cycle(client: "MlflowClient", place: str, metric: str, said: str) -> None:
    """Write what the page of an experiment says first, in Markdown, and the view of its runs."""
    from training.fitting.metrics_file import CURVE

    widths = {f"tags.`{name}`": 95 for name in ("cycle", "side", "verdict")}
    widths |= {f"metrics.`decision/{name}`": 120 for name in (metric, "change_percent")}
    section = {"display": True, "isReordered": True, "columns": 1}
    view = {
        "selectedColumns": list(widths),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "orderByKey": next(iter(widths)),
        "orderByAsc": False,
        "compareRunCharts": [
            *(_chart(ALL, name, CHANGES, "time") for name in CHANGES),
            _chart(LEARNING, CURVE, (CURVE,), "step"),
        ],
        "compareRunSections": [section | {"uuid": each, "name": each} for each in (ALL, LEARNING)],
        "isAccordionReordered": True,  # else MLflow sorts the sections by name
    }
    with translated_outages(client.tracking_uri):
        client.set_experiment_tag(place, f"mlflow.sharedViewState.{RUN_LIST}", json.dumps(view))
        client.set_experiment_tag(place, DESCRIPTION, said[:LONGEST_TAG])


def _chart(place: str, name: str, lines: tuple[str, ...], axis: str) -> dict[str, Any]:
    """Return the chart of a metric in a section, with the metrics that are its lines.

    Of several the first metric's chart has all, and MLflow is kept from adding the others. Lines go
    from point to point: MLflow would smooth them.
    """
    chart: dict[str, Any] = {"type": "LINE", "uuid": name, "metricSectionId": place}
    chart |= {"metricKey": name, "selectedMetricKeys": list(lines), "xAxisKey": axis}
    chart |= {"useGlobalXaxisKey": False, "lineSmoothness": 0, "useGlobalLineSmoothing": False}
    return chart | {"deleted": name != lines[0], "isGenerated": False}


def add_change(client: "MlflowClient", run: ResolvedRun, place: str, change: Interval) -> None:
    """Add a cycle's change against the champion to the chart; a retry adds nothing."""
    from mlflow.entities import Metric

    mark, name = f"{ALL} of {run.registered_model}", f"All cycles of {run.registered_model}"
    tags, query = {CYCLE: mark, "cycle": ALL}, f"tags.{CYCLE} = '{mark}'"
    at, day = int(run.as_of.timestamp() * 1000), run.as_of.toordinal()
    values = (100 * each for each in (change.value, change.low, change.high))
    points = [Metric(key, value, at, day) for key, value in zip(CHANGES, values, strict=True)]
    with translated_outages(client.tracking_uri):
        found = make_once(
            lambda: next(iter(client.search_runs([place], query, max_results=1)), None),
            lambda: client.create_run(place, tags=tags, run_name=name),
        )
        client.log_batch(found.info.run_id, metrics=points)
        client.set_terminated(found.info.run_id, "FINISHED")
