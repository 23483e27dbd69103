"""The read model of cycles: what became of each, from its manifests and its newest failure.

`homefeed status`, the index and the summary of `homefeed local retrain` show what is read here. A
cycle that is damaged hides no other. Not for what a person is told of one verdict
(`pipelines.alerts.outcomes`). Tested in tests/pipelines/cycles/test_reading.py.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from pipelines import storage
from pipelines.alerts.compose import find_failure
from pipelines.alerts.links import airflow_link
from pipelines.alerts.outcomes import kept_outcome
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import DataGateFailedError, HomefeedError
from pipelines.contracts.judged.cycle import CycleFacts
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.run_layout import StageFailure
from pipelines.cycles.costs import costs_of, is_void, records_of
from pipelines.plain_text import one_line
from pipelines.settings import Settings

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
    workspace_uri: str, names: list[str], settings: Settings, num: int
) -> tuple[CycleFacts, ...]:
    """Return the cycles of the newest days; of one day, the one that began last comes first.

    Args:
        workspace_uri: The workspace.
        names: Its runs, as `run_names` returns them.
        settings: Addresses for the links.
        num: How many at most.
    """
    days = set(map(_day_of, names[:num]))
    return read_cycles(workspace_uri, [n for n in names if _day_of(n) in days], settings)[:num]


def read_cycles(
    workspace_uri: str, names: Iterable[str], settings: Settings
) -> tuple[CycleFacts, ...]:
    """Return what became of these runs, in the order of `newest_cycles`."""

    def read(name: str) -> CycleFacts:
        run_uri = storage.join(workspace_uri, "runs", name)
        try:
            return read_cycle(run_uri, settings)
        except (HomefeedError, ValueError) as error:
            said, costs = one_line(str(error)), costs_of(name, ())
            return CycleFacts(
                run_id=name, run_uri=run_uri, state="not readable", problem=said, costs=costs
            )

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = sorted(pool.map(read, names), key=lambda cycle: cycle.run_id)
    found.sort(key=lambda cycle: (_day_of(cycle.run_id), str(cycle.began_at or "")), reverse=True)
    return tuple(found)


def by_day(workspace_uri: str, settings: Settings) -> Iterator[CycleFacts]:
    """Yield all cycles in the order of `newest_cycles`; each day is read when it is asked for."""
    for _, names in groupby(run_names(workspace_uri), _day_of):
        yield from read_cycles(workspace_uri, names, settings)


def find_cycle(workspace: str, trigger: str, settings: Settings) -> CycleFacts | None:
    """Return the cycle that a run of Airflow, or a key, has begun; None if none was resolved."""
    found = by_day(storage.to_uri(workspace), settings)
    return next((cycle for cycle in found if trigger and cycle.trigger == trigger), None)


def newest_page(workspace_uri: str, settings: Settings) -> str:
    """Return the address of the newest verdict page that is still there; '' if there is none."""
    pages = (cycle.page_uri for cycle in by_day(workspace_uri, settings) if cycle.page_uri)
    return next((uri for uri in pages if storage.exists(uri)), "")


def read_cycle(run_uri: str, settings: Settings) -> CycleFacts:
    """Return what became of one run.

    Raises:
        HomefeedError: a record of it is damaged, or the storage failed.
        ValueError: a record is of another version.
    """
    records = {record.stage: record for record in records_of(run_uri)}
    missing = [stage for stage in STAGES if stage not in records]
    failure = find_failure(run_uri) if missing else None
    if failure is not None and failure.is_lost_race:
        failure = None  # Another attempt was at work, and says itself how it ended.
    run_id = run_uri.rstrip("/").rpartition("/")[2]
    known = CycleFacts(
        run_id=run_id,
        run_uri=run_uri,
        state="not ended",
        failure=failure and _shown(failure),
        next_stage=next(iter(missing), ""),
        costs=costs_of(run_id, tuple(records.values())),
    )
    found: dict[str, object] = {}
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
                "outcome": kept_outcome(run, judgement, settings),
                "page_uri": judgement.report_uri,
                "is_void": is_void(run, judgement.comparison),
            }
        if "promote_challenger" in records:
            promotion = Promotion.model_validate(records["promote_challenger"].artifact)
            after = promotion.champion_after if promotion.is_promoted else None
            found["promoted"] = after.label if after else ""
    if failure is not None:
        is_gate = failure.error_class == DataGateFailedError.__name__
        found["state"] = "data gate failed" if is_gate else "broken"
    return known.model_copy(update=found)


def _shown(failure: StageFailure) -> StageFailure:
    """Return a failure whose message is one line that steers nothing."""
    return failure.model_copy(update={"message": one_line(failure.message)})


def _day_of(run_id: str) -> str:
    """Return the day of its as_of, with which a run's id begins."""
    return run_id[: len("2026-01-05")]
