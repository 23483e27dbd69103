"""Plans a deletion: what may go, and for what is old and kept, why it is kept.

A pure function of what was found, of the record, the settings and the time. Nothing is read or
deleted here (`inventory`, `carry_out`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipelines.retention.holdings import FoundRun, FoundVersion, Held, Holdings, Record
from pipelines.retention.needs import Reasons, needed_models, needed_runs, needed_versions
from pipelines.settings import Settings

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
