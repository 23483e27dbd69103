"""The newest cycles of a workspace, and what became of each. One that is damaged hides no other.

Tested in tests/pipelines/overview/test_status.py.
"""

from typing import Any

from pipelines import storage
from pipelines.alerts.compose import find_failure
from pipelines.alerts.lost_races import is_lost_race
from pipelines.alerts.next_step import what_was_promoted
from pipelines.alerts.outcomes import kept_outcome
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.run_layout import MANIFEST
from pipelines.overview.facts import Cycle
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, read_record

_DAY = len("2026-01-05")
"""A run's id begins with the day of its as_of."""


def run_names(workspace_uri: str) -> list[str]:
    """Return the ids of all runs of a workspace, the newest day first."""
    names = storage.list_names(storage.join(workspace_uri, "runs"))
    return sorted((name for name in names if not name.startswith(".")), reverse=True)


def newest_cycles(
    workspace_uri: str, names: list[str], settings: Settings, num: int
) -> tuple[Cycle, ...]:
    """Return the cycles of the newest days; of one day, the one that began last comes first.

    Args:
        workspace_uri: The workspace.
        names: Its runs, the newest day first (`run_names`).
        settings: Addresses for the links of older cycles.
        num: How many at most.

    Raises:
        HomefeedError: the storage failed.
    """
    days = {name[:_DAY] for name in names[:num]}
    chosen = [name for name in names if name[:_DAY] in days]
    found = [_cycle(storage.join(workspace_uri, "runs", name), name, settings) for name in chosen]
    found.sort(key=lambda c: (c.run_id[:_DAY], str(c.resolved_at or "")), reverse=True)
    return tuple(found[:num])


def newest_page(workspace_uri: str, names: list[str], settings: Settings) -> str:
    """Return the address of the newest verdict page that is still there; '' if there is none.

    Args:
        workspace_uri: The workspace.
        names: Its runs, the newest day first (`run_names`).
        settings: Addresses for the links of older cycles.

    Raises:
        HomefeedError: the storage failed.
    """
    for day in dict.fromkeys(name[:_DAY] for name in names):
        same_day = [name for name in names if name[:_DAY] == day]
        for cycle in newest_cycles(workspace_uri, same_day, settings, len(same_day)):
            pages = cycle.outcome.links[:1] if cycle.outcome else ()
            for _, uri in pages:
                if storage.exists(uri):
                    return uri
    return ""


def _cycle(run_uri: str, name: str, settings: Settings) -> Cycle:
    try:
        return _read(run_uri, name, settings)
    except DataContractError as error:
        return Cycle(run_id=name, run_uri=run_uri, state="not readable", problem=str(error))


def _read(run_uri: str, name: str, settings: Settings) -> Cycle:
    ended = [
        stage for stage in STAGES if MANIFEST in storage.list_names(storage.join(run_uri, stage))
    ]
    missing = [stage for stage in STAGES if stage not in ended]
    failure = find_failure(run_uri) if missing else None
    if failure is not None and is_lost_race(failure):
        failure = None  # Another attempt was at work, and says itself how it ended.
    cycle = Cycle(
        run_id=name,
        run_uri=run_uri,
        state="broken" if failure else "not ended",
        failure=failure,
        next_stage=next(iter(missing), ""),
    )
    if "resolve_run" not in ended:
        return cycle
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    known: dict[str, Any] = {
        "as_of": run.as_of,
        "resolved_at": read_record(run_uri, "resolve_run").finished_at,
    }
    if "compare_with_champion" in ended:
        judgement = read_artifact(run_uri, "compare_with_champion", Judgement)
        known["outcome"] = kept_outcome(run, judgement, settings)
        known["state"] = cycle.state if failure else "judged"
    if "promote_challenger" in ended:
        promotion = read_artifact(run_uri, "promote_challenger", Promotion)
        known["promoted"] = what_was_promoted(promotion)
    return cycle.model_copy(update=known)
