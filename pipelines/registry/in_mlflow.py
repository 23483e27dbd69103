"""What MLflow's pages show of cycles beyond what later stages read; it is for people only.

- inputs of a run: the snapshot and the event log that it was computed from, facts only;
- what the data gate found, among the artifacts of the challenger's run;
- each side of a comparison as a run, and its numbers at the model that they are of;
- one run that draws all cycles, and the experiment's description, which tells of the last ones.

Whatever is written twice is there once. Not for runs, versions and tags that others read
(`pipelines.registry.tracking`, `pipelines.registry.registry`).
"""

import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ModelRef, ResolvedRun, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.files import to_json
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.mlflow_errors import make_once, translated_outages
from pipelines.contracts.run_layout import DOCS_ARTIFACT, listing_uri
from pipelines.contracts.time import Window
from pipelines.event_log.listing import Listing
from pipelines.plain_text import as_markdown
from pipelines.registry import tracking
from pipelines.registry.registry import find_location, find_logged_model
from pipelines.settings import MLFLOW_VIEW

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Metric, Run

log = logging.getLogger(__name__)
_LONGEST_DIGEST, _LONGEST_NAME = 36, 500
"""Characters of a dataset's digest and name; the server refuses longer ones."""
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
NUM_SHOWN = 10
"""Cycles that the experiment's description tells of."""
HEADING = "## Last cycles of homefeed_retrain"
"""From here on the description is ours; what stands above it is somebody's own."""
_ROOM = 20_000
"""Characters; the server refuses longer tags of experiments."""
_LONGEST_OUTCOME = 400


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
    name = f"snapshot {snapshot.as_of:%Y-%m-%d}"
    return Named(name[:_LONGEST_NAME], snapshot.digest[:_LONGEST_DIGEST])


def log_datasets(
    client: "MlflowClient", run: ResolvedRun, mlflow_run_id: str, snapshot: Snapshot, context: str
) -> None:
    """Log a cycle's snapshot and event log as inputs of an MLflow run; twice is as once.

    The types of source are our own, so that MLflow loads nothing.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        mlflow_run_id: The MLflow run.
        snapshot: What it was computed from.
        context: What for: 'training' or 'evaluation'.

    Raises:
        HomefeedError: as `translated_outages` raises.
    """
    from mlflow.entities import DatasetInput, InputTag

    shards, tag = snapshot.shards, InputTag("mlflow.data.context", context)
    profile = {
        "training": _window(snapshot.training),
        "holdout": _window(snapshot.holdout),
        "num_examples": sum(shard.num_examples for shard in shards),
        "num_requests": sum(shard.num_requests for shard in shards),
        "num_users": sum(shard.num_users for shard in shards),
        "num_pins": snapshot.num_pins,
        "digest": snapshot.digest,
    }
    found = [_dataset(named(snapshot), "homefeed_snapshot", snapshot.uri, profile)]
    # Where the files that were read are not on record, nothing is said of them.
    with contextlib.suppress(FileNotFoundError, DataContractError):
        listing = storage.read_model(listing_uri(run.run_uri), Listing)
        found.append(_event_log(snapshot, listing))
    with translated_outages(client.tracking_uri):
        client.log_inputs(mlflow_run_id, [DatasetInput(each, [tag]) for each in found])


def _event_log(snapshot: Snapshot, listing: Listing) -> "Dataset":
    # A log that was copied is the same log, so that neither its place nor its times count.
    files = [(file.path, file.num_bytes, file.footer) for file in listing.files]
    digest = digest_of([snapshot.as_of.isoformat(), sorted(files)])
    profile = {
        "impressions": _window(Window(start=snapshot.training.start, end=snapshot.holdout.end)),
        "known_before": f"{snapshot.as_of:%Y-%m-%d %H:%M} UTC",
        "num_files": len(listing.files),
        "num_rows": sum(file.num_rows or 0 for file in listing.files),
        "num_rows_known_at_as_of": sum(file.num_known or 0 for file in listing.files),
        "num_bytes": sum(file.num_bytes for file in listing.files),
        "digest": digest,
    }
    name = Named("event log", digest[:_LONGEST_DIGEST])
    return _dataset(name, "homefeed_event_log", listing.event_log_uri, profile)


def _dataset(name: Named, kind: str, uri: str, profile: Mapping[str, object]) -> "Dataset":
    from mlflow.entities import Dataset

    return Dataset(*name, kind, json.dumps({"uri": uri}), profile=json.dumps(profile))


def _window(window: Window) -> str:
    return f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC, end excluded"


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
        model_id = _model_id(client, side.model) if rows and side.model else ""
        if model_id and rows:
            measured = _with_model(client, run_id, measured, model_id, rows)
        told = [RunTag(name, value[: tracking.LONGEST_TAG]) for name, value in tags.items()]
        client.log_batch(run_id, metrics=measured, tags=told)
        if folder is not None:
            client.log_artifacts(run_id, str(folder), artifact_path="comparison")
        client.set_terminated(run_id, "FINISHED")
    return run_id


def _with_model(
    client: "MlflowClient", run_id: str, measured: "list[Metric]", model_id: str, rows: Named
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
    return [
        Metric(*(each.key, each.value, each.timestamp + len(known[each.key]), 0), model_id, *rows)
        if each.key.startswith(_OF_MODEL) and each.value not in known[each.key]
        else each
        for each in measured
    ]


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
        run_id = str(found.info.run_id)
        if found.info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
        day_ms, step = int(run.as_of.timestamp() * 1000), (run.as_of - _first_day(found)).days
        points = _points_of(comparison, is_void).items()
        metrics = [Metric(key, each, day_ms, step) for key, each in points]
        client.log_batch(run_id, metrics=metrics)
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


def describe_experiment(client: "MlflowClient", run: ResolvedRun) -> None:
    """Describe a cycle's experiment by its last cycles; what a person wrote above them stays.

    The description is made of the runs' own tags each time, so that whoever writes it last writes
    all of it.

    Raises:
        HomefeedError: as `translated_outages` raises.
    """
    with translated_outages(client.tracking_uri):
        found = client.get_experiment_by_name(run.experiment)
        if found is None:
            return
        cycles = client.search_runs(
            [found.experiment_id],
            f"tags.{tracking.SIDE} = 'challenger'",
            order_by=["tags.as_of DESC"],
            max_results=NUM_SHOWN,
        )
        before = found.tags.get(tracking.DESCRIPTION, "")
        text = _description(run, before.partition(HEADING)[0], cycles)
        if text != before:
            client.set_experiment_tag(found.experiment_id, tracking.DESCRIPTION, text)


def _description(run: ResolvedRun, own: str, cycles: "list[Run]") -> str:
    """Return a person's own text, then as many of the last cycles as there is room for.

    The person's text is whole; it stands alone where there is no room for anything else.
    """
    server = run.tracking_uri.rstrip("/")
    model = _linked(server, f"models/{quote(run.registered_model, safe='')}", run.registered_model)
    start = f"{own.rstrip()}\n\n" if own.strip() else ""
    text = (
        f"{start}{HEADING}\n\nThe version of {model} with the alias `champion` serves. All runs of "
        f"a cycle: ``tags.{tracking.CYCLE} = '...'``.\n"
    )
    if len(text) > _ROOM:
        log.warning(
            "the experiment %s is described in %d characters, which leaves no room for its last "
            "cycles; shorten the description to see them there",
            *(run.experiment, len(own)),
        )
        return own
    for cycle in cycles:
        line = f"\n- {_told(server, cycle)}"
        if len(text) + len(line) > _ROOM:
            break
        text += line
    return text


def _told(server: str, cycle: "Run") -> str:
    """Return a line about a cycle, also of one that was not judged."""
    tags, info = cycle.data.tags, cycle.info
    page = f"experiments/{info.experiment_id}/runs/{info.run_id}"
    day = _linked(server, page, tags.get("as_of", "")[:10] or "a day that is not known")
    if failure := tags.get(tracking.FAILURE):
        return f"{day}: broke. {_short(failure)}"
    if "verdict" not in tags:
        return f"{day}: not judged"
    return f"{day}: **{as_markdown(tags['verdict'])}**. {_short(tags.get('outcome', ''))}"


def _linked(server: str, page: str, text: str) -> str:
    """Return Markdown that leads to a page of MLflow; the text alone where it has no pages."""
    shown = as_markdown(text)
    return f"[{shown}](<{server}/#/{page}?{MLFLOW_VIEW}>)" if server.startswith("http") else shown


def _short(text: str) -> str:
    return as_markdown(text if len(text) <= _LONGEST_OUTCOME else f"{text[:_LONGEST_OUTCOME]} ...")


def end_failed(run: ResolvedRun, reason: str) -> None:
    """End the MLflow runs of a broken cycle that are open still, with the reason.

    Where MLflow does not answer they stay open: it must not keep anybody from being told.

    Args:
        run: The cycle.
        reason: One sentence.
    """
    from mlflow.exceptions import MlflowException

    query = f"tags.{tracking.CYCLE} = '{run.run_id}' and attributes.status = 'RUNNING'"
    with tracking.giving_up_after(5):
        try:
            client = tracking.connect(run.tracking_uri)
            with translated_outages(run.tracking_uri):
                experiment = client.get_experiment_by_name(run.experiment)
                places = [experiment.experiment_id] if experiment else []
                for found in client.search_runs(places, query) if places else []:
                    said = reason[: tracking.LONGEST_TAG]
                    client.set_tag(found.info.run_id, tracking.FAILURE, said)
                    client.set_terminated(found.info.run_id, "FAILED")
            describe_experiment(client, run)
        except (HomefeedError, MlflowException) as error:
            log.warning("the cycle's MLflow runs stay open: %s", error)
