"""How a deployment is doing: champion, cycles, alerts, schedule, addresses; read, and in lines.

What cannot be reached hides nothing else, and is named. What became of a cycle is read in
`pipelines.cycles`. Tested in tests/pipelines/overview/test_status.py.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.alerts.incidents import find_open
from pipelines.alerts.links import ACCOUNT, airflow_link, mlflow_address
from pipelines.alerts.transports import read_outbox
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen
from pipelines.contracts.cycle import CycleFacts
from pipelines.contracts.errors import HomefeedError
from pipelines.cycles import reading
from pipelines.orchestration.schedule import grid_of
from pipelines.registry import history, reconcile, tracking
from pipelines.settings import Settings

MLFLOW_TIMEOUT_S = 5
"""How long one answer of MLflow is waited for, in seconds: a person waits too."""


def addresses_of(settings: Settings) -> dict[str, str]:
    """Return by its label each address that a person can open.

    MLflow's is the list of the deployment's experiment; the tracking URI without a server.
    """
    return {
        "Airflow": without_password(airflow_link("command line", settings)),
        "MLflow": without_password(mlflow_address(settings.tracking_uri, settings.experiment)),
        "Workspace": storage.to_uri(settings.workspace_location),
        "Event log": storage.to_uri(settings.event_log_location),
    }


def without_password(text: str) -> str:
    """Return a text with `***` in place of the user and password in each address in it.

    Of an address that is broken rather too much is left out than too little.
    """
    return ACCOUNT.sub("***@", text)


class Champion(Frozen):
    """The model that serves, as far as that can be found out."""

    model: ModelRef | None = Field(default=None, description="None: there is none, or not known.")
    age_days: float | None = Field(default=None, description="Days since its as_of.")
    since: AwareDatetime | None = Field(default=None, description="When it began to serve.")
    is_confirmed: bool = Field(
        default=False, description="The registry was asked; otherwise the history alone says so."
    )
    problem: str = Field(default="", description="What is wrong with the answer; '' if nothing.")

    @property
    def lines(self) -> Iterator[str]:
        """Yield the lines that tell of it."""
        found = "none yet" if self.is_confirmed else "none in the history"
        if (model := self.model) is not None:
            found = f"{model.label}, as_of {model.as_of:%Y-%m-%d}, {self.age_days:.1f} days old"
            found += f", serves since {self.since:%Y-%m-%d %H:%M} UTC" if self.since else ""
        yield f"champion: {found}{'' if self.is_confirmed else '; MLflow could not be asked'}"
        if self.is_confirmed and self.problem:
            yield f"  {self.problem}"


class Status(Frozen):
    """How a deployment is doing."""

    told_at: AwareDatetime
    workspace_uri: str
    champion: Champion = Champion()
    cycles: tuple[CycleFacts, ...] = Field(default=(), description="The newest, newest first.")
    num_cycles: int | None = Field(
        default=None, ge=0, description="All that the workspace holds; None: it cannot be read."
    )
    alerts: tuple[AlertReceipt, ...] = Field(default=(), description="The newest, newest first.")
    broken: tuple[str, ...] = Field(
        default=(), description="What has broken cycles and is not seen mended, the oldest first."
    )
    next_due: AwareDatetime | None = Field(default=None, description="Next date of the schedule.")
    period_days: float | None = Field(default=None, description="Days between two of its dates.")
    addresses: tuple[tuple[str, str], ...] = Field(description="(label, address) pairs.")
    problems: tuple[str, ...] = Field(default=(), description="What could not be found out.")


def read_status(
    settings: Settings, now: datetime, num: int
) -> tuple[Status, tuple[HomefeedError, ...]]:
    """Return how a deployment is doing, and the errors that kept something from being found out.

    At most `num` cycles and alerts are read.
    """
    workspace_uri, errors = storage.to_uri(settings.workspace_location), list[HomefeedError]()
    found: dict[str, object] = {"addresses": tuple(addresses_of(settings).items())}

    @contextlib.contextmanager
    def part() -> Iterator[None]:
        try:
            yield
        except HomefeedError as error:
            errors.append(error)

    with part():
        names = reading.run_names(workspace_uri)
        found["cycles"] = reading.newest_cycles(workspace_uri, names, settings, num)
        found["num_cycles"] = len(names)
        told = [receipt for _, receipt, _ in read_outbox(settings)]
        found["alerts"] = tuple(reversed(told[-num:]))
        found["broken"] = tuple(each.sentence for each in find_open(settings).values())
    with part():
        found["next_due"] = grid_of(settings).at_or_after(now)
        found["period_days"] = settings.cadence_days
    found["champion"], silent = _champion_at(workspace_uri, settings, now)
    errors += silent
    found["problems"] = tuple(map(str, errors))
    return Status(told_at=now, workspace_uri=workspace_uri, **found), tuple(errors)  # type: ignore[arg-type]


def _champion_at(
    workspace_uri: str, settings: Settings, now: datetime
) -> tuple[Champion, list[HomefeedError]]:
    """Return who serves by the registry, or by the history where MLflow is silent, and why."""
    name, errors, last = settings.registered_model, list[HomefeedError](), None
    try:
        with tracking.giving_up_after(MLFLOW_TIMEOUT_S):
            client = tracking.connect(settings.tracking_uri)
            state = reconcile.look_between_moves(client, workspace_uri, name)
        model, last, problem = state.served, state.history.last, state.disagreement()
    except HomefeedError as error:
        errors.append(error)
        try:
            last = history.load(workspace_uri, name).last
        except HomefeedError as unread:
            errors.append(unread)
        model, problem = last.model if last else None, str(error)
    is_recorded = last is not None and model is not None and last.model.version == model.version
    champion = Champion(
        model=model,
        age_days=(now - model.as_of).total_seconds() / 86400 if model else None,
        since=last.moved_at if last and is_recorded else None,
        is_confirmed=not errors,
        problem=problem,
    )
    return champion, errors


def lines_of(status: Status) -> Iterator[str]:
    """Yield the lines; one that belongs to the one before it begins with two spaces."""
    yield from status.champion.lines
    known = "not known" if status.num_cycles is None else f"{status.num_cycles}, the newest first"
    yield f"cycles of workspace {status.workspace_uri}: {known}"
    for cycle in status.cycles:
        yield from reading.lines_of(cycle)
    if status.broken:
        yield f"broken, and not mended by a cycle that has ended: {len(status.broken)}"
    yield from (f"  {sentence}" for sentence in status.broken)
    if status.alerts:
        yield "alerts in the workspace's outbox, the newest first:"
    for receipt in status.alerts:
        if alert := receipt.alert:
            lacking = f"; waits for {', '.join(receipt.waiting_for)}" if receipt.waiting_for else ""
            yield f"  {alert.at:%Y-%m-%d %H:%M} UTC  {alert.kind}  {alert.title}{lacking}"
    if status.next_due is not None:
        days = (status.next_due - status.told_at).total_seconds() / 86400
        yield (
            f"next due: {status.next_due:%Y-%m-%d %H:%M} UTC, in {days:.1f} days (every "
            f"{status.period_days:g} days, where Airflow runs and the DAG is not paused)"
        )
    yield from (f"{label}: {address}" for label, address in status.addresses)
    # The first one is the error that the command ends with.
    yield from (f"not found out: {problem}" for problem in status.problems[1:])
