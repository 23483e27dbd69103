"""What a run was computed from, as MLflow's dataset inputs: the snapshot and the event log.

Only facts about them: name, digest, place, windows, numbers of rows. The types of source are our
own, so that MLflow loads nothing. Tested in tests/pipelines/registry/in_mlflow/test_datasets.py.
"""

import json
from typing import TYPE_CHECKING, NamedTuple

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.run_layout import listing_uri
from pipelines.contracts.time import Window
from pipelines.event_log.listing import Listing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset

_CONTEXT = "mlflow.data.context"
_LONGEST_DIGEST, _LONGEST_NAME = 36, 500
"""Characters; the server refuses longer ones."""


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

    found = [_snapshot(snapshot), *_event_log(run, snapshot)]
    inputs = [DatasetInput(each, [InputTag(_CONTEXT, context)]) for each in found]
    with translated_outages(client.tracking_uri):
        client.log_inputs(mlflow_run_id, inputs)


def _snapshot(snapshot: Snapshot) -> "Dataset":
    from mlflow.entities import Dataset

    name, digest = named(snapshot)
    profile = {
        "training": _window(snapshot.training),
        "holdout": _window(snapshot.holdout),
        "num_examples": sum(shard.num_examples for shard in snapshot.shards),
        "num_requests": sum(shard.num_requests for shard in snapshot.shards),
        "num_users": sum(shard.num_users for shard in snapshot.shards),
        "num_pins": snapshot.num_pins,
        "digest": snapshot.digest,
    }
    place = json.dumps({"uri": snapshot.uri})
    return Dataset(name, digest, "homefeed_snapshot", place, profile=json.dumps(profile))


def _event_log(run: ResolvedRun, snapshot: Snapshot) -> "list[Dataset]":
    """Return the files of the event log that were read; nothing where they are not on record."""
    from mlflow.entities import Dataset

    try:
        listing = storage.read_model(listing_uri(run.run_uri), Listing)
    except (FileNotFoundError, DataContractError):
        return []
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
    place = json.dumps({"uri": listing.event_log_uri})
    short = digest[:_LONGEST_DIGEST]
    return [
        Dataset("event log", short, "homefeed_event_log", place, profile=json.dumps(profile)),
    ]


def _window(window: Window) -> str:
    return f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC, end excluded"
