"""What MLflow's pages show of cycles beyond what later stages read; it is for people only.

- the input of a run: the snapshot that it was computed from, facts only;
- what the data gate found, among the artifacts of the challenger's run;
- each side of a comparison as a run, and its numbers at the model that they are of;
- one run that draws all cycles.

Whatever is written twice is there once. Not for runs, versions and tags that others read
(`pipelines.registry.tracking`, `pipelines.registry.registry`).
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ModelRef, ResolvedRun, Snapshot
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.files import to_json
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.mlflow_errors import make_once, translated_outages
from pipelines.contracts.run_layout import DOCS_ARTIFACT
from pipelines.registry import tracking
from pipelines.registry.registry import find_own_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)
_LONGEST_DIGEST = 36
"""Characters of a dataset's digest; the server refuses longer ones."""
GATE_FOLDER, DOCS_PAGE = DOCS_ARTIFACT.split("/")
_OF_MODEL = ("holdout", "serving/")
"""Metrics whose names begin so are the model's own; the others are about the comparison."""
ALL_CYCLES = "all cycles"
FIRST_DAY = "first_day"
"""The tag with the day of step 0, at which the first cycle of the run of all cycles was judged."""
_OF_ALL_CYCLES = """\
One point for each cycle that was judged. The step is the number of days since the tag `first_day`;
with *Time (wall)* for the x-axis a chart shows dates.

- `change/...`: how the challenger's target metric differs from the baseline's, in percent, with
  both ends of the interval.
- `target/...`: the target metric of the challenger and of what it was held against.
- `champion/...`: the version of the champion that each cycle was judged against, and its target
  metric in that cycle. The line of versions is the champion's lineage.
"""


@contextlib.contextmanager
def as_decoration(what: str) -> Iterator[None]:
    """Run a block whose result only people look at; what keeps MLflow from taking it is told.

    A refusal would come again at each retry, after hours of training, and takes nothing from the
    verdict. What may pass is raised, so that the stage is tried again.

    Args:
        what: What the block writes, for the log.

    Raises:
        HomefeedError: the error is one that may pass.
    """
    try:
        yield
    except HomefeedError as error:
        if error.is_retryable:
            raise
        log.warning(
            "MLflow does not show %s (%s: %s); nothing else is affected",
            *(what, type(error).__name__, error),
        )


class Named(NamedTuple):
    """A dataset as metrics name it."""

    name: str
    digest: str


def named(snapshot: Snapshot) -> Named:
    """Return what MLflow calls a snapshot."""
    return Named(f"snapshot {snapshot.as_of:%Y-%m-%d}", snapshot.digest[:_LONGEST_DIGEST])


def log_dataset(
    client: "MlflowClient", mlflow_run_id: str, snapshot: Snapshot, context: str
) -> None:
    """Log a cycle's snapshot as the input of an MLflow run; twice is as once.

    The type of source is our own, so that MLflow loads nothing.

    Args:
        client: Client of the tracking server.
        mlflow_run_id: The MLflow run.
        snapshot: What it was computed from.
        context: What for: 'training' or 'evaluation'.

    Raises:
        HomefeedError: as `translated_outages` raises.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    shards = snapshot.shards
    profile = {
        **{
            name: f"{each.start:%Y-%m-%d %H:%M} to {each.end:%Y-%m-%d %H:%M} UTC, end excluded"
            for name, each in {"training": snapshot.training, "holdout": snapshot.holdout}.items()
        },
        "num_examples": sum(shard.num_examples for shard in shards),
        "num_requests": sum(shard.num_requests for shard in shards),
        "num_users": sum(shard.num_users for shard in shards),
        "num_pins": snapshot.num_pins,
        "digest": snapshot.digest,
    }
    kind, source = "homefeed_snapshot", json.dumps({"uri": snapshot.uri})
    data = Dataset(*named(snapshot), kind, source, profile=json.dumps(profile))
    with translated_outages(client.tracking_uri):
        tags = [InputTag("mlflow.data.context", context)]
        client.log_inputs(mlflow_run_id, [DatasetInput(data, tags)])


def log_gate(
    client: "MlflowClient", run: ResolvedRun, mlflow_run_id: str, report: DataReport
) -> None:
    """Log a data report and its pages to an MLflow run; a page that was deleted is left out.

        data_gate/report.json            every expectation, with what was found
        data_gate/data_docs.html         the Data Docs of the snapshot
        data_gate/event_log.html         those of the event log's days, where these were judged

    Nothing of it is read by a cycle: a refusal is told, and the training goes on.

    Raises:
        HomefeedError: an error that may pass, of MLflow or of the pages' storage.
    """
    pages = {DOCS_PAGE: report.docs_uri, "event_log.html": report.log_docs_uri}
    with (
        as_decoration("what the data gate found"),
        storage.scratch_folder(run.workspace_uri) as scratch,
    ):
        folder = Path(scratch) / GATE_FOLDER
        folder.mkdir()
        (folder / "report.json").write_bytes(to_json(report))
        for name, uri in pages.items():
            if uri and storage.exists(uri):
                (folder / name).write_bytes(storage.read_bytes(uri))
        with translated_outages(client.tracking_uri):
            client.log_artifacts(mlflow_run_id, str(folder), artifact_path=GATE_FOLDER)


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

    MLflow 3 keeps a model apart from the run that logged it. A champion's page there shows what it
    scored in each cycle in which it was the baseline, and on which rows.

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
    from mlflow.entities import Metric, RunTag

    run_id = tracking.open_run(client, run, side.name, side.label)
    with translated_outages(client.tracking_uri):
        # All have the time at which the run began: a retry then sends exact duplicates, which the
        # server drops.
        started = client.get_run(run_id).info.start_time
        measured = [Metric(key, value, started, 0) for key, value in sorted(metrics.items())]
        if rows and side.model and (model_id := find_own_model(client, side.model)):
            # A server fails where a model has another value of the same name and run already.
            there = client.get_logged_model(model_id).metrics or ()
            known = {each.key for each in there if each.run_id == run_id}
            measured = [
                Metric(key, value, started, 0, model_id, *rows)
                if key.startswith(_OF_MODEL) and key not in known
                else Metric(key, value, started, 0)
                for key, value in sorted(metrics.items())
            ]
        told = [RunTag(name, value[: tracking.LONGEST_TAG]) for name, value in tags.items()]
        client.log_batch(run_id, metrics=measured, tags=told)
        if folder is not None:
            client.log_artifacts(run_id, str(folder), artifact_path="comparison")
        client.set_terminated(run_id, "FINISHED")
    return run_id


def log_cycle(
    client: "MlflowClient", run: ResolvedRun, comparison: Comparison, is_void: bool = False
) -> str:
    """Add a judged cycle's points to the run of all cycles, at its day; return that run's id.

    `champion/version` is the champion that the cycle was judged against, so a promotion shows at
    the next one. A cycle whose target metric could not be compared, or whose comparison counts for
    nothing, adds no point to the lines of the metric and its change.

    Raises:
        DataContractError: a person has removed or altered the day of the run's step 0.
        HomefeedError: as `translated_outages` raises.
    """
    from mlflow.entities import Metric

    tags = {tracking.SIDE: ALL_CYCLES, tracking.DESCRIPTION: _OF_ALL_CYCLES}
    tags[FIRST_DAY] = run.as_of.isoformat()
    with translated_outages(client.tracking_uri):
        experiment_id = tracking.experiment_id_of(client, run)
        query, order = f"tags.{tracking.SIDE} = '{ALL_CYCLES}'", ["attributes.start_time ASC"]

        def find() -> "Run | None":  # The oldest, where two were begun.
            found = client.search_runs([experiment_id], query, max_results=1, order_by=order)
            return next(iter(found), None)

        found = make_once(
            find, lambda: client.create_run(experiment_id, tags=tags, run_name=ALL_CYCLES)
        )
        run_id, said = str(found.info.run_id), found.data.tags.get(FIRST_DAY, "")
        if found.info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
        try:
            step = (run.as_of - datetime.fromisoformat(said)).days
        except (ValueError, TypeError):
            raise DataContractError(
                f"the MLflow run {run_id} has the tag {FIRST_DAY}={said!r}; expected the day of "
                f"its step 0, such as 2017-06-12T00:00:00+00:00; set the tag, or delete the run "
                f"and the next cycle begins another"
            ) from None
        at_ms = int(run.as_of.timestamp() * 1000)
        points = _points_of(comparison, is_void).items()
        client.log_batch(run_id, metrics=[Metric(key, each, at_ms, step) for key, each in points])
    return run_id


def _points_of(comparison: Comparison, is_void: bool) -> dict[str, float]:
    metric, champion = comparison.target_metric, comparison.baseline_model
    found: dict[str, float | None] = {}
    row = None if is_void else comparison.target
    if champion is not None and not comparison.is_first_cycle:
        found["champion/version"] = float(champion.version)
        found[f"champion/{metric}"] = row.baseline if row else None
    if row is not None:
        found[f"target/{metric} of challenger"] = row.challenger
        found[f"target/{metric} of baseline"] = row.baseline
        if (change := row.relative_change) is not None:
            ends = {"": change.value, " low": change.low, " high": change.high}
            found |= {f"change/percent{end}": 100 * value for end, value in ends.items()}
    return {key: value for key, value in found.items() if value is not None}


def end_failed(run: ResolvedRun, reason: str) -> None:
    """End the MLflow runs of a broken cycle that are open still, with the reason.

    Where MLflow does not answer they stay open: it must not keep anybody from being told.

    Args:
        run: The cycle.
        reason: One sentence.
    """
    from mlflow.exceptions import MlflowException

    query = f"tags.{tracking.CYCLE} = '{run.run_id}' and attributes.status = 'RUNNING'"
    try:
        with tracking.giving_up_after(5), translated_outages(run.tracking_uri):
            client = tracking.connect(run.tracking_uri)
            experiment = client.get_experiment_by_name(run.experiment)
            places = [experiment.experiment_id] if experiment else []
            for found in client.search_runs(places, query) if places else []:
                said = reason[: tracking.LONGEST_TAG]
                client.set_tag(found.info.run_id, tracking.FAILURE, said)
                client.set_terminated(found.info.run_id, "FAILED")
    except (HomefeedError, MlflowException) as error:
        log.warning("the cycle's MLflow runs stay open: %s", error)
