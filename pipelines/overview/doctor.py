"""What is wrong with a deployment, found before a cycle finds it, by the questions a cycle asks.

A workspace in an object store gets one small file, which is deleted again; nothing else is written,
and no secret is shown. Tested in tests/pipelines/overview/test_doctor.py.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from datetime import datetime

import httpx
from pydantic import Field

from pipelines import deletion, storage
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.orchestration.schedule import grid_of
from pipelines.overview.status import without_password
from pipelines.preconditions import cycle
from pipelines.recipes import make_recipe
from pipelines.registry import tracking
from pipelines.settings import Settings

_TIMEOUT_S = 5
_HEALTH = "/api/v2/monitor/health"
_PREFIX = "HOMEFEED_"
_NO_AIRFLOW = Settings.model_fields["airflow_url"].default
"""The address that is set where nobody has said where Airflow is."""


class Diagnosis(Frozen):
    """What was asked about a deployment, and what is wrong with it."""

    settings: tuple[str, ...] = Field(description="Variables that differ from their defaults.")
    asked: tuple[str, ...] = Field(description="What was asked, and where, in order.")
    wrong: tuple[str, ...] = Field(description="What must be changed, a sentence each.")


def diagnose(now: datetime) -> Diagnosis:
    """Return what is wrong; where the recipe is, the questions that need it are left out."""
    asked, wrong = list[str](), list[str]()

    @contextlib.contextmanager
    def asking(what: str, where: str = "") -> Iterator[None]:
        asked.append(f"{what} ({where})" if where else what)
        try:
            with tracking.giving_up_after(_TIMEOUT_S):
                yield
        except HomefeedError as error:
            wrong.append(str(error))

    try:
        settings = Settings()
    except ConfigurationError as error:
        return Diagnosis(settings=(), asked=("settings",), wrong=(without_password(str(error)),))
    workspace_uri, url = storage.to_uri(settings.workspace_location), settings.airflow_url
    with asking("workspace is writable", workspace_uri):
        try_writing(workspace_uri)
    with asking("schedule", settings.schedule_start):
        grid_of(settings)
    beginning = None
    with asking("recipe", settings.recipe):
        beginning = cycle.Asked.beforehand(make_recipe(settings.recipe), settings, now)
    for what, where, ask in (
        ("recipe's verdict and functions", settings.recipe, cycle.ask_recipe),
        ("hardware", settings.accelerator, cycle.ask_hardware),
        ("event log", storage.to_uri(settings.event_log_location), cycle.ask_event_log),
        ("MLflow", without_password(settings.tracking_uri), cycle.ask_tracking),
        ("record of who serves", settings.registered_model, cycle.ask_record),
    ):
        # Without MLflow nothing can be asked about the record.
        if beginning and (ask is not cycle.ask_record or beginning.client):
            with asking(what, where):
                ask(beginning)
    if url != _NO_AIRFLOW:
        with asking("Airflow", without_password(url)):
            ask_airflow(url)
    fields = Settings.model_fields.items()
    differing = [name for name, field in fields if getattr(settings, name) != field.default]
    names = tuple(_PREFIX + name.upper() for name in differing)
    return Diagnosis(settings=names, asked=tuple(asked), wrong=tuple(wrong))


def try_writing(uri: str) -> None:
    """Try whether a workspace can be written to.

    Raises:
        HomefeedError: it cannot, or has no conditional writes.
    """
    if not storage.is_local(uri):
        probe = storage.join(uri, f".doctor-{uuid.uuid4().hex}")
        storage.write_new(probe, b"")
        deletion.remove(probe)
        return
    path = storage.local_path(uri)
    there = next(each for each in (path, *path.parents) if os.path.exists(each))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        found = "is not writable for this user" if there.is_dir() else "is a file"
        raise ConfigurationError(
            f"workspace {uri} cannot be written to: {there} {found}; expected a folder that this "
            f"user may write to; change that or set HOMEFEED_WORKSPACE to another place"
        )


def ask_airflow(url: str) -> None:
    """Ask whether an Airflow answers at an address.

    Raises:
        ConfigurationError: none does, or a part of it is not well.
    """
    shown, is_here = without_password(url), "//127.0.0.1" in url or "//localhost" in url
    try:
        address = f"{url.rstrip('/')}{_HEALTH}"
        answer = httpx.get(address, timeout=_TIMEOUT_S, trust_env=not is_here)
        parts = {name: part.get("status") for name, part in answer.json().items()}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"no Airflow answers at {shown} ({type(error).__name__}); expected its API at "
            f"{_HEALTH}; start it (`make ui` on one machine) or correct HOMEFEED_AIRFLOW_URL"
        ) from None
    is_well = all(status in ("healthy", None) for status in parts.values())
    if answer.status_code != httpx.codes.OK or not is_well or "scheduler" not in parts:
        raise ConfigurationError(
            f"Airflow at {shown} is not well: status {answer.status_code}, parts {parts}; expected "
            f"200 and all parts healthy; look into their logs"
        )


def lines_of(found: Diagnosis) -> Iterator[str]:
    """Yield the lines that tell of it."""
    yield f"settings that differ from their defaults: {', '.join(found.settings) or 'none'}"
    yield from (f"asked: {each}" for each in found.asked)
    yield from (f"wrong: {sentence}" for sentence in found.wrong)
    if not found.wrong:
        yield "nothing is wrong"
