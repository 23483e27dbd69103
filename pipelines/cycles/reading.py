"""The read model of cycles: what became of each and what it cost, from its manifests and failures.

`homefeed status`, the index, verdict pages and the summary of `homefeed local retrain` show what is
read here. A cycle that is damaged hides no other. Not for what a person is told of one verdict
(`pipelines.alerts.outcomes`). Tested in tests/pipelines/cycles/test_reading.py.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from pipelines import storage
from pipelines.alerts.compose import find_failure
from pipelines.alerts.links import airflow_link
from pipelines.alerts.outcomes import Since, outcome_of
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.cycle import CycleFacts, CycleRecord, StageCost
from pipelines.contracts.errors import DataGateFailedError, HomefeedError
from pipelines.contracts.explain import Explanation, explanation_uri
from pipelines.contracts.judgement import Comparison, Judgement, Outcome, Promotion
from pipelines.contracts.run_layout import CYCLE_INDEX, StageRecord, manifest_uri
from pipelines.cycles import ledger
from pipelines.plain_text import one_line
from pipelines.registry.moves import read_approval
from pipelines.settings import Settings

log = logging.getLogger(__name__)

FROM_A_PAGE = f"../../../../{CYCLE_INDEX}"
"""The index, from a verdict page: <workspace>/runs/<run>/<stage>/<output>/<page>."""
BEFORE_JUDGING = STAGES[: STAGES.index("compare_with_champion")]
_AT_ONCE = 16
"""How many cycles are read at once: an object store answers each in tens of milliseconds."""


def run_names(workspace_uri: str) -> list[str]:
    """Return the ids of all runs of a workspace, the newest day first.

    Raises:
        HomefeedError: the storage failed.
    """
    names = storage.list_names(storage.join(workspace_uri, "runs"))
    return sorted((name for name in names if not name.startswith(".")), reverse=True)


def newest_cycles(
    workspace_uri: str, names: Sequence[str], settings: Settings, num: int | None = None
) -> tuple[CycleFacts, ...]:
    """Return the cycles of the newest days; of one day, the one that began last comes first.

    The names are those of all runs, as `run_names` returns them; `num` cycles at most, None: all.
    """

    def read(name: str) -> CycleFacts:
        run_uri = storage.join(workspace_uri, "runs", name)
        try:
            return read_cycle(run_uri, settings)
        except (HomefeedError, ValueError) as error:
            said = one_line(str(error))
            return CycleFacts(run_id=name, run_uri=run_uri, state="not readable", problem=said)

    days = set(map(_day_of, names[:num]))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(read, sorted(name for name in names if _day_of(name) in days)))
    found.sort(key=lambda cycle: (_day_of(cycle.run_id), str(cycle.began_at or "")), reverse=True)
    return tuple(found[:num])


def _day_of(run_id: str) -> str:
    """Return the day of its as_of, with which a run's id begins."""
    return run_id[: len("2026-01-05")]


def find_cycle(
    workspace: str, trigger: str, settings: Settings, day: str = ""
) -> CycleFacts | None:
    """Return the cycle that a run of Airflow, or a key, has begun; None if none was resolved.

    Where its day is known (YYYY-MM-DD), no cycle of another one is read.
    """
    workspace_uri = storage.to_uri(workspace)
    names = [name for name in run_names(workspace_uri) if name.startswith(day)]
    found = newest_cycles(workspace_uri, names, settings)
    return next((cycle for cycle in found if trigger and cycle.trigger == trigger), None)


def read_cycle(run_uri: str, settings: Settings) -> CycleFacts:
    """Return what became of one run.

    Raises:
        HomefeedError: a record of it is damaged, or the storage failed.
        ValueError: a record is of another version.
    """
    records = _records_of(run_uri)
    missing = [stage for stage in STAGES if stage not in records]
    failure = find_failure(run_uri, missing)
    run_id = run_uri.rstrip("/").rpartition("/")[2]
    found: dict[str, Any] = {"state": "not ended", "next_stage": next(iter(missing), "")}
    if "resolve_run" in records:
        run = ResolvedRun.model_validate(records["resolve_run"].artifact)
        found |= {
            "trigger": run.trigger,
            "as_of": run.as_of,
            "began_at": records["resolve_run"].finished_at,
            "airflow_url": airflow_link(run.trigger, settings),
        }
        if "compare_with_champion" in records:
            judgement = Judgement.model_validate(records["compare_with_champion"].artifact)
            found |= {
                "state": "judged",
                "outcome": outcome_now(run, judgement, settings, serves=""),
                "page_uri": judgement.report_uri,
                "line": judgement.line,
                "shown_first": _shown_first(judgement.comparison),
                "is_void": is_void(run, judgement.comparison),
            }
        if "promote_challenger" in records:
            promotion = Promotion.model_validate(records["promote_challenger"].artifact)
            after = promotion.champion_after if promotion.is_promoted else None
            found["promoted"] = after.label if after else ""
    if failure is not None:
        is_gate = failure.error_class == DataGateFailedError.__name__
        found["state"] = "data gate failed" if is_gate else "broken"
        found["failure"] = failure.model_copy(update={"message": one_line(failure.message)})
    costs = [r.model_dump(include=set(StageCost.model_fields)) for r in records.values()]
    costed = tuple(StageCost(**each) for each in costs)
    return CycleFacts(run_id=run_id, run_uri=run_uri, costs=costed, **found)


def _shown_first(comparison: Comparison) -> dict[str, float]:
    from validation.model_gate.target_metric import SHOWN_FIRST

    rows = (comparison.find(name) for name in SHOWN_FIRST)
    if comparison.is_first_cycle:
        return {}
    return {row.metric: row.baseline for row in rows if row and row.baseline is not None}


def outcome_now(
    run: ResolvedRun, judgement: Judgement, settings: Settings, serves: str | None = None
) -> Outcome:
    """Return a cycle's outcome with what became of it since it was judged; see `outcome_of`.

    Raises:
        HomefeedError: a record is damaged, or the storage failed.
        ValueError: a record is of another version.
    """
    record = storage.find_model(manifest_uri(run.run_uri, "promote_challenger"), StageRecord)
    promotion = Promotion.model_validate(record.artifact) if record else None
    kept, approval = judgement.outcome, read_approval(run.run_uri)
    if approval is not None and approval.ruling_digest != judgement.ruling_digest:
        approval = None  # It is about another verdict.
    since = Since(promotion, approval)
    void = kept is not None and not kept.change and judgement.comparison.target_change is not None
    now = outcome_of(run, judgement, None, settings, is_void=void, since=since, serves=serves)
    kept = kept or now
    return now.model_copy(update={"warnings": kept.warnings, "links": kept.links})


def _records_of(run_uri: str) -> dict[str, StageRecord]:
    """Return the manifests of a run, in the order of the stages; none of a stage not ended.

    Raises:
        DataContractError: one is damaged or was edited.
        TransientStorageError: the storage failed.
    """
    places = {stage: manifest_uri(run_uri, stage) for stage in STAGES}
    found = {stage: storage.find_model(uri, StageRecord) for stage, uri in places.items()}
    return {stage: record for stage, record in found.items() if record}


def is_void(run: ResolvedRun, comparison: Comparison) -> bool:
    """Return whether nothing follows from a cycle's comparison, whatever its numbers are."""
    from validation.model_gate.examine import void_reasons

    config = run.config
    return bool(void_reasons(comparison, config.model_gate, config.features.heads))


def record_of(run: ResolvedRun, comparison: Comparison) -> CycleRecord:
    """Return what a verdict page says of its cycle, as far as that can be read.

    It is the same whenever the cycle is judged, so that an attempt which follows a killed one
    writes the same page.
    """
    ended, meant, change = dict[str, datetime](), None, comparison.target_change
    uri, why = explanation_uri(run.workspace_uri, run.run_id), None
    try:
        why = storage.find_model(uri, Explanation, "delete it, and explain the run again")
        ended = {name: record.finished_at for name, record in _records_of(run.run_uri).items()}
        if change is not None and not comparison.is_first_cycle:
            known = ledger.of_main_metric(ledger.read(run.workspace_uri, run.registered_model))
            meant = ledger.foretell(known, change.value)
    except HomefeedError as error:  # A verdict does not fail for what stands beside it.
        log.warning("not all is told of when %s ran and what it means: %s", run.run_id, error)
    return CycleRecord(
        began_at=ended.get("resolve_run"),
        trained_at=max((at for name, at in ended.items() if name in BEFORE_JUDGING), default=None),
        is_void=is_void(run, comparison),
        index_href=FROM_A_PAGE,
        meant=meant,
        explanation=why,
    )


def lines_of(cycle: CycleFacts) -> Iterator[str]:
    """Yield what became of a cycle in lines for people; all but the first begin with two spaces."""
    name = f"{cycle.as_of:%Y-%m-%d}" if cycle.as_of else cycle.run_id
    yield f"{name}  {cycle.word}: {cycle.happened}"
    if (failure := cycle.failure) is not None:
        yield f"  {failure.error_class}, {failure.occurred_at:%Y-%m-%d %H:%M} UTC"
    if (outcome := cycle.outcome) is not None:
        yield f"  {outcome.why}"
        yield f"  Verdict page: {cycle.page_uri}"
        if cycle.promoted is not None:
            yield f"  this cycle promoted {cycle.promoted or 'nothing'}"
        elif failure is None:
            yield f"  has not ended; the next stage is {cycle.next_stage}"
    yield f"  run folder: {cycle.run_uri}"
