"""What is wrong with a deployment, found before a cycle finds it, by the questions a cycle asks.

A workspace in an object store gets one small file, which is deleted again; nothing else is written,
and no secret is shown. Tested in tests/pipelines/overview/test_doctor.py.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
from pydantic import Field

from pipelines import deletion, storage
from pipelines.alerts.transports import ask_transports
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.orchestration.schedule import grid_of
from pipelines.overview.status import without_password
from pipelines.preconditions import cycle
from pipelines.recipes import make_recipe
from pipelines.registry import registry, tracking
from pipelines.settings import Settings

_TIMEOUT_S = 5
_HEALTH = "/api/v2/monitor/health"
_QUESTIONS = (
    *(cycle.ask_recipe, cycle.ask_hardware, cycle.ask_event_log),
    *(cycle.ask_tracking, cycle.ask_record),
)
"""Of a cycle's, those that need no day."""


class Diagnosis(Frozen):
    """What is wrong with a deployment, and what is set in it."""

    settings: tuple[str, ...] = Field(description="Variables that differ from their defaults.")
    wrong: tuple[str, ...] = Field(description="What must be changed, a sentence each.")


def diagnose(now: datetime) -> Diagnosis:
    """Return what is wrong; where the recipe is, the questions that need it are left out."""
    wrong = list[str]()

    @contextlib.contextmanager
    def asking() -> Iterator[None]:
        try:
            with tracking.giving_up_after(_TIMEOUT_S):
                yield
        except HomefeedError as error:
            wrong.append(str(error))

    try:
        settings = Settings()
    except ConfigurationError as error:
        return Diagnosis(settings=(), wrong=(without_password(str(error)),))
    with asking():
        try_writing(storage.to_uri(settings.workspace_location))
    with asking():
        grid_of(settings)
    with asking():
        beginning = cycle.Asked.beforehand(make_recipe(settings.recipe), settings, now)
        for ask in _QUESTIONS:
            with asking():
                ask(beginning)
        if (client := beginning.client) and (record := beginning.record) and record.served:
            with tempfile.TemporaryDirectory(prefix="homefeed-doctor-") as folder, asking():
                registry.download_version(client, record.served, Path(folder))
    if settings.airflow_url != Settings.model_fields["airflow_url"].default:
        with asking():
            ask_airflow(settings.airflow_url)
    with asking():
        ask_transports(settings)
    fields = Settings.model_fields.items()
    differing = (name for name, field in fields if getattr(settings, name) != field.default)
    names = tuple(f"HOMEFEED_{name.upper()}" for name in differing)
    return Diagnosis(settings=names, wrong=tuple(wrong))


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
    if not os.access(f"{there}/", os.W_OK | os.X_OK):  # which a file is not
        raise ConfigurationError(
            f"workspace {uri} cannot be written to; expected {there} to be a folder that this user "
            f"may write to; change that or set HOMEFEED_WORKSPACE to another place"
        )


def ask_airflow(url: str) -> None:
    """Ask whether an Airflow answers at an address.

    Raises:
        ConfigurationError: none does, or a part of it is not well.
    """
    is_here, is_well = "//127.0.0.1" in url or "//localhost" in url, False
    try:
        address = f"{url.rstrip('/')}{_HEALTH}"
        answer = httpx.get(address, timeout=_TIMEOUT_S, trust_env=not is_here)
        parts = {name: part.get("status") for name, part in answer.json().items()}
        found, said = str(parts), {"healthy", None}.issuperset(parts.values())
        is_well = answer.is_success and said and "scheduler" in parts
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        found = type(error).__name__
    if not is_well:
        raise ConfigurationError(
            f"Airflow at {without_password(url)} is not well: found {found} at {_HEALTH}; expected "
            f"all parts healthy; start it (`make ui` on one machine), look into the parts' logs, "
            f"or correct HOMEFEED_AIRFLOW_URL"
        )


def lines_of(found: Diagnosis) -> Iterator[str]:
    """Yield the lines that tell of it."""
    yield f"settings that differ from their defaults: {', '.join(found.settings) or 'none'}"
    yield from (f"wrong: {sentence}" for sentence in found.wrong)
    if not found.wrong:
        yield "nothing is wrong"
