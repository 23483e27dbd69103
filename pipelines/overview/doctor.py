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

import pipelines
from pipelines import deletion, storage
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.local.home import default_home, last_ports
from pipelines.orchestration.grid import grid_of
from pipelines.overview.addresses import without_password
from pipelines.preconditions import cycle
from pipelines.preconditions.cycle import Asked
from pipelines.recipes import canonical, make_recipe
from pipelines.registry import tracking
from pipelines.settings import Settings

MIN_FREE_GIB = 1.0
"""Below so much free disk no cycle of any size ends well."""
PACKAGES = (
    "torch",
    "pytorch-lightning",
    "mlflow",
    "apache-airflow-core",
    "pyarrow",
    "great-expectations",
)
"""Results depend on them."""
_TIMEOUT_S = 5
_HEALTH = "/api/v2/monitor/health"
_PREFIX = "HOMEFEED_"
_SECRET = re.compile(r"secret|passw|token|key|credential", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"([\w.-]*(?:secret|passw|token|key|credential)[\w.-]*)=[^\s'\"]+", re.IGNORECASE
)
"""An option of a command or of Java that is given a secret."""
_PLAIN = ("home", "event_log", "workspace", "recipe")
"""Settings whose own check refuses keys in them."""
_ALIKE = 0.85
"""How like a setting's name another name must be to be taken for a slip of the pen."""


class Setting(Frozen):
    """A setting that differs from its default."""

    name: str = Field(description="The environment variable.")
    value: str = Field(description="Its value; a secret in it is '***'.")


class Check(Frozen):
    """One thing that was tried."""

    what: str
    where: str
    is_good: bool
    said: str = Field(description="What was found; where that is wrong, what to change.")


class Version(Frozen):
    """A package that results depend on."""

    package: str
    installed: str = Field(description="'' where it is not installed.")
    tested: str = Field(description="Version in constraints.txt; '' where it names none.")

    @property
    def is_as_tested(self) -> bool:
        """Return whether it is the tested version, as far as that is known."""
        return self.tested in ("", self.installed)


class Disk(Frozen):
    """A disk that something is written to."""

    path: str
    free_gib: float


class Diagnosis(Frozen):
    """What is set, reachable, writable and installed here, and what is wrong."""

    settings: tuple[Setting, ...]
    checks: tuple[Check, ...]
    python: str
    versions: tuple[Version, ...]
    constraints: str = Field(description="File that the versions are held against; '' if none.")
    disks: tuple[Disk, ...]
    wrong: tuple[str, ...] = Field(description="What must be changed, a sentence each.")
    notes: tuple[str, ...] = Field(description="What may be meant so and may not.")


def diagnose(now: datetime) -> Diagnosis:
    """Return what is set, reachable, writable and installed, and what is wrong."""
    settings, checks, wrong, notes = None, list[Check](), list[str](), list(_slips())
    try:
        settings = Settings()
    except ConfigurationError as error:
        wrong.append(_without_secrets(str(error)))
    if settings is not None:
        checks = list(_checks(settings, now))
        wrong += [check.said for check in checks if not check.is_good]
        notes += _notes(settings)
    [package] = pipelines.__path__
    places = (Path(package).parent / "constraints.txt", Path.cwd() / "constraints.txt")
    constraints = next(filter(Path.is_file, places), None)
    versions, disks = read_versions(constraints), free_disks(settings)
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
        settings=_differing(settings) if settings else (),
        checks=tuple(checks),
        python=platform.python_version(),
        versions=versions,
        constraints=str(constraints or ""),
        disks=disks,
        wrong=tuple(wrong),
        notes=tuple(notes),
    )


def _checks(settings: Settings, now: datetime) -> Iterator[Check]:
    """Try everything; where the recipe is wrong, the questions that need it are left out."""

    def tried(what: str, where: str, run: Callable[[], str]) -> Check:
        try:
            return Check(what=what, where=where, is_good=True, said=run())
        except HomefeedError as error:
            return Check(what=what, where=where, is_good=False, said=str(error))

    def next_date() -> str:
        return f"next due {grid_of(settings).at_or_after(now):%Y-%m-%d %H:%M} UTC"

    workspace_uri = storage.to_uri(settings.workspace_location)
    event_log_uri = storage.to_uri(settings.event_log_location)
    yield tried("workspace is writable", workspace_uri, lambda: try_writing(workspace_uri))
    yield tried("schedule", settings.schedule_start, next_date)
    try:
        request = RunRequest(
            recipe=canonical(settings.recipe),
            as_of=now,
            now=now,
            may_promote=True,
            num_devices=1,
            accelerator=settings.accelerator,
            trigger="doctor",
        )
        asked = Asked(request, make_recipe(settings.recipe), settings, may_settle=False)
    except HomefeedError as error:
        yield Check(what="recipe", where=settings.recipe, is_good=False, said=str(error))
    else:

        def asking(what: str, where: str, ask: Callable[[Asked], None]) -> Check:
            def run() -> str:
                with tracking.giving_up_after(_TIMEOUT_S):
                    ask(asked)
                return "as it should be"

            return tried(what, where, run)

        yield asking("recipe", settings.recipe, cycle.ask_recipe)
        yield asking("recipe's own functions", settings.recipe, cycle.ask_functions)
        yield asking("hardware", settings.accelerator, cycle.ask_hardware)
        yield asking("event log", event_log_uri, cycle.ask_event_log)
        yield asking("MLflow answers", without_password(settings.tracking_uri), cycle.ask_tracking)
        if asked.client is not None:
            yield asking("record of who serves", settings.registered_model, cycle.ask_record)
    if settings.airflow_url != Settings.model_fields["airflow_url"].default:
        airflow = without_password(settings.airflow_url)
        yield tried("Airflow answers", airflow, lambda: ask_airflow(settings.airflow_url))


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


def _differing(settings: Settings) -> tuple[Setting, ...]:
    """Return the settings that differ from their defaults, without their secrets."""
    found = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value == field.default:
            continue
        if isinstance(value, dict):
            value = {key: "***" if _SECRET.search(key) else each for key, each in value.items()}
        shown = str(value)
        if name not in _PLAIN:
            shown = _ASSIGNED.sub(r"\1=***", without_password(shown))
        found.append(Setting(name=_PREFIX + name.upper(), value=shown))
    return tuple(found)


def _without_secrets(message: str) -> str:
    """Return a message about the environment without the values that may hold a secret."""
    for name, value in os.environ.items():
        if name.startswith(_PREFIX) and (_SECRET.search(value) or "@" in value):
            message = message.replace(repr(value), "'***'")
    return without_password(message)


def _slips() -> Iterator[str]:
    """Yield a sentence for each variable that looks like a setting and is passed over."""
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            for meant in difflib.get_close_matches(name, known, 1, _ALIKE):
                yield f"{name} is set and is no setting; rename it if {meant} is meant"


def read_versions(constraints: Path | None) -> tuple[Version, ...]:
    """Return the packages that results depend on, with the version that was tested."""

    def installed(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return ""

    text = constraints.read_text() if constraints else ""
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    tested = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}
    return tuple(
        Version(package=name, installed=installed(name), tested=tested.get(name, ""))
        for name in PACKAGES
    )


def free_disks(settings: Settings | None) -> tuple[Disk, ...]:
    """Return each local disk that is written to, once."""
    places = [tempfile.gettempdir(), os.getcwd()]
    if settings is not None:
        named = (settings.home, settings.workspace_location, settings.work_folder)
        uris = [storage.to_uri(place) for place in named if place]
        places = [str(storage.local_path(uri)) for uri in uris if storage.is_local(uri)]
        places.append(tempfile.gettempdir())
    disks: dict[int, Disk] = {}
    for path in map(_nearest, map(Path, places)):
        free_gib = shutil.disk_usage(path).free / 2**30
        disks.setdefault(path.stat().st_dev, Disk(path=str(path), free_gib=free_gib))
    return tuple(disks.values())


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    absolute = path.expanduser().absolute()
    return next(each for each in (absolute, *absolute.parents) if os.path.exists(each))


def lines_of(found: Diagnosis) -> Iterator[str]:
    """Yield the lines; one that belongs to the one before it begins with two spaces."""
    yield "settings that differ from their defaults:" if found.settings else "settings: defaults"
    yield from (f"  {each.name}={each.value}" for each in found.settings)
    if found.checks:
        yield "checks:"
    for check in found.checks:
        said = f": {check.said}" if check.is_good else ""
        yield f"  {'good ' if check.is_good else 'wrong'}  {check.what} ({check.where}){said}"
    yield f"versions, against {found.constraints}:" if found.constraints else "versions:"
    yield f"  Python {found.python}"
    for each in found.versions:
        tested = "" if each.is_as_tested else f", tested with {each.tested}"
        yield f"  {each.package} {each.installed or 'is not installed'}{tested}"
    yield from (f"free: {disk.free_gib:.1f} GiB at {disk.path}" for disk in found.disks)
    yield from (f"note: {note}" for note in found.notes)
    yield from (f"wrong: {sentence}" for sentence in found.wrong)
    if not found.wrong:
        yield "nothing is wrong"
