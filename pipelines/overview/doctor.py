"""Finds out what is wrong with a deployment before a cycle does, by the questions a cycle asks.

A workspace in an object store gets one small file, which is deleted again; nothing else is written.
Tested in tests/pipelines/overview/test_doctor.py.
"""

import os
import platform
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import httpx

from pipelines import storage
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.local.layout import default_home
from pipelines.local.ports import last_ports
from pipelines.orchestration.grid import grid_of
from pipelines.overview.addresses import without_password
from pipelines.overview.diagnosis import Check, Diagnosis
from pipelines.overview.machine import find_constraints, free_disks, nearest, read_versions
from pipelines.overview.set_values import differing, slips, without_secrets
from pipelines.preconditions import cycle
from pipelines.preconditions.cycle import Asked
from pipelines.recipes import canonical, make_recipe
from pipelines.registry import tracking
from pipelines.settings import Settings

MIN_FREE_GIB = 1.0
"""Below so much free disk no cycle of any size ends well."""
_TIMEOUT_S = 5
_HEALTH = "/api/v2/monitor/health"


@dataclass(frozen=True)
class Trial:
    """Something to try: it returns what was found, or raises what is wrong."""

    what: str
    where: str
    run: Callable[[], str]


def diagnose(now: datetime) -> Diagnosis:
    """Return what is set, reachable, writable and installed, and what is wrong."""
    settings, checks, wrong, notes = None, [], [], list(slips())
    try:
        settings = Settings()
    except ConfigurationError as error:
        wrong.append(without_secrets(str(error)))
    if settings is not None:
        checks = [_try(trial) for trial in _trials(settings, now)]
        wrong += [check.said for check in checks if not check.is_good]
        notes += _notes(settings)
    constraints, disks = find_constraints(), free_disks(settings)
    versions = read_versions(constraints)
    wrong += [
        f"{disk.free_gib:.1f} GiB are free at {disk.path}; expected {MIN_FREE_GIB:g} and more; "
        f"free space (`homefeed gc --dry-run` lists what of the workspace may go)"
        for disk in disks
        if disk.free_gib < MIN_FREE_GIB
    ]
    notes += [
        f"{each.package} {each.installed or 'is not installed'} and was tested as {each.tested}; "
        f"if something is odd, install the versions of {constraints}"
        for each in versions
        if not each.is_as_tested
    ]
    return Diagnosis(
        settings=differing(settings) if settings else (),
        checks=tuple(checks),
        python=platform.python_version(),
        versions=versions,
        constraints=str(constraints or ""),
        disks=disks,
        wrong=tuple(wrong),
        notes=tuple(notes),
    )


def _try(trial: Trial) -> Check:
    try:
        said, is_good = trial.run(), True
    except HomefeedError as error:
        said, is_good = str(error), False
    return Check(what=trial.what, where=trial.where, is_good=is_good, said=said)


def _trials(settings: Settings, now: datetime) -> Iterator[Trial]:
    """Yield what is tried; where the recipe is wrong, the questions that need it are left out."""
    workspace_uri = storage.to_uri(settings.workspace_location)
    event_log_uri = storage.to_uri(settings.event_log_location)
    yield Trial("workspace is writable", workspace_uri, lambda: try_writing(workspace_uri))
    yield Trial("schedule", settings.schedule_start, lambda: _next_date(settings, now))
    try:
        asked = _asked(settings, now)
    except HomefeedError as error:
        yield Trial("recipe", settings.recipe, _raising(error))
    else:
        mlflow, name = without_password(settings.tracking_uri), settings.registered_model
        yield Trial("recipe", settings.recipe, _asking(asked, cycle.ask_recipe))
        yield Trial("recipe's own functions", settings.recipe, _asking(asked, cycle.ask_functions))
        yield Trial("hardware", settings.accelerator, _asking(asked, cycle.ask_hardware))
        yield Trial("event log", event_log_uri, _asking(asked, cycle.ask_event_log))
        yield Trial("MLflow answers", mlflow, _asking(asked, cycle.ask_tracking))
        if asked.client is not None:
            yield Trial("record of who serves", name, _asking(asked, cycle.ask_record))
    if settings.airflow_url != Settings.model_fields["airflow_url"].default:
        airflow = without_password(settings.airflow_url)
        yield Trial("Airflow answers", airflow, lambda: ask_airflow(settings.airflow_url))


def _asked(settings: Settings, now: datetime) -> Asked:
    request = RunRequest(
        recipe=canonical(settings.recipe),
        as_of=now,
        now=now,
        may_promote=True,
        num_devices=1,
        accelerator=settings.accelerator,
        trigger="doctor",
    )
    return Asked(request, make_recipe(settings.recipe), settings, may_settle=False)


def _asking(asked: Asked, ask: Callable[[Asked], None]) -> Callable[[], str]:
    def run() -> str:
        with tracking.giving_up_after(_TIMEOUT_S):
            ask(asked)
        return "as it should be"

    return run


def _next_date(settings: Settings, now: datetime) -> str:
    return f"next due {grid_of(settings).at_or_after(now):%Y-%m-%d %H:%M} UTC"


def _raising(error: HomefeedError) -> Callable[[], str]:
    def run() -> str:
        raise error

    return run


def try_writing(uri: str) -> str:
    """Say how a workspace can be written to.

    Raises:
        HomefeedError: it cannot, or has no conditional writes.
    """
    if not storage.is_local(uri):
        probe = storage.join(uri, f".doctor-{uuid.uuid4().hex}")
        storage.write_new(probe, b"")
        storage.remove(probe)
        return "a file was written and deleted"
    path = storage.local_path(uri)
    there = nearest(path)
    if not there.is_dir():
        raise ConfigurationError(
            f"workspace {uri} cannot be made: {there} is a file; expected a folder; set "
            f"HOMEFEED_WORKSPACE to another place"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"workspace {uri}: {there} is not writable for this user; expected a folder that is; "
            f"change its permissions or set HOMEFEED_WORKSPACE to another place"
        )
    return "it is there" if there == path else "the first cycle will make it"


def ask_airflow(url: str) -> str:
    """Say that an Airflow answers at an address.

    Raises:
        ConfigurationError: none does, or a part of it is not well.
    """
    shown, is_here = without_password(url), "//127.0.0.1" in url or "//localhost" in url
    advice = "start it (`make ui` on one machine) or correct HOMEFEED_AIRFLOW_URL"
    try:
        address = f"{url.rstrip('/')}{_HEALTH}"
        answer = httpx.get(address, timeout=_TIMEOUT_S, trust_env=not is_here)
        parts = {name: part.get("status") for name, part in answer.json().items()}
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"no Airflow answers at {shown} ({type(error).__name__}); expected its API; {advice}"
        ) from None
    except (ValueError, AttributeError):
        raise ConfigurationError(
            f"what answers at {shown} is no Airflow; expected its API at {_HEALTH}; {advice}"
        ) from None
    ill = sorted(name for name, status in parts.items() if status not in ("healthy", None))
    if answer.status_code != httpx.codes.OK or ill or "scheduler" not in parts:
        raise ConfigurationError(
            f"Airflow at {shown} is not well: status {answer.status_code}, "
            f"{', '.join(ill) or 'no part'} is unhealthy; expected all parts healthy; look into "
            f"their logs"
        )
    return "all its parts are healthy"


def _notes(settings: Settings) -> Iterator[str]:
    """Yield what is wrong only for some deployments."""
    default = Settings.model_fields["airflow_url"].default
    if settings.airflow_url == default:
        try:
            ask_airflow(default)
        except ConfigurationError as error:
            yield f"{error}; `homefeed retrain` needs none"
    home = default_home()
    ports = last_ports(home)
    if home.ports.exists() and settings.tracking_uri != ports.mlflow_url:
        yield (
            f"the local services of {home.path} last used {ports.mlflow_url} for MLflow, and "
            f"HOMEFEED_TRACKING_URI is {without_password(settings.tracking_uri)}; set it to the "
            f"former if they are meant"
        )
