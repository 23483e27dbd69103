"""Shows what a model would see of one request of an event log; nothing is judged or published.

The shard of one user is built by the kernel that builds every snapshot. The log is read for this
user's rows alone, and for when all users were shown the user's pins or acted on them, because what
is counted by pin counts everybody's. What is told comes from the kernel's tables; nothing is
computed again. Tested in tests/pipelines/log_check/test_one_request.py.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import CategoricalFeature, RunConfig
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.schemas import (
    IMPRESSIONS,
    PINS_FILE,
    SPLIT_HOLDOUT,
    categorical_column,
    contract_of,
    label_column,
    numeric_column,
)
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import floor_to_day
from pipelines.event_log.log_files import EventLog, LogFile, day_of
from pipelines.event_log.names import has_names, names_of
from pipelines.event_log.parquet_files import iterate_batches, open_file
from pipelines.event_log.rules import column_problems, null_problems, require_none
from pipelines.log_check.measuring import own_folder
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pin_counts import FirstSeen
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import SnapshotPlan, make_plan, plan_of
from pipelines.snapshot.shard import ShardTables
from pipelines.snapshot.spill import (
    HeldRows,
    SpillSummary,
    files_read,
    first_shown,
    make_tasks,
    merge_summaries,
    run_task,
)
from pipelines.sources.writer.identifiers import id_of
from pipelines.storage import open_filesystem

BATCH_ROWS = 1 << 18
ACTIONS_SHOWN = 20


@dataclass(frozen=True)
class OneUser:
    """A user's shard, and what its rows mean."""

    plan: SnapshotPlan
    tables: ShardTables
    pins: pa.Table
    user_names: dict[int, str]  # that ids were made from, where the log has them
    pin_names: dict[int, str]


def find_request(event_log: EventLog, request_id: str) -> tuple[int, int]:
    """Return whose a request is, and when it began in milliseconds since the epoch.

    Raises:
        ConfigurationError: the log has no such request.
        DataContractError: a file that is looked into lacks a column for that, or the request has
            no user or no time.
    """
    columns = ["request_id", "user_id", "impressed_at"]
    wanted = pa.schema([IMPRESSIONS.field(name) for name in columns])
    for file in reversed(event_log.files_of("impressions")):
        dataset = open_file(event_log, file)
        require_none(column_problems(file.path, dataset.schema, wanted))
        for batch in iterate_batches(dataset, file, columns, BATCH_ROWS):
            is_it = pc.equal(batch["request_id"].cast(pa.string()), request_id)
            found = batch.filter(pc.fill_null(is_it, False))
            if len(found):
                require_none(null_problems(file.path, pa.table(found), wanted))
                return found["user_id"][0].as_py(), pc.min(found["impressed_at"]).as_py()
    first, last = event_log.span("impressions")
    raise ConfigurationError(
        f"the event log at {event_log.uri} has no request {request_id!r}; expected one of its "
        f"impressions from {first} to {last}; correct --request"
    )


def find_user(event_log: EventLog, text: str) -> int:
    """Return the id of the user that a text names: a name of the log's writer, or the id itself.

    In a log whose ids were made from names, '007' is a name and not 7; an id is taken as one only
    where no user has it as a name.

    Raises:
        ConfigurationError: the log keeps names, and none is this one or that of this id; or it
            keeps none, and the text is no id.
    """
    number = int(text) if re.fullmatch(r"-?\d+", text) else None
    if not has_names(event_log, "user_id"):
        if number is None or not -(2**63) <= number < 2**63:
            raise ConfigurationError(
                f"--user is {text!r}; expected a whole number, because the ids of users in the "
                f"event log at {event_log.uri} are such; correct it"
            )
        return number
    own = id_of(text)
    known = names_of(event_log, "user_id", [own] if number is None else [own, number])
    for each in (own, number):
        if each in known:
            assert each is not None  # it is an id
            return each
    raise ConfigurationError(
        f"the event log at {event_log.uri} has no user {text!r}; expected a text as it was given "
        f"to EventLogWriter, because the ids of users in this log were texts, or the number that "
        f"the log has for it; correct --user"
    )


def named(number: int, names: dict[int, str]) -> str:
    """Return an id for a person: with the name that it was made from, where that is known."""
    return f"{number} ({names[number]!r})" if number in names else str(number)


def as_of_for(event_log: EventLog, recipe: RunConfig, at_ms: int | None) -> datetime:
    """Return the day after the log's last impressions, or an earlier one that suits an instant.

    Args:
        event_log: The log.
        recipe: What says how long the windows are, and how long a label is waited for.
        at_ms: The instant; where it lies in no window of that day's cycle, the earliest day whose
            holdout holds it. None asks for no instant.
    """
    last = _midnight(event_log.span("impressions")[1]) + timedelta(days=1)
    windows = plan_of(recipe, last).windows.values()
    if at_ms is None or any(window.start_ms <= at_ms < window.end_ms for window in windows):
        return last
    wait = timedelta(hours=recipe.snapshot.label_window_hours)
    end = _midnight(day_of(at_ms)) + timedelta(days=1) + wait
    return end if end == floor_to_day(end) else floor_to_day(end) + timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def build_one_user(
    event_log: EventLog, recipe: RunConfig, as_of: datetime, user_id: int
) -> OneUser:
    """Build the shard that holds one user alone.

    Raises:
        DataContractError: the log breaks its contract in the rows that are read.
        ConfigurationError: the user has no impressions in the windows of as_of.
    """
    one_shard = recipe.snapshot.model_copy(update={"num_shards": 1})
    run = _run(recipe.model_copy(update={"snapshot": one_shard}), as_of, event_log.uri)
    plan = make_plan(run)
    with own_folder() as folder:
        own_log = _write_own_log(event_log, plan, user_id, folder / "event_log")
        out = folder / "out"
        out.mkdir()
        with _own_files_named(event_log, own_log):
            held = HeldRows(folder / "spilled", 1, memory_bytes=sys.maxsize)
            found = merge_summaries([run_task(task, held) for task in make_tasks(own_log, plan)])
            found = replace(found, first_seen=_first_seen(event_log, plan, found))
            _, pin_index = count_pins(event_log, found, plan, out)
            tables = build_shard(held.take(0), pin_index, plan)
        pins = open_table(out, PINS_FILE)
    own_names = names_of(event_log, "user_id", [user_id])
    return OneUser(
        plan, tables, pins, own_names, names_of(event_log, "pin_id", pins["pin_id"].to_pylist())
    )


def _first_seen(
    event_log: EventLog, plan: SnapshotPlan, found: SpillSummary
) -> tuple[FirstSeen, ...]:
    """Return when the user's pins were first seen by anybody: shown, or as was found, acted on."""
    seen = [*found.first_seen]
    for file in files_read(event_log, plan)[0]:
        shown = first_shown(event_log, (file,), plan)
        ours = np.isin(shown.pin_id, found.pin_ids)
        seen.append(FirstSeen(shown.pin_id[ours], shown.day[ours], shown.known_at[ours]))
    return tuple(seen)


def _run(recipe: RunConfig, as_of: datetime, event_log_uri: str) -> ResolvedRun:
    """Return a run of the recipe that nobody runs: a plan is made of one."""
    names = ("run_id", "run_uri", "code_version", "workspace_uri", "tracking_uri", "experiment")
    fields: dict[str, object] = dict.fromkeys((*names, "registered_model", "trigger"), "shown")
    fields |= {"champion": None, "last_accepted_snapshot_uri": None}
    return ResolvedRun.model_validate(
        fields
        | {"as_of": as_of, "config": recipe, "event_log_uri": event_log_uri}
        | {"may_promote": False, "num_devices": 1}
    )


def _write_own_log(event_log: EventLog, plan: SnapshotPlan, user_id: int, folder: Path) -> EventLog:
    """Write the rows that a user's shard needs as an event log of its own; the pins stay."""
    impressions, actions, users = files_read(event_log, plan)
    user = pa.scalar(user_id, pa.int64())
    shown: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
    for file in impressions:
        rows = _rows_of(event_log, file, user, None)
        _write(rows, _place(event_log, file, folder))
        shown.append(np.asarray(rows["pin_id"].drop_null()).astype(np.int64))
    pins = np.unique(np.concatenate(shown))
    if len(pins) == 0:
        training, holdout = plan.windows.values()
        whose = named(user_id, names_of(event_log, "user_id", [user_id]))
        raise ConfigurationError(
            f"user {whose} has no impressions from {training.start:%Y-%m-%d} to "
            f"{holdout.end:%Y-%m-%d} in the event log at {event_log.uri}, the windows of as_of "
            f"{plan.as_of:%Y-%m-%d}; expected some; correct --user, --request or --as-of"
        )
    for file in actions:
        rows = _rows_of(event_log, file, user, pa.array(pins))
        _write(rows, _place(event_log, file, folder))
    for file in users:
        _write(_rows_of(event_log, file, user, None), _place(event_log, file, folder))
    kept = [
        LogFile(file.table, str(_place(event_log, file, folder)), file.day, 0)
        for file in (*impressions, *actions, *users)
    ]
    return EventLog(folder.as_uri(), tuple(kept))


@contextlib.contextmanager
def _own_files_named(event_log: EventLog, own_log: EventLog) -> Iterator[None]:
    """Have errors about the copy of a user's rows name the files that the rows come from."""
    try:
        yield
    except DataContractError as error:
        (_, root), (_, copy) = (open_filesystem(each.uri) for each in (event_log, own_log))
        if copy not in str(error):
            raise
        text = str(error).replace(copy, root)
        counted = " (rows are counted among those of the user and of the pins shown to the user)"
        raise type(error)(text + (counted if " row" in text else "")) from error


def _rows_of(
    event_log: EventLog, file: LogFile, user: pa.Scalar, pins: pa.Array | None
) -> pa.Table:
    """Return a file's rows of a user, and those on some pins."""
    dataset = open_file(event_log, file)
    contract = contract_of(file.table, dataset.schema.names)
    require_none(column_problems(file.path, dataset.schema, contract))
    parts = []
    for batch in iterate_batches(dataset, file, dataset.schema.names, BATCH_ROWS):
        is_wanted = pc.equal(batch["user_id"], user)
        if pins is not None:
            is_wanted = pc.or_kleene(is_wanted, pc.is_in(batch["pin_id"], value_set=pins))
        parts.append(batch.filter(pc.fill_null(is_wanted, False)))
    return pa.Table.from_batches(parts, dataset.schema)


def _place(event_log: EventLog, file: LogFile, folder: Path) -> Path:
    """Return where a file's copy lies: where the file lies in its log, whose names are its own."""
    _, root = open_filesystem(event_log.uri)
    return folder / file.path.removeprefix(root).lstrip("/")


def _write(rows: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)


def request_row(built: OneUser, request_id: str) -> int:
    """Return the row of a request in the user's shard; the newest one where no name is given.

    Raises:
        ConfigurationError: the request is in neither window, or the user has none there.
    """
    names = built.tables.requests["request_id"].to_pylist()
    if names and not request_id:
        return len(names) - 1
    if request_id in names:
        return int(names.index(request_id))
    windows = " and ".join(
        f"{name} {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}"
        for name, window in built.plan.windows.items()
    )
    what = f"request {request_id!r}" if request_id else "no request of the user"
    raise ConfigurationError(
        f"{what} is in {'no' if request_id else 'a'} window of as_of "
        f"{built.plan.as_of:%Y-%m-%d}; expected {windows}, and rows known before "
        f"as_of; leave --as-of out, or give a later day"
    )


def value_of(built: OneUser, row: int) -> dict[str, Any]:
    """Return what a model would see of the request in a row; times in milliseconds, UTC."""
    tables, features = built.tables, built.plan.features
    request = _row(tables.requests, row)
    user = _row(tables.users, request["user_row"])
    actions = range(request["timeline_end"] - 1, request["timeline_start"] - 1, -1)
    first = request["first_example"]
    return {
        "as_of": built.plan.as_of,
        "request_id": request["request_id"],
        "user": named(request["user_id"], built.user_names),
        "impressed_at_ms": request["impressed_at"],
        "split": "holdout" if request["split"] == SPLIT_HOLDOUT else "training",
        "is_core": bool(request["is_core"]),
        "user_row": {
            "as_of_ms": user["as_of"],  # 0 where there is none before the request
            "embedding_length": float(np.linalg.norm(np.array(user["embedding"], np.float32))),
            "categories": _categories(user, features.categorical_of("users")),
        },
        "actions": [
            {
                "action_type": features.action_types[action["action_type_id"] - 1],
                "pin": _pin(built, action["pin_row"]),
                "acted_at_ms": action["acted_at"],
                "known_at_ms": action["known_at"],
            }
            for action in (_row(tables.timeline, place) for place in actions)
        ],
        "candidates": [
            _candidate(built, _row(tables.examples, place))
            for place in range(first, first + request["num_examples"])
        ],
    }


def _candidate(built: OneUser, example: dict[str, Any]) -> dict[str, Any]:
    start, features = numeric_column(""), built.plan.features
    pin = _row(built.pins, example["pin_row"])
    return {
        "position": example["position"],
        "pin": _pin(built, example["pin_row"]),
        "got": [head for head in features.head_names if example[label_column(head)] == 1],
        "numbers": {
            name.removeprefix(start): value
            for name, value in example.items()
            if name.startswith(start)
        },
        "categories": _categories(example, features.categorical_of("impressions"))
        | _categories(pin, features.categorical_of("pins")),
    }


def _pin(built: OneUser, pin_row: int) -> str:
    return named(built.pins["pin_id"][pin_row].as_py(), built.pin_names)


def _row(table: Any, row: int) -> dict[str, Any]:
    return {name: table[name][row].as_py() for name in table.column_names}


def _categories(
    row: dict[str, Any], features: tuple[CategoricalFeature, ...]
) -> dict[str, str | None]:
    """Return the value of each feature; None where it is not listed."""
    codes = {each.name: row[categorical_column(each.name)] for each in features}
    return {
        each.name: each.values[codes[each.name] - 1] if codes[each.name] else None
        for each in features
    }


def lines_of(built: OneUser, row: int) -> Iterator[str]:
    """Yield what a model would see of the request in a row, line by line."""
    value = value_of(built, row)
    window, user, at = (
        built.plan.windows[value["split"]],
        value["user_row"],
        value["impressed_at_ms"],
    )
    yield (
        f"request {value['request_id']} of user {value['user']} at {_time(at)}; in the "
        f"{value['split']} window of as_of {built.plan.as_of:%Y-%m-%d}, "
        f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}"
        f"; {'a core' if value['is_core'] else 'no core'} user"
    )
    is_known, known = user["as_of_ms"], f"as of {_time(user['as_of_ms'])}"
    yield (
        f"user row: {known if is_known else 'none before the request: the user is new'}; "
        f"embedding of length {user['embedding_length']:.3f}{_told(user['categories'])}"
    )
    count, shown = len(value["actions"]), value["actions"][:ACTIONS_SHOWN]
    newest = f", the newest {len(shown)}" if len(shown) < count else ""
    yield f"actions known before it: {count}{newest}"
    for action in shown:
        yield (
            f"  {action['action_type']} on pin {action['pin']}, "
            f"{_age(at - action['acted_at_ms'])} before, at {_time(action['acted_at_ms'])}, "
            f"known at {_time(action['known_at_ms'])}"
        )
    yield f"candidates: {len(value['candidates'])}"
    for each in value["candidates"]:
        numbers = ", ".join(f"{name} {number:.3f}" for name, number in each["numbers"].items())
        yield (
            f"  position {each['position']}: pin {each['pin']}, "
            f"got {' and '.join(each['got']) or 'nothing'}; {numbers}{_told(each['categories'])}"
        )


def _told(categories: dict[str, str | None]) -> str:
    none = "a value that is not listed"
    return "".join(
        f", {name} {none if text is None else text}" for name, text in categories.items()
    )


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _age(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1000:.1f} s"
