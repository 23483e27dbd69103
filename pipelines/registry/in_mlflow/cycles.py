"""One MLflow run that draws all cycles: the target metric, its change, and who was champion.

Each judged cycle adds a point at its day, so that MLflow's own charts draw the lines. Points are
made when a cycle is judged: `champion/version` is the champion that it was judged against, and so a
promotion shows at the next cycle. Tested in tests/pipelines/registry/in_mlflow/test_cycles.py.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.mlflow_errors import make_once, translated_outages
from pipelines.registry import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SIDE = "all cycles"
FIRST_DAY = "first_day"
"""The tag with the day of step 0, at which the run's first cycle was judged."""
_DESCRIPTION = """\
One point for each cycle that was judged. The step is the number of days since the tag `first_day`;
with *Time (wall)* for the x-axis a chart shows dates.

- `change/...`: how the challenger's target metric differs from the baseline's, in percent, with
  both ends of the interval.
- `target/...`: the target metric of the challenger and of what it was held against.
- `champion/...`: the version of the champion that each cycle was judged against, and its target
  metric in that cycle. The line of versions is the champion's lineage.
"""


def log_cycle(
    client: "MlflowClient", run: ResolvedRun, comparison: Comparison, is_void: bool = False
) -> str:
    """Add a judged cycle to the run of all cycles, and return that run's id; twice is as once.

    A cycle whose target metric could not be compared, or whose comparison counts for nothing, adds
    no point to the lines of the metric and its change.

    Raises:
        DataContractError: a person has removed or altered the day of the run's step 0.
        HomefeedError: as `translated_outages` raises.
    """
    from mlflow.entities import Metric

    found = _open(client, run)
    run_id, first = str(found.info.run_id), _first_day(found)
    day_ms, step = int(run.as_of.timestamp() * 1000), (run.as_of - first).days
    found_points = _points_of(comparison, is_void)
    points = [Metric(key, each, day_ms, step) for key, each in found_points.items()]
    with translated_outages(client.tracking_uri):
        client.log_batch(run_id, metrics=points)
    return run_id


def _first_day(found: "Run") -> datetime:
    said = found.data.tags.get(FIRST_DAY, "")
    try:
        day = datetime.fromisoformat(said)
    except ValueError:
        day = None
    if day is None or day.tzinfo is None:
        raise DataContractError(
            f"the MLflow run {found.info.run_id} has the tag {FIRST_DAY}={said!r}; expected the "
            f"day of its step 0, such as 2017-06-12T00:00:00+00:00; set the tag, or delete the run "
            f"and the next cycle begins another"
        )
    return day


def _points_of(comparison: Comparison, is_void: bool) -> dict[str, float]:
    metric, found = comparison.target_metric, {}
    row = None if is_void else comparison.target
    if comparison.baseline_model is not None and not comparison.is_first_cycle:
        found["champion/version"] = float(comparison.baseline_model.version)
        if row is not None and row.baseline is not None:
            found[f"champion/{metric}"] = row.baseline
    if row is None:
        return found
    sides = {"challenger": row.challenger, "baseline": row.baseline}
    found |= {f"target/{metric} of {name}": n for name, n in sides.items() if n is not None}
    if (change := row.relative_change) is not None:
        ends = {"": change.value, " low": change.low, " high": change.high}
        found |= {f"change/percent{end}": 100 * value for end, value in ends.items()}
    return found


def _open(client: "MlflowClient", run: ResolvedRun) -> "Run":
    """Return the experiment's run of all cycles; the oldest where two were begun."""
    tags = {tracking.SIDE: SIDE, tracking.DESCRIPTION: _DESCRIPTION}
    tags[FIRST_DAY] = run.as_of.isoformat()
    with translated_outages(client.tracking_uri):
        experiment_id = tracking.experiment_id_of(client, run)
        query, order = f"tags.{tracking.SIDE} = '{SIDE}'", ["attributes.start_time ASC"]

        def find() -> "Run | None":
            found = client.search_runs([experiment_id], query, max_results=1, order_by=order)
            return next(iter(found), None)

        found = make_once(find, lambda: client.create_run(experiment_id, tags=tags, run_name=SIDE))
        if found.info.status != "FINISHED":
            client.set_terminated(found.info.run_id, "FINISHED")
        return found
