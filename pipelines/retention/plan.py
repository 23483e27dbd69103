"""What may be deleted, and of what is old and stays, why it is kept.

Pure functions of what was found, of the record, the settings and the time. Nothing is read or
deleted here (`inventory`, `collect`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from pipelines.contracts.artifacts import ModelRef
from pipelines.registry.history import name_of
from pipelines.registry.reconcile import State
from pipelines.settings import Settings

CHECKPOINT_DAYS = 30.0
"""Age at which work folders of trainings that have ended may go: nothing goes on from them."""
Kind = Literal["model", "run", "checkpoints", "snapshot", "alert", "environment", "code"]
"""Kinds of what is deleted, in the order in which they go. Models go before the runs that trained
them, and runs before the snapshots that they name: a kill in between leaves no run without its
snapshot."""


@dataclass(frozen=True)
class Held:
    """Folders, files or a model that take up space."""

    kind: Kind
    name: str
    uri: str
    num_bytes: int
    changed_at: datetime  # When its newest file was written; lock files do not count.
    first: str = ""  # URI of the file without which nobody takes it for a whole.


@dataclass(frozen=True)
class FoundRun(Held):
    """A run folder, with what its manifests name."""

    at_work: tuple[str, ...] = ()  # Stages of which an attempt may go on.
    registered_model: str = ""  # '' where `resolve_run` has left no manifest.
    snapshots: frozenset[str] = frozenset()  # Names of those that its manifests name.
    codes: frozenset[str] = frozenset()  # Digests of its code and of the code accepted then.
    trainings: tuple[Held, ...] = ()  # Work folders, with checkpoints, whose stage has ended.
    problem: str = ""  # Why it is not known what the run needs; '' where it is.
    foreign: tuple[str, ...] = ()  # What lies in it that no stage has made.


@dataclass(frozen=True)
class FoundVersion(Held):
    """A registered version."""

    model_id: str = ""
    """Of the logged model that its files are; '' where nothing of it can be deleted: its files are
    artifacts of an MLflow run, or were deleted before."""
    run_name: str = ""  # Of the cycle that trained it, by its tag; '' unknown.
    aliases: tuple[str, ...] = ()
    shared_by: tuple[str, ...] = ()  # Other versions, of any registered model, with its files.


@dataclass(frozen=True)
class FoundCode(Held):
    """Code that trained, or an environment that its pins were installed into."""

    pins: str = ""  # Text of `requirements.txt`.


@dataclass(frozen=True)
class Record:
    """What is on record, sound and in agreement with the registry."""

    state: State
    judged_runs: frozenset[str]  # Names of those that were judged since the champion moved last.
    references: Mapping[str, str]  # Recipe by the name of its newest accepted snapshot.
    others_codes: frozenset[str] = frozenset()  # Named by the workspace's other histories.


Plan = tuple[tuple[Held, str], ...]
"""What is old, and why it is kept; '' where it may go."""


def make_plan(found: Sequence[Held], record: Record, settings: Settings, now: datetime) -> Plan:
    """Return what is old of what was found, in the order in which it goes, and why what is kept."""

    def is_old(held: Held) -> bool:
        most = CHECKPOINT_DAYS if held.kind == "checkpoints" else settings.keep_days
        return now - held.changed_at >= timedelta(days=min(most, settings.keep_days))

    runs = [held for held in found if isinstance(held, FoundRun)]
    versions = [held for held in found if isinstance(held, FoundVersion)]
    models = _needed_models(record, settings, now)
    moves = record.state.history.moves
    needed = {  # names of the runs that the record needs, whatever their age; the last word counts
        **dict.fromkeys(record.judged_runs, "its evidence counts, judged since the champion moved"),
        **{
            name_of(move.run_uri): models[move.model.version][1]
            for move in reversed(moves)
            if move.run_uri and move.model.version in models
        },
        **{
            version.run_name: f"it trained what is needed: {models[version.name][1]}"
            for version in versions
            if version.name in models
        },
    }
    why = {run.name: _why_run_stays(run, needed, settings) for run in runs}
    kept = [run for run in runs if why[run.name] or not is_old(run)]
    names = {run.name for run in kept}
    digests = {
        model.snapshot_digest[:16]: f"{model.label} was trained on it: {reason}"
        for model, reason in models.values()
    }
    codes = _needed_codes(found, record, kept, models)
    served = {model.version for move in moves for model in (move.previous, move.model) if model}
    of_stages = [held for run in runs for held in run.trainings]
    items = []
    for held in sorted((*found, *of_stages), key=lambda each: get_args(Kind).index(each.kind)):
        stays = ""
        if isinstance(held, FoundVersion):
            if not held.model_id:
                continue
            reasons = (
                models[held.name][1] if held.name in models else "",
                "it has been champion, and what served stays" if held.name in served else "",
                f"it has the alias {', '.join(held.aliases)}" if held.aliases else "",
                f"its files are those of {', '.join(held.shared_by)} too" if held.shared_by else "",
                f"run {held.run_name}, which trained it, is kept" if held.run_name in names else "",
            )
            stays = next(filter(None, reasons), "")
        elif held.kind in ("run", "checkpoints"):
            run_name = held.name.partition("/")[0]
            if held.kind == "checkpoints" and run_name not in names:
                continue  # they go with their run
            stays = why[run_name]
        elif held.kind == "snapshot":
            stays = why_snapshot_stays(held.name, kept, record) or digests.get(held.name, "")
        elif isinstance(held, FoundCode):
            stays = codes.get(held.name, "")
        if is_old(held):
            items.append((held, stays))
    return tuple(items)


def _needed_models(
    record: Record, settings: Settings, now: datetime
) -> dict[str, tuple[ModelRef, str]]:
    """Return the models that serve, may serve again, or are about to, each with the reason.

    They are named by their version. A predecessor may serve again if it served at any time within
    the horizon, or is among the newest predecessors, however long ago that was. A reason is the end
    of the sentence 'it is kept because'; of several of one model the first counts.
    """
    found: dict[str, tuple[ModelRef, str]] = {}
    known, champion = record.state.history.in_time, record.state.served
    if champion is not None:
        found[champion.version] = champion, f"{champion.label} serves"
    if (pending := known.pending) is not None:
        why = f"a {pending.kind} of {pending.model.label} is decided, and the alias is to follow"
        for model in (pending.model, pending.previous):
            if model is not None:
                found.setdefault(model.version, (model, why))
    start, end = now - timedelta(days=settings.keep_days), now
    predecessors: list[str] = [champion.version] if champion else []
    for model, moved_at in reversed([(e.model, e.moved_at) for e in known.moves if e != pending]):
        if model.version not in predecessors:
            predecessors.append(model.version)
        place = predecessors.index(model.version)
        if 0 < place <= settings.rollback_models:
            why = f"{model.label} is predecessor {place} of the champion"
            found.setdefault(model.version, (model, why))
        elif place and end >= start:
            found.setdefault(model.version, (model, f"{model.label} served until {end:%Y-%m-%d}"))
        end = moved_at
    return found


def _needed_codes(
    found: Sequence[Held],
    record: Record,
    kept: Sequence[FoundRun],
    models: Mapping[str, tuple[ModelRef, str]],
) -> dict[str, str]:
    """Return why codes and environments stay, by their names.

    An environment can be made again, so that it stays for code that may run soon alone.
    """
    known, codes = record.state.history, [each for each in found if isinstance(each, FoundCode)]
    needed = dict.fromkeys(record.others_codes, "the history of another registered model names it")
    for model, reason in models.values():
        if (recipe := known.recipe_of(model)) is not None:
            needed[recipe.code_digest] = reason
    if known.recipes.accepted is not None:
        needed[known.recipes.accepted.code_digest] = "it is the accepted code"
    for code in codes:
        if code.kind == "code" and (why := why_code_stays(code.name, kept)):
            needed.setdefault(code.name, why)
    for environment in codes:
        same = [e.name for e in codes if e.kind == "code" and e.pins == environment.pins]
        users = [each for each in same if each in needed]
        if environment.kind == "environment" and users:
            needed[environment.name] = f"code with its pins is kept: {needed[users[0]]}"
    for recipe in (move.recipe for move in known.moves if move.recipe):
        needed.setdefault(recipe.code_digest, "it made a champion, which may be rolled back to")
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


def why_snapshot_stays(name: str, kept: Sequence[FoundRun], record: Record) -> str:
    """Return why the runs that stay, or the record's references, keep a snapshot; or ''."""
    users = [run for run in kept if name in run.snapshots]
    if users:
        return f"run {users[-1].name} names it"
    if name in record.references:
        return f"it is the newest accepted snapshot of recipe {record.references[name]}"
    return _why_unnamed_stays(kept)


def why_code_stays(name: str, kept: Sequence[FoundRun]) -> str:
    """Return why the runs that stay keep code; or ''."""
    users = [run for run in kept if name in run.codes]
    return f"run {users[-1].name} names it" if users else _why_unnamed_stays(kept)


def _why_unnamed_stays(kept: Sequence[FoundRun]) -> str:
    """Return which run may need what is kept and does not name it yet, or cannot be read; or ''."""
    busy = [run for run in kept if run.at_work]
    if busy:
        return f"{busy[0].at_work[0]} of run {busy[0].name} is at work and may need it"
    unread = [run for run in kept if run.problem]
    return f"run {unread[0].name} may need it; {unread[0].problem}" if unread else ""
