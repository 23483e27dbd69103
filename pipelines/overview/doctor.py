"""What is wrong with a deployment, found before a cycle finds it, by the questions a cycle asks.

A workspace in an object store gets one small file, which is deleted again; nothing else is written,
and no secret is shown. Tested in tests/pipelines/overview/test_doctor.py.
"""

import difflib
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path

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

MIN_FREE_GIB = 1.0
"""Below so much free disk no cycle of any size ends well."""
PACKAGES = (
    *("torch", "pytorch-lightning", "mlflow"),
    *("apache-airflow-core", "pyarrow", "great-expectations"),
)
"""Results depend on them."""
_TIMEOUT_S = 5
_HEALTH = "/api/v2/monitor/health"
_PREFIX = "HOMEFEED_"
_SECRET = re.compile(r"secret|passw|token|key|credential", re.IGNORECASE)
_ALIKE = 0.85
"""How like a setting's name another name must be to be taken for a slip of the pen."""
_NO_AIRFLOW = Settings.model_fields["airflow_url"].default
"""The address that is set where nobody has said where Airflow is."""


class Check(Frozen):
    """One thing that was tried."""

    what: str
    where: str
    is_good: bool
    said: str = Field(description="What was found; where that is wrong, what to change.")


class Diagnosis(Frozen):
    """What is set, reachable, writable and installed here, and what is wrong."""

    settings: tuple[str, ...] = Field(description="Variables that differ from their defaults.")
    checks: tuple[Check, ...]
    versions: dict[str, str] = Field(
        description="Python's, and by name those of packages that results depend on; '' if missing."
    )
    wrong: tuple[str, ...] = Field(description="What must be changed, a sentence each.")
    notes: tuple[str, ...] = Field(description="Variables that are nearly a setting.")


def diagnose(now: datetime) -> Diagnosis:
    """Return what is set, reachable, writable and installed, and what is wrong."""
    settings, differing, wrong, notes = None, list[str](), list[str](), list[str]()
    try:
        settings = Settings()
    except ConfigurationError as error:
        wrong.append(_without_secrets(str(error)))
    else:
        fields = Settings.model_fields.items()
        differing = [name for name, field in fields if getattr(settings, name) != field.default]
    checks = [*(_checks(settings, now) if settings else ()), *_free_disks(settings)]
    wrong += [check.said for check in checks if not check.is_good]
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(set(os.environ) - set(known)):
        slips = difflib.get_close_matches(name, known, 1, _ALIKE)
        if name.startswith(_PREFIX) and slips:
            notes.append(f"{name} is set and is no setting; rename it if {slips[0]} is meant")
    there = {each.name.lower(): each.version for each in metadata.distributions()}
    return Diagnosis(
        settings=tuple(_PREFIX + name.upper() for name in differing),
        checks=tuple(checks),
        versions={"Python": platform.python_version()}
        | {name: there.get(name, "") for name in PACKAGES},
        wrong=tuple(wrong),
        notes=tuple(notes),
    )


def _tried(what: str, where: str, run: Callable[[], str | None]) -> Check:
    try:
        said = run() or "as it should be"
    except HomefeedError as error:
        return Check(what=what, where=where, is_good=False, said=str(error))
    return Check(what=what, where=where, is_good=True, said=said)


def _checks(settings: Settings, now: datetime) -> Iterator[Check]:
    """Try everything; where the recipe is wrong, the questions that need it are left out."""
    workspace_uri, recipe = storage.to_uri(settings.workspace_location), settings.recipe
    yield _tried("workspace is writable", workspace_uri, lambda: try_writing(workspace_uri))
    yield _tried(
        *("schedule", settings.schedule_start),
        lambda: f"next due {grid_of(settings).at_or_after(now):%Y-%m-%d %H:%M} UTC",
    )
    try:
        config = make_recipe(recipe)
        asked = cycle.Asked.beforehand(config, settings, now)
    except HomefeedError as error:
        yield Check(what="recipe", where=recipe, is_good=False, said=str(error))
    else:
        tracking_uri = without_password(settings.tracking_uri)
        for what, where, ask in (
            ("recipe", recipe, cycle.ask_recipe),
            ("recipe's own functions", recipe, cycle.ask_functions),
            ("hardware", settings.accelerator, cycle.ask_hardware),
            ("event log", storage.to_uri(settings.event_log_location), cycle.ask_event_log),
            ("MLflow answers", tracking_uri, cycle.ask_tracking),
            ("record of who serves", settings.registered_model, cycle.ask_record),
        ):
            if ask is not cycle.ask_record or asked.client is not None:
                with tracking.giving_up_after(_TIMEOUT_S):
                    yield _tried(what, where, lambda ask=ask: ask(asked))  # type: ignore[misc]
    if (url := settings.airflow_url) != _NO_AIRFLOW:
        yield _tried("Airflow answers", without_password(url), lambda: ask_airflow(url))


def try_writing(uri: str) -> str:
    """Say how a workspace can be written to.

    Raises:
        HomefeedError: it cannot, or has no conditional writes.
    """
    if not storage.is_local(uri):
        probe = storage.join(uri, f".doctor-{uuid.uuid4().hex}")
        storage.write_new(probe, b"")
        deletion.remove(probe)
        return "a file was written and deleted"
    path = storage.local_path(uri)
    there = _nearest(path)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        found = "is not writable for this user" if there.is_dir() else "is a file"
        raise ConfigurationError(
            f"workspace {uri} cannot be written to: {there} {found}; expected a folder that this "
            f"user may write to; change that or set HOMEFEED_WORKSPACE to another place"
        )
    return "it is there" if there == path else "the first cycle will make it"


def ask_airflow(url: str) -> str:
    """Say that an Airflow answers at an address.

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
    ill = sorted(name for name, status in parts.items() if status not in ("healthy", None))
    if answer.status_code != httpx.codes.OK or ill or "scheduler" not in parts:
        raise ConfigurationError(
            f"Airflow at {shown} is not well: status {answer.status_code}, "
            f"{', '.join(ill) or 'no part'} is unhealthy; expected all parts healthy; look into "
            f"their logs"
        )
    return "all its parts are healthy"


def _without_secrets(message: str) -> str:
    """Return a message about the environment without the values that may hold a secret."""
    for name, value in os.environ.items():
        if name.startswith(_PREFIX) and (_SECRET.search(value) or "@" in value):
            message = message.replace(repr(value), "'***'")
    return without_password(message)


def _free_disks(settings: Settings | None) -> Iterator[Check]:
    """Yield whether each local disk that is written to has room, each disk once."""
    places = [tempfile.gettempdir(), os.getcwd()]
    if settings is not None:
        named = (settings.home, settings.workspace_location, settings.work_folder)
        uris = [storage.to_uri(place) for place in named if place]
        places = [str(storage.local_path(uri)) for uri in uris if storage.is_local(uri)]
        places.append(tempfile.gettempdir())
    paths = [_nearest(Path(place)) for place in places]
    for path in {each.stat().st_dev: each for each in reversed(paths)}.values():
        free = f"{shutil.disk_usage(path).free / 2**30:.1f} GiB are free at {path}"
        is_good = shutil.disk_usage(path).free >= MIN_FREE_GIB * 2**30
        advice = "free space (`homefeed gc --dry-run` lists what of the workspace may go)"
        said = free if is_good else f"{free}; expected {MIN_FREE_GIB:g} and more; {advice}"
        yield Check(what="room on the disk", where=str(path), is_good=is_good, said=said)


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    absolute = path.expanduser().absolute()
    return next(each for each in (absolute, *absolute.parents) if os.path.exists(each))


def lines_of(found: Diagnosis) -> Iterator[str]:
    """Yield the lines; one that belongs to the one before it begins with two spaces."""
    yield f"settings that differ from their defaults: {', '.join(found.settings) or 'none'}"
    yield "checks:"
    for check in found.checks:
        said = f": {check.said}" if check.is_good else ""
        yield f"  {'good ' if check.is_good else 'wrong'}  {check.what} ({check.where}){said}"
    told = (f"{name} {each or 'is not installed'}" for name, each in found.versions.items())
    yield f"versions: {', '.join(told)}"
    yield from (f"note: {note}" for note in found.notes)
    yield from (f"wrong: {sentence}" for sentence in found.wrong)
    if not found.wrong:
        yield "nothing is wrong"
