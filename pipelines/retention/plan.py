"""What may be deleted, and of what is old and stays, why it is kept.

Pure functions of what was found, of the record, the settings and the time. Nothing is read or
deleted here (`inventory`, `models`, `collect`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry.reconcile import State
from pipelines.settings import Settings

CHECKPOINT_DAYS = 30.0
"""Age at which work folders of trainings that have ended may go: nothing goes on from them."""


@dataclass(frozen=True)
class Held:
    """A folder, a file or a model that takes up space."""

    name: str
    uri: str
    num_bytes: int
    changed_at: datetime  # When its newest file was written; lock files do not count.


@dataclass(frozen=True)
class FoundRun(Held):
    """A run folder, with what its manifests name."""

    at_work: tuple[str, ...] = ()  # Stages of which an attempt may go on.
    registered_model: str = ""  # '' where `resolve_run` has left no manifest.
    versions: frozenset[str] = frozenset()  # Registered versions that it trained.
    snapshots: frozenset[str] = frozenset()  # Names of those that its manifests name.
    trainings: tuple[Held, ...] = ()  # Work folders, with checkpoints, whose stage has ended.
    problem: str = ""  # Why it is not known what the run needs; '' where it is.
    foreign: tuple[str, ...] = ()  # What lies in it that no stage has made.


@dataclass(frozen=True)
class FoundVersion(Held):
    """A registered version."""

    model_id: str
    """Of the logged model that its files are; '' where nothing of it can be deleted: its files are
    artifacts of an MLflow run, or were deleted before."""
    run_name: str  # Of the cycle that trained it, by its tag; '' unknown.
    aliases: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()  # Other versions of this name that are the same logged model.
    other_names: tuple[str, ...] = ()  # Versions of other registered models that are it, too.


@dataclass(frozen=True)
class Holdings:
    """All that takes up space; leftovers are scratch folders of processes that are gone."""

    runs: tuple[FoundRun, ...] = ()
    snapshots: tuple[Held, ...] = ()
    alerts: tuple[Held, ...] = ()
    leftovers: tuple[Held, ...] = ()
    versions: tuple[FoundVersion, ...] = ()


@dataclass(frozen=True)
class Record:
    """What is on record, sound and in agreement with the registry."""

    state: State
    judged_runs: frozenset[str]  # Names of those that were judged since the champion moved last.
    references: Mapping[str, str]  # Recipe by the name of its newest accepted snapshot.
    profile_uris: tuple[str, ...]  # Where the profiles of these snapshots lie.


@dataclass(frozen=True)
class Item:
    """Something old, and why it is kept; '' where it may go."""

    kind: Literal["leftover", "model", "run", "checkpoints", "snapshot", "alert"]
    held: Held
    kept: str = ""

    @property
    def label(self) -> str:
        """Its name, for people; of a logged model all versions that it is."""
        twins = self.held.twins if isinstance(self.held, FoundVersion) else ()
        return ", ".join((self.held.name, *twins))

    def age_days(self, now: datetime) -> int:
        """Return how many whole days ago its newest file was written."""
        return (now - self.held.changed_at).days


def name_in(uri: str) -> str:
    """Return the last part of a URI: a workspace may be reached under another path by now."""
    return uri.rstrip("/").rpartition("/")[2]


def make_plan(
    found: Holdings, record: Record, settings: Settings, now: datetime
) -> tuple[Item, ...]:
    """Return everything that is old in the order in which it goes, with what is kept all the same.

    Models go before the runs that trained them, and runs before the snapshots that they name: a
    kill in between leaves no run without its snapshot.

    Args:
        found: All that takes up space.
        record: What is on record; it is sound.
        settings: The age in days, and the horizon of a rollback.
        now: The time.
    """
    models = _needed_models(record, settings, now)
    needed = _needed_runs(found, record, models)

    def is_old(held: Held, days: float = settings.keep_days) -> bool:
        return now - held.changed_at >= timedelta(days=days)

    runs = {run.name: _why_run_stays(run, needed, settings) for run in found.runs}
    kept = [run for run in found.runs if runs[run.name] or not is_old(run)]
    digests = {
        model.snapshot_digest[:16]: f"{model.label} was trained on it: {why}"
        for model, why in reversed(models)  # the first reason counts
    }
    served = [
        model for entry in record.state.history.moves for model in (entry.previous, entry.model)
    ]
    champion = "it has been champion, and what served stays"
    stays = {model.version: champion for model in (*served, record.state.served) if model}
    stays |= {model.version: why for model, why in reversed(models)}
    ours = [run for run in kept if run.registered_model in ("", settings.registered_model)]
    trained_by = {version: run.name for run in ours for version in run.versions}
    by_tag = {run.name for run in ours}
    trained_by |= {v.name: v.run_name for v in found.versions if v.run_name in by_tag}
    days = min(CHECKPOINT_DAYS, settings.keep_days)
    return (
        *(Item("leftover", held) for held in found.leftovers),
        *(
            Item("model", old[0], _why_model_stays(old, same, stays, trained_by))
            for same in _by_logged_model(found.versions)
            if (old := [version for version in same if is_old(version)])
        ),
        *(Item("run", run, runs[run.name]) for run in found.runs if is_old(run)),
        *(  # of runs that stay; those of the others go with them
            Item("checkpoints", held, runs[run.name])
            for run in kept
            for held in run.trainings
            if is_old(held, days)
        ),
        *(
            Item("snapshot", held, why_snapshot_stays(held.name, kept, record, digests))
            for held in found.snapshots
            if is_old(held)
        ),
        *(Item("alert", held) for held in found.alerts if is_old(held)),
    )


def _needed_models(record: Record, settings: Settings, now: datetime) -> list[tuple[ModelRef, str]]:
    """Return the models that serve, may serve again, or are about to, each with the reason.

    A predecessor may serve again if it served at any time within the horizon, or is among the
    newest predecessors, however long ago that was. A reason is the end of the sentence 'it is kept
    because'; of several of one model the first counts.
    """
    found: list[tuple[ModelRef, str]] = []
    if (champion := record.state.served) is not None:
        found.append((champion, f"{champion.label} serves"))
    if (pending := record.state.history.pending) is not None:
        why = f"a {pending.kind} of {pending.model.label} is decided, and the alias is to follow"
        found += [(model, why) for model in (pending.model, pending.previous) if model is not None]
    start, end = now - timedelta(days=settings.keep_days), now
    predecessors: list[str] = [champion.version] if champion else []
    for entry in reversed([e for e in record.state.history.in_time if e != pending]):
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


def _needed_runs(
    found: Holdings, record: Record, models: Sequence[tuple[ModelRef, str]]
) -> dict[str, str]:
    """Return the names of the runs that the record needs, whatever their age, each with why."""
    needed: dict[str, str] = {}
    versions = {model.version: why for model, why in reversed(models)}
    trained = [(run.name, number) for run in found.runs for number in sorted(run.versions)]
    trained += [(version.run_name, version.name) for version in found.versions]
    for name, number in trained:
        if number in versions:
            needed.setdefault(name, f"it trained what is needed: {versions[number]}")
    for entry in record.state.history.moves:
        if entry.run_uri is not None and entry.model.version in versions:
            needed.setdefault(name_in(entry.run_uri), versions[entry.model.version])
    for name in sorted(record.judged_runs):
        needed.setdefault(name, "its evidence counts: it was judged since the champion moved")
    for run in found.runs:
        if any(f"/runs/{run.name}/" in uri for uri in record.profile_uris):
            needed.setdefault(run.name, "it holds the profile of the newest accepted snapshot")
    return needed


def _why_run_stays(run: FoundRun, needed: Mapping[str, str], settings: Settings) -> str:
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


def why_snapshot_stays(
    name: str, kept: Sequence[FoundRun], record: Record, digests: Mapping[str, str]
) -> str:
    """Return why a snapshot is kept, or ''.

    Args:
        name: Its name.
        kept: The runs that stay.
        record: What is on record.
        digests: Reasons by the names of the snapshots that needed models were trained on.
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
    return digests.get(name, "")


def _by_logged_model(versions: Sequence[FoundVersion]) -> list[list[FoundVersion]]:
    """Give the versions of each logged model together: its files go once, or stay for all."""
    groups: dict[str, list[FoundVersion]] = {}
    for version in versions:
        if version.model_id:
            groups.setdefault(version.model_id, []).append(version)
    return list(groups.values())


def _why_model_stays(
    old: Sequence[FoundVersion],
    same: Sequence[FoundVersion],
    needed: Mapping[str, str],
    trained_by: Mapping[str, str],
) -> str:
    """Return why a logged model stays: it does if any version of it does.

    Args:
        old: Those of its versions that are old; by the first one it is told.
        same: All of its versions.
        needed: Why versions stay that serve, served or may serve.
        trained_by: Names of runs that are kept, by the versions that they trained.
    """
    for version in same:
        why = needed.get(version.name, "")
        if not why and version.aliases:
            why = f"it has the alias {', '.join(version.aliases)}"
        elif not why and version.other_names:
            why = f"it is registered as {', '.join(version.other_names)} too"
        elif not why and version.name in trained_by:
            why = f"run {trained_by[version.name]}, which trained it, is kept"
        if why:
            return why if version is old[0] else f"v{version.name} is the same files: {why}"
    young = [version for version in same if version not in old]
    return f"v{young[0].name} is the same files, and younger" if young else ""
