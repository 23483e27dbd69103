"""What may be deleted, and of what is old and stays, why it is kept.

Pure functions of what was found, of the record, the settings and the time. Nothing is read or
deleted here (`inventory`, `models`, `record`, `collect`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry.reconcile import State
from pipelines.settings import Settings


@dataclass(frozen=True)
class Held:
    """A folder, a file or a model that takes up space."""

    name: str
    uri: str
    num_bytes: int
    changed_at: datetime
    """When its newest file was written; lock files do not count."""


@dataclass(frozen=True)
class FoundRun(Held):
    """A run folder, with what its manifests name."""

    at_work: tuple[str, ...] = ()
    """Stages whose lease somebody holds."""
    registered_model: str = ""
    """'' where `resolve_run` has left no manifest."""
    versions: frozenset[str] = frozenset()
    """Registered versions that it trained."""
    snapshots: frozenset[str] = frozenset()
    """Names of the snapshots that its manifests name."""
    trainings: tuple[Held, ...] = ()
    """Work folders of trainings, with their checkpoints, whose stage has ended."""
    problem: str = ""
    """Why it is not known what the run needs; '' where it is."""
    foreign: tuple[str, ...] = ()
    """What lies in it that no stage has made."""


@dataclass(frozen=True)
class FoundVersion(Held):
    """A registered version."""

    model_id: str
    """Of the logged model that its files are; '' where nothing of it can be deleted: its files are
    artifacts of an MLflow run, or were deleted before."""
    run_name: str
    """Name of the cycle that trained it, by its tag; '' unknown."""
    aliases: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    """Other versions of the same name that are the same logged model."""
    other_names: tuple[str, ...] = ()
    """Versions of other registered models that are the same logged model."""


@dataclass(frozen=True)
class Holdings:
    """All that takes up space."""

    runs: tuple[FoundRun, ...] = ()
    snapshots: tuple[Held, ...] = ()
    alerts: tuple[Held, ...] = ()
    leftovers: tuple[Held, ...] = ()
    """Scratch folders of processes that are gone."""
    versions: tuple[FoundVersion, ...] = ()


@dataclass(frozen=True)
class Record:
    """What is on record, sound and in agreement with the registry."""

    state: State
    judged_runs: frozenset[str]
    """Names of the runs that were judged since the champion moved last."""
    references: Mapping[str, str]
    """Recipe by the name of its newest accepted snapshot."""
    profile_uris: tuple[str, ...]
    """Where the profiles of these snapshots lie."""

    @property
    def served(self) -> list[ModelRef]:
        """Every model that served or was meant to, the newest last."""
        models = []
        for _, entry in self.state.history.entries:
            models += [entry.previous, entry.model]
        models.append(self.state.served)
        return [model for model in models if model is not None]


def name_in(uri: str) -> str:
    """Return the last part of a URI: a workspace may be reached under another path by now."""
    return uri.rstrip("/").rpartition("/")[2]


Reasons = dict[str, str]
"""By name, why something is needed, as the end of the sentence 'it is kept because'."""


def needed_models(record: Record, settings: Settings, now: datetime) -> list[tuple[ModelRef, str]]:
    """Return the models that serve, may serve again, or are about to, each with the reason.

    A predecessor may serve again if it served at any time within the horizon, or is among the
    newest predecessors, however long ago that was.
    """
    found: list[tuple[ModelRef, str]] = []
    if (champion := record.state.served) is not None:
        found.append((champion, f"{champion.label} serves"))
    if (pending := record.state.history.pending) is not None:
        why = f"a {pending.kind} of {pending.model.label} is decided, and the alias is to follow"
        found += [(model, why) for model in (pending.model, pending.previous) if model is not None]
    start = now - timedelta(days=settings.keep_days)
    entries = [entry for entry in record.state.history.in_time if entry != pending]
    predecessors: list[str] = [champion.version] if champion else []
    end = now
    for entry in reversed(entries):
        if entry.model.version not in predecessors:
            predecessors.append(entry.model.version)
        place = predecessors.index(entry.model.version)
        if 0 < place <= settings.rollback_models:
            why = f"{entry.model.label} is predecessor {place} of the champion"
            found.append((entry.model, why))
        elif place and end >= start:
            found.append((entry.model, f"{entry.model.label} served until {end:%Y-%m-%d}"))
        end = entry.moved_at
    return found


def needed_versions(record: Record, settings: Settings, now: datetime) -> Reasons:
    """Return the numbers of the needed models; the first reason counts."""
    found: Reasons = {}
    for model, why in needed_models(record, settings, now):
        found.setdefault(model.version, why)
    return found


def needed_runs(found: Holdings, record: Record, settings: Settings, now: datetime) -> Reasons:
    """Return the names of the runs that the record needs, whatever their age."""
    needed: Reasons = {}
    versions = needed_versions(record, settings, now)
    for run in found.runs:
        for number in sorted(run.versions & versions.keys()):
            needed.setdefault(run.name, f"it trained what is needed: {versions[number]}")
    for version in found.versions:
        if version.name in versions:
            why = f"it trained what is needed: {versions[version.name]}"
            needed.setdefault(version.run_name, why)
    moves = [entry for _, entry in record.state.history.entries]
    for entry in moves:
        if entry.run_uri is not None and entry.model.version in versions:
            needed.setdefault(name_in(entry.run_uri), versions[entry.model.version])
    for name in sorted(record.judged_runs):
        needed.setdefault(name, "its evidence counts: it was judged since the champion moved")
    for run in found.runs:
        if any(f"/runs/{run.name}/" in uri for uri in record.profile_uris):
            needed.setdefault(run.name, "it holds the profile of the newest accepted snapshot")
    return needed


Kind = Literal["leftover", "model", "run", "checkpoints", "snapshot", "alert"]

CHECKPOINT_DAYS = 30.0
"""Age at which work folders of trainings that have ended may go: nothing goes on from them."""


@dataclass(frozen=True)
class Item:
    """Something old."""

    kind: Kind
    held: Held
    kept: str = ""
    """Why it is kept; '' where it may go."""

    @property
    def label(self) -> str:
        """Its name, for people; of a logged model all versions that it is."""
        twins = self.held.twins if isinstance(self.held, FoundVersion) else ()
        return ", ".join((self.held.name, *twins))

    def age_days(self, now: datetime) -> int:
        """Return how many whole days ago its newest file was written."""
        return (now - self.held.changed_at).days


@dataclass(frozen=True)
class Plan:
    """Everything that is old, in the order in which it goes."""

    items: tuple[Item, ...]

    @property
    def going(self) -> tuple[Item, ...]:
        """What may go."""
        return tuple(item for item in self.items if not item.kept)

    @property
    def kept(self) -> tuple[Item, ...]:
        """What is old and kept."""
        return tuple(item for item in self.items if item.kept)


def make_plan(found: Holdings, record: Record, settings: Settings, now: datetime) -> Plan:
    """Return what may be deleted, and what is old and kept.

    Models go before the runs that trained them, and runs before the snapshots that they name: a
    kill in between leaves no run without its snapshot.

    Args:
        found: All that takes up space.
        record: What is on record; it is sound.
        settings: Ages in days, and the horizon of a rollback.
        now: The time.
    """
    needed = needed_runs(found, record, settings, now)
    runs = [_judge_run(run, needed, settings, now) for run in found.runs]
    old_runs = [item for item in runs if item is not None]
    gone = {item.held.name for item in old_runs if not item.kept}
    kept = [run for run in found.runs if run.name not in gone]
    return Plan(
        (
            *(Item("leftover", held) for held in found.leftovers),
            *_judge_versions(found, kept, record, settings, now),
            *old_runs,
            *_judge_trainings(kept, needed, settings, now),
            *_judge_snapshots(found, kept, record, settings, now),
            *(Item("alert", held) for held in _older(found.alerts, settings.keep_days, now)),
        )
    )


def _older(held: Sequence[Held], days: float, now: datetime) -> list[Held]:
    return [each for each in held if now - each.changed_at >= timedelta(days=days)]


def _judge_run(run: FoundRun, needed: Reasons, settings: Settings, now: datetime) -> Item | None:
    if not _older([run], settings.keep_days, now):
        return None
    return Item("run", run, _why_run_stays(run, needed, settings))


def _why_run_stays(run: FoundRun, needed: Reasons, settings: Settings) -> str:
    if run.at_work:
        return f"{', '.join(run.at_work)} is at work"
    if run.problem:
        return run.problem
    if run.foreign:
        return f"it holds {', '.join(run.foreign)}, which no stage has made"
    if run.registered_model not in ("", settings.registered_model):
        return (
            f"it is a cycle of {run.registered_model}, whose record was not looked at; set "
            f"HOMEFEED_REGISTERED_MODEL to that name"
        )
    return needed.get(run.name, "")


def _judge_trainings(
    kept: Sequence[FoundRun], needed: Reasons, settings: Settings, now: datetime
) -> Iterator[Item]:
    """Judge the work folders of runs that stay; those of the others go with them."""
    for run in kept:
        for held in _older(run.trainings, min(CHECKPOINT_DAYS, settings.keep_days), now):
            yield Item("checkpoints", held, _why_run_stays(run, needed, settings))


def _judge_snapshots(
    found: Holdings,
    kept: Sequence[FoundRun],
    record: Record,
    settings: Settings,
    now: datetime,
) -> Iterator[Item]:
    digests: Reasons = {}
    for model, why in needed_models(record, settings, now):
        digests.setdefault(model.snapshot_digest[:16], f"{model.label} was trained on it: {why}")
    for held in _older(found.snapshots, settings.keep_days, now):
        why = why_snapshot_stays(held.name, kept, record)
        yield Item("snapshot", held, why or digests.get(held.name, ""))


def why_snapshot_stays(name: str, kept: Sequence[FoundRun], record: Record) -> str:
    """Return why a snapshot is kept, or ''.

    Args:
        name: Its name.
        kept: The runs that stay.
        record: What is on record.
    """
    users = [run for run in kept if name in run.snapshots]
    if users:
        return f"run {users[-1].name} names it"
    if name in record.references:
        return f"it is the newest accepted snapshot of recipe {record.references[name]}"
    # A stage at work may have found it published and not have named it yet.
    busy = [run for run in kept if run.at_work]
    if busy:
        return f"{busy[0].at_work[0]} of run {busy[0].name} is at work and may need it"
    unread = [run for run in kept if run.problem]
    if unread:
        return f"run {unread[0].name} may need it; {unread[0].problem}"
    return ""


def _judge_versions(
    found: Holdings,
    kept: Sequence[FoundRun],
    record: Record,
    settings: Settings,
    now: datetime,
) -> Iterator[Item]:
    needed = needed_versions(record, settings, now)
    served = {model.version for model in record.served}
    ours = [run for run in kept if run.registered_model in ("", settings.registered_model)]
    trained = {version: run.name for run in ours for version in run.versions}
    trained |= {
        version.name: version.run_name
        for version in found.versions
        if version.run_name in {run.name for run in ours}
    }

    def why_stays(version: FoundVersion) -> str:
        why = needed.get(version.name, "") or _why_version_stays(version, served)
        if not why and version.name in trained:
            why = f"run {trained[version.name]}, which trained it, is kept"
        return why

    for same in _by_logged_model(found.versions):
        if old := _older(same, settings.keep_days, now):
            yield Item("model", old[0], _why_model_stays(old, same, why_stays))


def _by_logged_model(versions: Sequence[FoundVersion]) -> Iterator[list[FoundVersion]]:
    """Give the versions of each logged model together: its files go once, or stay for all."""
    groups: dict[str, list[FoundVersion]] = {}
    for version in versions:
        if version.model_id:
            groups.setdefault(version.model_id, []).append(version)
    yield from groups.values()


def _why_model_stays(
    old: Sequence[Held], same: Sequence[FoundVersion], why_stays: Callable[[FoundVersion], str]
) -> str:
    """Return why a logged model stays: it does if any version of it does."""
    for version in same:
        if why := why_stays(version):
            return why if version is old[0] else f"v{version.name} is the same files: {why}"
    young = [version for version in same if version not in old]
    return f"v{young[0].name} is the same files, and younger" if young else ""


def _why_version_stays(version: FoundVersion, served: set[str]) -> str:
    if version.name in served:
        return "it has been champion, and what served stays"
    if version.aliases:
        return f"it has the alias {', '.join(version.aliases)}"
    if version.other_names:
        return f"it is registered as {', '.join(version.other_names)} too"
    return ""
