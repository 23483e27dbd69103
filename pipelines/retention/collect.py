"""The door of this room: plan a deletion for one deployment, and carry it out.

Others call it garbage collection. Not for printing (`pipelines.cli.gc`).
"""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.retention import carry_out
from pipelines.retention.inventory import take_inventory
from pipelines.retention.models import find_versions
from pipelines.retention.plan import Item, Plan, make_plan
from pipelines.retention.record import read_record
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


def plan_deletion(
    client: "MlflowClient", settings: Settings, now: datetime
) -> tuple[carry_out.Place, Plan]:
    """Return what may go now; nothing is written.

    The record is read first: what is decided by it is looked at afterwards, and again when the
    plan is carried out.

    Raises:
        TrackingUnavailableError: MLflow does not answer.
        RecordDisagreesError: the registry's alias is not where the history says.
        DataContractError: some of the record is damaged.
    """
    workspace_uri = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    record = read_record(client, workspace_uri, name)
    place = carry_out.Place(client, workspace_uri, name, record)
    before = now - timedelta(days=settings.keep_days)
    found = dataclasses.replace(
        take_inventory(workspace_uri, place.dead), versions=find_versions(client, name, before)
    )
    return place, make_plan(found, record, settings, now)


def delete(place: carry_out.Place, plan: Plan) -> Iterator[tuple[Item, str]]:
    """Carry a plan out, one deletion of a workspace at a time; gives what `carry_out` gives.

    Raises:
        RunInProgressError: another deletion is at work in this workspace.
        HomefeedError: as `carry_out` raises.
    """
    gate = storage.join(place.workspace_uri, "gc")
    with storage.exclusive_lock(gate, f"a deletion in {place.workspace_uri}"):
        yield from carry_out.carry_out(place, plan)
