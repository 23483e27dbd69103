"""What the record needs: models that serve or may serve again, and the cycles behind them.

Pure functions. Not for what may go (`plan`).
"""

from datetime import datetime, timedelta

from pipelines.contracts.artifacts import ModelRef
from pipelines.retention.holdings import Holdings, Record, name_in
from pipelines.settings import Settings

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
