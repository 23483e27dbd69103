"""Reads all cycles of a workspace, and who served, for the index. One that is damaged hides none.

Tested in tests/pipelines/cycle_index/test_reading.py.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines import storage
from pipelines.alerts.compose import find_failure
from pipelines.alerts.links import links_of
from pipelines.alerts.lost_races import is_lost_race
from pipelines.alerts.outcomes import kept_outcome
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import DataContractError, DataGateFailedError, HomefeedError
from pipelines.contracts.judged.cycle import CycleLine, CyclesFacts, ServingSpan
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.run_layout import StageFailure, StageRecord
from pipelines.cycle_index.costs import costs_of, is_void, records_of
from pipelines.plain_text import one_line
from pipelines.registry.history import History, load
from pipelines.settings import Settings

MAX_CYCLES = 260
"""Ten years of fortnights. The index tells of the newest; older ones are in the run folders."""
_AT_ONCE = 16
"""How many cycles are read at once: an object store answers each in tens of milliseconds."""
_DAY = len("2026-01-05")


def read_cycles(workspace_uri: str, settings: Settings) -> CyclesFacts:
    """Return what the index tells; a cycle that cannot be read has a line that says why.

    Args:
        workspace_uri: The workspace.
        settings: The registered model, and addresses for the links.

    Raises:
        HomefeedError: the list of runs or the history cannot be read.
    """
    names = [
        name
        for name in storage.list_names(storage.join(workspace_uri, "runs"))
        if not name.startswith(".")
    ]
    newest = sorted(names, reverse=True)[:MAX_CYCLES]

    def line_of(name: str) -> CycleLine:
        run_uri = storage.join(workspace_uri, "runs", name)
        try:
            return _line(workspace_uri, run_uri, name, settings)
        except (HomefeedError, ValueError) as error:
            costs = costs_of(name, ())
            said = one_line(str(error))
            return CycleLine(run_id=name, state="not readable", happened=said, costs=costs)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        lines = list(pool.map(line_of, newest))
    lines.sort(key=lambda line: line.run_id)
    lines.sort(key=lambda line: (line.run_id[:_DAY], str(line.began_at or "")), reverse=True)
    known = load(workspace_uri, settings.registered_model)
    return CyclesFacts(
        registered_model=settings.registered_model,
        cycles=tuple(lines),
        num_cycles=len(names),
        champions=_champions(known),
        problem=f"Damaged or gone: {', '.join(known.damaged)}." if known.damaged else "",
    )


def _line(workspace_uri: str, run_uri: str, name: str, settings: Settings) -> CycleLine:
    records = {record.stage: record for record in records_of(run_uri)}
    for record in records.values():
        if not record.is_sound():
            raise DataContractError(f"the manifest of {record.stage} was edited")
    missing = [stage for stage in STAGES if stage not in records]
    failure = find_failure(run_uri) if missing else None
    if failure is not None and is_lost_race(failure):
        failure = None  # Another attempt was at work, and says itself how it ended.
    known: dict[str, Any] = {"run_id": name, "costs": costs_of(name, tuple(records.values()))}
    if "resolve_run" in records:
        run = ResolvedRun.model_validate(records["resolve_run"].artifact)
        airflow = [pair for pair in links_of(run, settings) if pair[0] == "Airflow run"]
        known |= {
            "as_of": run.as_of,
            "began_at": records["resolve_run"].finished_at,
            "links": tuple(airflow),
        }
        if "compare_with_champion" in records:
            return CycleLine(**(known | _judged(workspace_uri, run, records, failure, settings)))
    elif failure is not None:
        known["broke_at"] = failure.occurred_at
    return CycleLine(**(known | _not_judged(failure, missing)))


def _not_judged(failure: StageFailure | None, missing: list[str]) -> dict[str, Any]:
    if failure is None:
        return {"state": "not ended", "happened": f"{missing[0]} has not ended."}
    said = one_line(failure.message)
    if failure.error_class == DataGateFailedError.__name__:
        return {"state": "data gate failed", "happened": said}
    return {"state": "broken", "happened": f"{failure.stage} broke: {said}"}


def _judged(
    workspace_uri: str,
    run: ResolvedRun,
    records: dict[str, StageRecord],
    failure: StageFailure | None,
    settings: Settings,
) -> dict[str, Any]:
    judgement = Judgement.model_validate(records["compare_with_champion"].artifact)
    outcome = kept_outcome(run, judgement, settings)
    page = judgement.report_uri.removeprefix(f"{workspace_uri.rstrip('/')}/")
    found: dict[str, Any] = {
        "state": "judged",
        "decision": outcome.decision,
        "happened": outcome.title,
        "metric": outcome.metric,
        "change": outcome.change,
        "is_void": is_void(run, judgement.comparison),
        "links": (("Verdict page", page), *links_of(run, settings)[:1]),
    }
    if failure is not None:
        found["state"] = "broken"
        found["happened"] = f"{outcome.title}. Then {_not_judged(failure, [])['happened']}"
    if "promote_challenger" in records:
        promotion = Promotion.model_validate(records["promote_challenger"].artifact)
        if promotion.is_promoted and promotion.champion_after is not None:
            found["promoted"] = promotion.champion_after.label
    return found


def _champions(known: History) -> tuple[ServingSpan, ...]:
    entries = [entry for _, entry in known.entries]
    spans = []
    for place, entry in enumerate(entries):
        after = entries[place + 1] if place + 1 < len(entries) else None
        spans.append(
            ServingSpan(
                model=entry.model.label,
                as_of=entry.model.as_of,
                since=entry.moved_at,
                until=after.moved_at if after else None,
                kind=entry.kind,
                reason=one_line(entry.reason),
            )
        )
    return tuple(reversed(spans))
