"""All that is asked before a cycle builds anything, in one list and in one order.

`resolve_run` refuses at the first question without a good answer, and `homefeed recipe check` asks
all of them: so the two cannot say different things. A champion of another recipe is scored on what
its own recipe says, from the log of today: where that is gone, the comparison would break after the
training was paid for. The log is looked at from outside: footers and single columns, because a
light task asks. Not for its rows (`pipelines.log_check`). Tested in
tests/pipelines/preconditions.
"""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, RunRequest
from pipelines.contracts.config import Head, RunConfig
from pipelines.contracts.errors import (
    ASKED,
    ConfigurationError,
    DataContractError,
    HomefeedError,
    TrackingUnavailableError,
)
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.event_log.completeness import check_complete
from pipelines.event_log.log_files import EventLog, LogFile, day_of, find_event_log
from pipelines.event_log.reader import extra_columns, iterate_batches, open_file, pin_time_problems
from pipelines.event_log.rules import Finding, column_problems, finding, told_together
from pipelines.places.store_errors import require_bucket
from pipelines.registry import history, registry, tracking
from pipelines.registry.reconcile import (
    State,
    follow,
    look_between_moves,
    require_agreement,
    require_newest,
)
from pipelines.settings import Settings
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.counterpart import OWN_OPTIONS, unknown_types
from pipelines.snapshot.features.count import contract_problems, function_problems
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.snapshot.spill import files_read

if TYPE_CHECKING:
    from mlflow import MlflowClient

DAY = timedelta(days=1)
_NUM_READERS = 8
"""Files that are read at a time: on an object store each of them is a few requests."""
_BATCH_ROWS = 1 << 16
"""Rows of a file that are in memory at a time."""
_TEXTS = {"actions": ("action_type", "known_at"), "pins": ("embedding_version",)}
"""The column that is read of a table, and the one that says from when on a row counts."""
Refused = TypeVar("Refused", bound=HomefeedError)


def look_at(event_log_uri: str) -> EventLog:
    """List an event log.

    Raises:
        DataContractError: the log or tables of it are missing or empty; all that is wrong with
            where its files lie is listed.
        ConfigurationError: the event log's bucket is not there.
        TransientStorageError: the storage failed.
    """
    try:
        event_log, problems = find_event_log(event_log_uri)
    except DataContractError:
        require_bucket(event_log_uri)
        raise
    if problems:
        told = [problem.message for problem in problems]
        raise refusal(DataContractError, f"the event log at {event_log_uri} cannot be read:", told)
    return event_log


def problems_of_columns(
    event_log: EventLog, files: Sequence[LogFile], extra: Sequence[str], numbers: Sequence[str]
) -> list[str]:
    """Return what is wrong with the columns of a table's files, once for files alike.

    `extra` are the columns of text that features need beyond the contract's, `numbers` those of
    numbers.
    """

    def ask(file: LogFile) -> list[Finding]:
        try:
            found = open_file(event_log, file).schema
        except DataContractError as error:
            return [finding("unreadable", error=error)]
        contract = contract_of(file.table, found.names)
        return list(column_problems(file.path, found, contract, extra, numbers))

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = itertools.chain.from_iterable(pool.map(ask, files))
        return [text for _, text in told_together(found, "", {})]


def texts_of(event_log: EventLog, files: Sequence[LogFile], as_of_ms: int) -> dict[str, LogFile]:
    """Return action types or embedding versions, each with the first file that has it.

    Actions known before `as_of_ms` (since the epoch) count. A file that cannot be read is passed
    over, as is one without the column: `problems_of_columns` tells of it.
    """

    def read(file: LogFile) -> set[str]:
        column, *times = _TEXTS[file.table]
        is_known = ds.field("known_at") < as_of_ms if times else None
        asked = pa.schema([EVENT_LOG_TABLES[file.table].field(name) for name in (column, *times)])
        found = set[str]()
        with contextlib.suppress(DataContractError):
            dataset = open_file(event_log, file)
            if not any(column_problems(file.path, dataset.schema, asked)):
                for batch in iterate_batches(dataset, file, [column], _BATCH_ROWS, is_known):
                    found.update(pc.unique(batch[column].cast(pa.string())).drop_null().to_pylist())
        return found

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = zip(files, pool.map(read, files), strict=True)
        return {text: file for file, texts in reversed([*found]) for text in texts}


def refusal(
    error_class: type[Refused], lead: str, problems: Sequence[str], kind: str = ""
) -> Refused:
    """Return an error that lists problems after a lead, and knows them one by one."""
    error = error_class(f"{lead}{listed(problems)}", kind=kind)
    error.problems = tuple(problems)
    return error


def listed(problems: Sequence[str]) -> str:
    """Return problems as the rest of a message: in the same line, or each in its own."""
    if len(problems) == 1:
        return f" {problems[0]}"
    return "".join(f"\n- {problem}" for problem in problems)


@dataclass
class Asked:
    """A cycle that is asked for, and what the questions have found so far.

    A question that needs what an earlier one could not find is passed over.
    """

    request: RunRequest
    config: RunConfig
    settings: Settings
    may_settle: bool = True  # what became of an interrupted move may be put on record
    log: EventLog | None = None
    client: "MlflowClient | None" = None
    record: State | None = None
    champion: ModelRef | None = None  # with which the challenger would be compared
    later: ModelRef | None = None  # which serves, where that is not the champion of as_of

    @classmethod
    def beforehand(
        cls, config: RunConfig, settings: Settings, now: datetime, as_of: datetime | None = None
    ) -> "Asked":
        """Return a scheduled cycle that nobody begins; what is asked of it settles nothing.

        `now` is the wall clock, which `as_of` is by default.
        """
        request = settings.scheduled("asked beforehand", now, as_of, config.reference)
        return cls(request, config, settings, may_settle=False)

    def missing_functions(self, config: RunConfig) -> list[str]:
        """Return which of a recipe's own functions lack here, where stages run on this machine."""
        is_here = self.settings.stage_runner == "bash"
        return list(function_problems(config.features.numeric_held)) if is_here else []


def ask_recipe(asked: Asked) -> None:
    """Ask whether the recipe's gate can come to a verdict, and its own functions are here."""
    if found := recipe_problems(asked.config) + asked.missing_functions(asked.config):
        lead = f"recipe {asked.config.reference} cannot be run here:"
        raise refusal(ConfigurationError, lead, found)


def ask_hardware(asked: Asked) -> None:
    """Ask whether there are the machines that are wanted: the trainer would refuse hours later.

    Where stages run on the worker, its own cores and GPUs are counted. Of machines for containers
    the engine knows: it refuses a container, or its pod waits in vain.
    """
    from training.environment import require_devices

    request, settings = asked.request, asked.settings
    if request.num_nodes > 1 and settings.stage_runner != "kubernetes":
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and HOMEFEED_STAGE_RUNNER is "
            f"{settings.stage_runner!r}, which trains on one machine; expected the runner "
            f"'kubernetes' for more than one; set nodes to 1, or set HOMEFEED_STAGE_RUNNER and "
            f"HOMEFEED_STAGE_IMAGE"
        )
    is_in_store = not storage.is_local(asked.settings.workspace_uri)
    if request.num_nodes > 1 and is_in_store and not settings.work_folder:
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and the machines would share no folder: "
            f"HOMEFEED_WORK_FOLDER is empty; expected a folder where the pod template mounts a "
            f"volume to which several machines can write (ReadWriteMany); set it, or set nodes to 1"
        )
    if settings.stage_runner == "bash":
        require_devices(request.num_devices, request.accelerator)


def ask_event_log(asked: Asked) -> None:
    """Ask whether there is an event log."""
    asked.log = look_at(asked.settings.event_log_uri)


def ask_fed(asked: Asked) -> None:
    """Ask whether the event log has what the recipe needs."""
    if asked.log is None:
        return
    config, day = asked.config, asked.request.day
    plan = plan_of(config, day)
    kind = ""
    try:
        check_covered(asked.log, plan)
        check_complete(asked.log, day)
        found = log_problems(plan, asked.log, config.features.heads)
    except DataContractError as error:
        found, kind = [str(error)], ASKED  # no other answer means anything in days without a log
    if found:
        lead = f"the event log at {asked.settings.event_log_uri} cannot feed recipe"
        told = f"{lead} {config.reference} as of {day:%Y-%m-%d}:"
        raise refusal(DataContractError, told, found, kind)


def ask_tracking(asked: Asked) -> None:
    """Ask whether MLflow answers."""
    asked.client = tracking.connect(asked.settings.tracking_uri)


def ask_record(asked: Asked) -> None:
    """Ask whether the record of who serves is true."""
    if asked.client is not None:
        place = asked.settings.workspace_uri, asked.settings.registered_model
        asked.record = require_record(asked.client, *place, may_settle=asked.may_settle)


def ask_champion(asked: Asked) -> None:
    """Ask who serves, and whether a cycle of this day may follow it."""
    if asked.client is None:
        return
    name, day = asked.settings.registered_model, asked.request.day
    serving = registry.read_champion(asked.client, name)
    asked.champion = serving
    if serving is None or day > serving.as_of:
        return
    if asked.request.may_promote:
        raise ConfigurationError(
            f"as_of {day:%Y-%m-%d} is not newer than the champion's: {serving.label} was trained "
            f"as of {serving.as_of:%Y-%m-%d}; expected {serving.as_of + DAY:%Y-%m-%d} or later; "
            f"choose such a day, or compare with the champion of that time, without promoting: "
            f"switch Promote off in Airflow's form, or give --no-promote",
            kind=ASKED,
        )
    # That model may have been trained on the holdout; who served then has not. The newest by its
    # own as_of: past days' cycles may all have been run today.
    moved = history.load(asked.settings.workspace_uri, name).moves
    earlier = [move.model for move in moved if move.model.as_of < day]
    asked.later, asked.champion = serving, max(earlier, key=lambda m: m.as_of, default=None)


def ask_comparable(asked: Asked) -> None:
    """Ask whether the champion can be scored on the event log of today."""
    serving = asked.champion
    if asked.client is None or asked.log is None or serving is None:
        return
    its_own = recipe_of(asked)
    if its_own is None or its_own == asked.config:
        return
    lacking = champion_problems(its_own, asked.config, asked.log, asked.request.day)
    lacking += asked.missing_functions(its_own)
    if lacking:
        raise refusal(
            ConfigurationError,
            f"{serving.label} serves and cannot be compared with recipe {asked.config.reference}: "
            f"it would be scored by its own recipe, {its_own.recipe_ref.label}, on the event log "
            f"at {asked.settings.event_log_uri}; keep in the log what it needs until a model of "
            f"the new recipe serves, or set HOMEFEED_REGISTERED_MODEL to another name, to begin a "
            f"line of models without a champion:",
            [f"{serving.label} serves and cannot be compared: {each}" for each in lacking],
        )


def recipe_of(asked: Asked) -> RunConfig | None:
    """Return the recipe that made the champion; None where nothing can read it beforehand.

    The comparison then finds out by the champion's bundle.
    """
    assert asked.champion is not None
    found = asked.record.history.recipe_of(asked.champion) if asked.record else None
    with contextlib.suppress(ConfigurationError):
        return found.parse() if found else None
    return None


def log_problems(plan: SnapshotPlan, log: EventLog, heads: Sequence[Head]) -> list[str]:
    """Return in sentences what the log lacks, or has too much, for a snapshot of a plan.

    These are columns of the files that are read, of impressions before the training window only
    those of the contract; action types of `heads` that do not occur in the snapshot's days; action
    types that the vocabulary lacks, so that reading refuses them; and the embedding version.
    """
    features, found = plan.features, list[str]()
    _, actions, users = files_read(log, plan)
    pins = log.files_of("pins")
    shown = log.files_between("impressions", plan.training.start_ms, plan.as_of_ms)
    for files in filter(None, (shown, actions, users, pins)):
        table = files[0].table
        extra = extra_columns(EVENT_LOG_TABLES[table], features.categorical_of(table))
        numbers = plan.number_columns(table) if table in LOG_TABLES else ()
        found += problems_of_columns(log, files, extra, numbers)
    found += [problem.message for problem in pin_time_problems(log)]
    types, start = texts_of(log, actions, plan.as_of_ms), day_of(plan.actions_start_ms)
    found += [
        f"head {head.name!r} predicts action type {head.action_type!r}, which no action from "
        f"{start} to {plan.as_of:%Y-%m-%d} has; found {sorted(types) or 'no actions'}; correct "
        f"the head, or add these actions to the log"
        for head in heads
        if head.action_type not in types
    ]
    if foreign := sorted(set(types) - {*features.action_types, *plan.passed_over}):
        found.append(
            f"the log has actions of type {', '.join(map(repr, foreign))}, first in "
            f"{types[foreign[0]].path}, which is not in features.action_types "
            f"{list(features.action_types)}; add it there, or drop these rows where the table is "
            f"written"
        )
    wanted, there = plan.config.embedding_version, texts_of(log, pins, plan.as_of_ms)
    if wanted not in there:
        found.append(
            f"snapshot.embedding_version is {wanted!r}, and no pin has an embedding of it; found "
            f"{sorted(there) or 'none'}; add that version to the table pins, or correct the recipe"
        )
    return found


class HoldoutSize(NamedTuple):
    """What the log has of a holdout."""

    users: int  # with an impression
    days: int  # with an impression
    actions: int  # of the target metric's type, each a row


def holdout_size(asked: Asked) -> HoldoutSize | None:
    """Return what the log has of the cycle's holdout; None where there is no log.

    Raises:
        DataContractError: a file of it is damaged.
    """
    from validation.model_gate.target_metric import target_head

    if asked.log is None:
        return None
    window = plan_of(asked.config, asked.request.day).holdout
    counted = target_head(asked.config.model_gate, asked.config.features.heads).action_type
    users, num_actions = set[int](), 0
    shown = asked.log.files_between("impressions", window.start_ms, window.end_ms)
    for file in shown:
        for batch in iterate_batches(open_file(asked.log, file), file, ["user_id"], _BATCH_ROWS):
            users.update(pc.unique(batch["user_id"]).to_pylist())
    for file in asked.log.files_between("actions", window.start_ms, window.end_ms):
        is_counted = ds.field("action_type") == counted
        for batch in iterate_batches(
            open_file(asked.log, file), file, ["action_type"], _BATCH_ROWS, is_counted
        ):
            num_actions += batch.num_rows
    return HoldoutSize(len(users), len({file.day for file in shown}), num_actions)


def champion_problems(
    its_own: RunConfig, config: RunConfig, event_log: EventLog, as_of: datetime
) -> list[str]:
    """Return in sentences what the log lacks, or has too much, for scoring a champion.

    The windows are those of the run, `config` as of a day; the rest is the champion's own recipe.
    """
    own = {name: getattr(its_own.snapshot, name) for name in OWN_OPTIONS}
    options = config.snapshot.model_copy(update=own)
    plan = plan_of(
        config.model_copy(update={"features": its_own.features, "snapshot": options}),
        as_of,
        unknown_types(config.features, its_own.features),
    )
    # With another vocabulary a snapshot of its own is built for it, which needs its main head.
    has_own = its_own.features.action_types != config.features.action_types
    return log_problems(plan, event_log, (its_own.features.main_head,) if has_own else ())


def recipe_problems(config: RunConfig) -> list[str]:
    """Return what the recipe asks for that no head and no event log can give, in sentences.

    These are metrics of the gate, and features that are columns of the log's contract. The
    configuration itself does not refuse them: old runs are read by the same classes.
    """
    from validation.model_gate.target_metric import names_of_metrics, target_head

    gate, heads, found = config.model_gate, config.features.heads, list[str]()
    try:
        target_head(gate, heads)
    except ConfigurationError as error:
        found.append(str(error))
    given = names_of_metrics(heads, gate.target_metric)
    found += [
        f"model_gate.{section} has a limit on {limit.metric!r}, which no head gives, so nothing "
        f"would ever be promoted; expected one of {', '.join(given)}"
        for section, limits in (("floors", gate.floors), ("guardrails", gate.guardrails))
        for limit in limits
        if limit.metric not in given
    ]
    return [*found, *contract_problems(config.features.numeric_held)]


def require_record(
    client: "MlflowClient", workspace_uri: str, name: str, *, may_settle: bool = True
) -> State:
    """Let the alias follow a move that was interrupted, and refuse a record that is not true.

    A newest entry that is damaged is refused too: nothing vouches for the alias then, and one that
    was deleted would make this a first cycle, which promotes against the popularity baseline.
    Without `may_settle` the alias is only looked at.

    Raises:
        RecordDisagreesError: alias and history say different things.
        DataContractError: the newest entry of the history is damaged.
        TrackingUnavailableError: MLflow does not answer.
    """
    state = look_between_moves(client, workspace_uri, name)
    if may_settle and state.history.pending is not None:
        with history.promotion_lock(workspace_uri):
            state = follow(client, workspace_uri, name)
    require_agreement(state)
    require_newest(state)
    return state


QUESTIONS: tuple[Callable[[Asked], None], ...] = (
    ask_recipe,
    ask_hardware,
    ask_event_log,
    ask_fed,
    ask_tracking,
    ask_record,
    ask_champion,
    ask_comparable,
)
"""What is asked, in this order; each raises where the answer is no."""


def require_all(asked: Asked) -> None:
    """Refuse a cycle at the first question without a good answer, by the question's error."""
    for ask in QUESTIONS:
        ask(asked)


def refusals(
    asked: Asked, questions: Sequence[Callable[[Asked], None]] = QUESTIONS
) -> list[HomefeedError]:
    """Return what `require_all` would refuse, one after another if each were mended.

    Where MLflow does not answer, one TrackingUnavailableError says so, and nothing more is asked of
    it.

    Raises:
        TransientStorageError: the storage failed.
    """
    found: list[HomefeedError] = []
    for ask in questions:
        try:
            ask(asked)
        except TrackingUnavailableError as error:
            found.append(error)
            asked.client = None
        except HomefeedError as error:
            if error.is_retryable:
                raise
            found.append(error)
    return found
