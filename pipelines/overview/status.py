"""Reads how a deployment is doing. What cannot be reached hides nothing else, and is named.

Tested in tests/pipelines/overview/test_status.py.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pipelines import storage
from pipelines.alerts.incidents import read_open
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import HomefeedError
from pipelines.orchestration.grid import grid_of
from pipelines.overview.addresses import addresses_of
from pipelines.overview.cycles import newest_cycles, run_names
from pipelines.overview.facts import Champion, Cycle, OutboxAlert, Status
from pipelines.overview.outbox import newest_alerts
from pipelines.registry import history, reconcile, tracking
from pipelines.registry.history import HistoryEntry
from pipelines.settings import Settings

MLFLOW_TIMEOUT_S = 5
"""How long one answer of MLflow is waited for, in seconds: a person waits too."""


@dataclass
class Reading:
    """What a reading has met so far that kept it from finding something out."""

    errors: list[HomefeedError] = field(default_factory=list)

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """Read one part; an error of it is kept, and the next part is read."""
        try:
            yield
        except HomefeedError as error:
            self.errors.append(error)


def read_status(
    settings: Settings, now: datetime, num: int
) -> tuple[Status, tuple[HomefeedError, ...]]:
    """Return how a deployment is doing, and the errors that kept something from being found out.

    Args:
        settings: The deployment.
        now: The time.
        num: How many cycles and how many alerts at most.
    """
    workspace_uri, reading = storage.to_uri(settings.workspace_location), Reading()
    names: list[str] = []
    cycles: tuple[Cycle, ...] = ()
    alerts: tuple[OutboxAlert, ...] = ()
    broken: tuple[str, ...] = ()
    num_alerts = 0
    has_workspace = next_due = period_days = None
    with reading.part():
        names = run_names(workspace_uri)
        cycles = newest_cycles(workspace_uri, names, settings, num)
        alerts, num_alerts = newest_alerts(workspace_uri, settings, num)
        has_workspace = bool(names) or storage.exists(workspace_uri)
        broken = tuple(incident.sentence for incident in read_open(settings, now))
    with reading.part():
        grid = grid_of(settings)
        next_due, period_days = grid.at_or_after(now), settings.cadence_days
    champion = read_champion(settings, workspace_uri, now, reading)
    status = Status(
        told_at=now,
        workspace_uri=workspace_uri,
        has_workspace=has_workspace,
        champion=champion,
        cycles=cycles,
        num_cycles=len(names),
        alerts=alerts,
        num_alerts=num_alerts,
        broken=broken,
        next_due=next_due,
        period_days=period_days,
        addresses=addresses_of(settings),
        problems=tuple(map(str, reading.errors)),
    )
    return status, tuple(reading.errors)


def read_champion(
    settings: Settings, workspace_uri: str, now: datetime, reading: Reading
) -> Champion:
    """Return what serves by the registry; by the history alone where the registry is silent."""
    name = settings.registered_model
    try:
        with tracking.giving_up_after(MLFLOW_TIMEOUT_S):
            client = tracking.connect(settings.tracking_uri)
            state = reconcile.look_between_moves(client, workspace_uri, name)
    except HomefeedError as error:
        reading.errors.append(error)
        with reading.part():
            last = history.load(workspace_uri, name).last
            return _champion(last.model if last else None, last, now, str(error))
        return Champion(problem=str(error))
    last = state.unsettled.intent.entry if state.unsettled else state.history.last
    found = _champion(state.served, last, now, state.disagreement())
    return found.model_copy(update={"is_confirmed": True})


def _champion(
    model: ModelRef | None, last: HistoryEntry | None, now: datetime, problem: str
) -> Champion:
    if model is None:
        return Champion(problem=problem)
    is_recorded = last is not None and last.model.version == model.version
    return Champion(
        model=model,
        age_days=(now - model.as_of).total_seconds() / 86400,
        since=last.moved_at if last and is_recorded else None,
        problem=problem,
    )
