"""What of a recipe an event log cannot feed: windows, columns, action types, embeddings.

The same is asked for a champion of another recipe, which is scored on features of its own
(`pipelines.preconditions.champion`). Tested in tests/pipelines/preconditions/test_event_log.py.
"""

from datetime import datetime

from pipelines.contracts.config import Head, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features.catalogue import LOG_TABLES
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import to_ms
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.glimpse import Glimpse
from pipelines.event_log.log_files import LogFile, day_of, open_event_log
from pipelines.event_log.reader import pin_time_problems
from pipelines.places.store_errors import require_bucket
from pipelines.preconditions.recipe_alone import refusal
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.snapshot.spill import files_read
from pipelines.storage import list_names


def require_event_log(uri: str) -> None:
    """Refuse a place that is no event log.

    Raises:
        DataContractError: tables are missing.
        BucketMissingError: the event log's bucket is not there.
        TransientStorageError: the storage failed.
    """
    found = set(list_names(uri))
    missing = sorted(set(EVENT_LOG_TABLES) - found)
    if not found:
        require_bucket(uri)
    if missing:
        raise DataContractError(
            f"event log {uri}: tables {missing} are missing, found "
            f"{sorted(found) or 'nothing'}; expected {sorted(EVENT_LOG_TABLES)}; write one with "
            f"`homefeed ingest completejourney --to {uri}` or set HOMEFEED_EVENT_LOG"
        )


def look_at(event_log_uri: str, as_of: datetime) -> Glimpse:
    """List an event log and return it, to be asked.

    Raises:
        DataContractError: the log or a table of it is missing or empty.
        TransientStorageError: the storage failed.
    """
    return Glimpse(open_event_log(event_log_uri), to_ms(as_of))


def require_fed(config: RunConfig, log: Glimpse, as_of: datetime) -> None:
    """Refuse a recipe that the event log cannot feed.

    Raises:
        DataContractError: all that is missing is listed.
        TransientStorageError: the storage failed.
    """
    if found := log_problems(config, log, as_of):
        lead = (
            f"the event log at {log.event_log.uri} cannot feed recipe {config.reference} as of "
            f"{as_of:%Y-%m-%d}:"
        )
        raise refusal(DataContractError, lead, found)


def log_problems(config: RunConfig, log: Glimpse, as_of: datetime) -> list[str]:
    """Return in sentences what the log lacks that a recipe needs.

    Raises:
        TransientStorageError: the storage failed.
    """
    plan = plan_of(config, as_of)
    try:
        check_covered(log.event_log, plan)
    except DataContractError as error:
        return [str(error)]  # no other answer means anything in days without a log
    return [
        *column_problems(plan, log),
        *head_problems(plan, log, config.features.heads),
        *vocabulary_problems(plan, log),
        *version_problems(plan, log),
    ]


def column_problems(plan: SnapshotPlan, log: Glimpse) -> list[str]:
    """Return which columns the files that a snapshot reads lack, or have in another type.

    Of impressions before the training window only columns of the contract are read.
    """
    found = []
    window = (plan.training.start_ms, plan.as_of_ms)
    _, *others = files_read(log.event_log, plan)
    impressions = log.event_log.files_between("impressions", *window)
    for files in (impressions, *others, log.event_log.files_of("pins")):
        if not files:
            continue
        table = files[0].table
        extra = extra_columns(EVENT_LOG_TABLES[table], plan.features.categorical_of(table))
        numbers = plan.number_columns(table) if table in LOG_TABLES else ()
        found += log.column_problems(files, extra, numbers)
    return found + [problem.message for problem in pin_time_problems(log.event_log)]


def vocabulary_problems(plan: SnapshotPlan, log: Glimpse) -> list[str]:
    """Return which action types of the log the vocabulary lacks, so that reading refuses them."""
    shown = _types_shown(plan, log)
    foreign = sorted(set(shown) - {*plan.features.action_types, *plan.passed_over})
    if not foreign:
        return []
    return [
        f"the log has actions of type {', '.join(map(repr, foreign))}, first in "
        f"{shown[foreign[0]].path}, which is not in features.action_types "
        f"{list(plan.features.action_types)}; add it there, or drop these rows where the table is "
        f"written"
    ]


def version_problems(plan: SnapshotPlan, log: Glimpse) -> list[str]:
    """Return that no pin has an embedding of the plan's version."""
    wanted, there = plan.config.embedding_version, log.embedding_versions
    if wanted in there:
        return []
    return [
        f"snapshot.embedding_version is {wanted!r}, and no pin has an embedding of it; found "
        f"{sorted(there) or 'none'}; add that version to the table pins, or correct the recipe"
    ]


def head_problems(plan: SnapshotPlan, log: Glimpse, heads: tuple[Head, ...]) -> list[str]:
    """Return which heads have an action type that the days which a snapshot reads never show."""
    shown = _types_shown(plan, log)
    start = day_of(plan.actions_start_ms)
    return [
        f"head {head.name!r} predicts action type {head.action_type!r}, which no action from "
        f"{start} to {plan.as_of:%Y-%m-%d} has; found {sorted(shown) or 'no actions'}; correct "
        f"the head, or add these actions to the log"
        for head in heads
        if head.action_type not in shown
    ]


def _types_shown(plan: SnapshotPlan, log: Glimpse) -> dict[str, LogFile]:
    files = log.event_log.files_between("actions", plan.actions_start_ms, plan.as_of_ms)
    return log.action_types(files)
