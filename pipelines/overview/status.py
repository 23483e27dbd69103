"""How a deployment is doing: champion, cycles, alerts, schedule, addresses; read, and in lines.

What cannot be reached hides nothing else, and is named. What became of a cycle is read in
`pipelines.cycles`. Tested in tests/pipelines/overview/test_status.py.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, Field

from pipelines.alerts.incidents import find_open
from pipelines.alerts.links import ACCOUNT, airflow_link, mlflow_address
from pipelines.alerts.transports import read_outbox
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen
from pipelines.contracts.cycle import CycleFacts
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.monitor import Watch
from pipelines.cycles import reading
from pipelines.monitor.watching import read_watch
from pipelines.orchestration.schedule import grid_of
from pipelines.registry import history, reconcile, tracking
from pipelines.serving.servers import ServerNote, read_servers
from pipelines.settings import Settings

MLFLOW_TIMEOUT_S = 5
"""How long one answer of MLflow is waited for, in seconds: a person waits too."""


def addresses_of(settings: Settings) -> dict[str, str]:
    """Return by its label each address that a person can open.

    MLflow's is its list of experiments; the tracking URI without a server.
    """
    return {
        "Airflow": airflow_link("command line", settings),
        "MLflow": ACCOUNT.sub("***@", mlflow_address(settings.tracking_uri)),
        "Workspace": settings.workspace_uri,
        "Event log": settings.event_log_uri,
    }


class Champion(Frozen):
    """The model that serves, as far as that can be found out."""

    model: ModelRef | None = Field(default=None, description="None: there is none, or not known.")
    since: AwareDatetime | None = Field(default=None, description="When it began to serve.")
    is_confirmed: bool = Field(
        default=False, description="The registry was asked; otherwise the history alone says so."
    )
    problem: str = Field(default="", description="What is wrong with the answer; '' if nothing.")


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
    servers: tuple[ServerNote, ...] = Field(default=(), description="Those that are up.")
    next_due: AwareDatetime | None = Field(default=None, description="Next date of the schedule.")
    watch: Watch | None = Field(default=None, description="Of the monitor; None: it never ran.")
    addresses: dict[str, str] = Field(description="By label.")
    problems: tuple[str, ...] = Field(default=(), description="What could not be found out.")


def read_status(
    settings: Settings, now: datetime, num: int
) -> tuple[Status, tuple[HomefeedError, ...]]:
    """Return how a deployment is doing, and the errors that kept something from being found out.

    At most `num` cycles and alerts are read. Who serves is the registry's answer, or the history's
    where MLflow is silent.
    """
    workspace_uri, errors = settings.workspace_uri, list[HomefeedError]()
    found: dict[str, Any] = {"workspace_uri": workspace_uri, "addresses": addresses_of(settings)}

    @contextlib.contextmanager
    def part() -> Iterator[None]:
        try:
            yield
        except HomefeedError as error:
            errors.append(error)

    def champion(model: ModelRef | None, last: history.Move | None, **known: Any) -> None:
        since = last.moved_at if model and last and last.model.version == model.version else None
        found["champion"] = Champion(model=model, since=since, **known)

    with part():
        names = reading.run_names(workspace_uri)
        found["cycles"] = reading.newest_cycles(workspace_uri, names, settings, num)
        found["num_cycles"] = len(names)
        told = [receipt for receipt, _ in read_outbox(settings)]
        found["alerts"] = tuple(reversed(told[-num:]))
        found["broken"] = tuple(each.sentence for each in find_open(settings).values())
    with part():
        found["servers"] = read_servers(workspace_uri, now)
    with part():
        found["watch"] = read_watch(settings)
    with part():
        found["next_due"] = grid_of(settings).at_or_after(now)
    name = settings.registered_model
    with part(), tracking.giving_up_after(MLFLOW_TIMEOUT_S):
        client = tracking.connect(settings.tracking_uri)
        state = reconcile.look_between_moves(client, workspace_uri, name)
        problem = state.disagreement()
        champion(state.served, state.history.in_time.last, is_confirmed=True, problem=problem)
    if "champion" not in found:
        with part():
            last = history.load(workspace_uri, name).in_time.last
            champion(last.model if last else None, last)
    return Status(told_at=now, problems=tuple(map(str, errors)), **found), tuple(errors)


def lines_of(status: Status) -> Iterator[str]:
    """Yield the lines; one that belongs to the one before it begins with two spaces."""
    champion = status.champion
    said = "none yet" if champion.is_confirmed else "none in the history"
    if (model := champion.model) is not None:
        since = f", serves since {champion.since:%Y-%m-%d %H:%M} UTC" if champion.since else ""
        said = f"{model.label}, as_of {model.as_of:%Y-%m-%d}{since}"
    yield f"champion: {said}{'' if champion.is_confirmed else '; MLflow could not be asked'}"
    if champion.problem:
        yield f"  {champion.problem}"
    if champion.model:
        said = status.watch.sentence if status.watch else "never ran (`homefeed monitor`)"
        yield f"  {(status.told_at - champion.model.as_of).days} days old; monitor: {said}"
    for server in status.servers:
        serves = server.model.label if server.model else "no model yet"
        yield f"server {server.address}: {serves}, up since {server.since:%Y-%m-%d %H:%M} UTC"
        yield from (f"  {trouble}" for trouble in server.troubles)
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
        yield f"next due: {status.next_due:%Y-%m-%d %H:%M} UTC, where Airflow runs the DAG unpaused"
    yield from (f"{label}: {address}" for label, address in status.addresses.items())
    # The first one is the error that the command ends with.
    yield from (f"not found out: {problem}" for problem in status.problems[1:])
