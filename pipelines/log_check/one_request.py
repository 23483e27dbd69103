"""Shows what a model would see of one request of an event log; nothing is judged or published.

The log is read as for a snapshot, and the rows of one user alone are kept: what is counted by pin
counts everybody's. The shard of that user is built by the kernel that builds every snapshot, and
what is told comes from its tables; nothing is computed again. Tested in
tests/pipelines/log_check/test_one_request.py.
"""

import functools
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import yaml

from pipelines.contracts.config import CategoricalFeature, RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.schemas import (
    IMPRESSIONS,
    PINS_FILE,
    SPLIT_HOLDOUT,
    categorical_column,
    label_column,
    numeric_column,
)
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import floor_to_day
from pipelines.event_log.log_files import EventLog, day_of
from pipelines.event_log.names import names_of
from pipelines.event_log.reader import open_file, read_file
from pipelines.event_log.rules import column_problems, null_problems, require_none
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.snapshot.pool import run_in_threads, usable_cores
from pipelines.snapshot.shard import ShardTables
from pipelines.snapshot.spill import HeldRows, deal_out, make_tasks, merge_as_they_come
from pipelines.storage import scratch_folder


@dataclass(frozen=True)
class OneUser:
    """A user's shard, and what its rows mean."""

    plan: SnapshotPlan
    tables: ShardTables
    pins: pa.Table
    user_names: dict[int, str]  # that ids were made from, where the log has them
    pin_names: dict[int, str]


def show_request(event_log: EventLog, recipe: RunConfig, request_id: str) -> dict[str, Any]:
    """Return what a model would see of a request; times in milliseconds, UTC.

    Raises:
        ConfigurationError: the log has no such request, or no cycle would read it.
        DataContractError: the log breaks its contract in the files that are read.
    """
    user_id, at_ms = find_request(event_log, request_id)
    built = build_one_user(event_log, recipe, as_of_for(event_log, recipe, at_ms), user_id)
    names = built.tables.requests["request_id"].to_pylist()
    if request_id not in names:
        raise ConfigurationError(
            f"request {request_id!r} is in no window of as_of {built.plan.as_of:%Y-%m-%d}; "
            f"expected {_told_windows(built.plan)}, and rows known before as_of; name another one"
        )
    return value_of(built, names.index(request_id))


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
        is_it = ds.field("request_id").cast(pa.string()) == request_id
        found = read_file(dataset, file, columns, is_it)
        if len(found):
            require_none(null_problems(file.path, found, columns, wanted))
            return found["user_id"][0].as_py(), pc.min(found["impressed_at"]).as_py()
    first, last = event_log.span("impressions")
    raise ConfigurationError(
        f"the event log at {event_log.uri} has no request {request_id!r}; expected one of its "
        f"impressions from {first} to {last}; correct --request"
    )


def as_of_for(event_log: EventLog, recipe: RunConfig, at_ms: int) -> datetime:
    """Return the day after the log's last impressions, or an earlier one that suits an instant.

    Where the instant lies in no window of that day's cycle, it is the earliest day whose holdout
    holds it.
    """
    end_of, midnight = timedelta(days=1), datetime.min.time().replace(tzinfo=UTC)
    last = datetime.combine(event_log.span("impressions")[1], midnight) + end_of
    windows = plan_of(recipe, last).windows.values()
    if any(window.start_ms <= at_ms < window.end_ms for window in windows):
        return last
    wait = timedelta(hours=recipe.snapshot.label_window_hours)
    end = datetime.combine(day_of(at_ms), midnight) + end_of + wait
    return end if end == floor_to_day(end) else floor_to_day(end) + end_of


class _RowsOfOne(HeldRows):
    """Holds the rows of one user, of all that are dealt out; all stay in memory."""

    def __init__(self, folder: Path, user_id: int) -> None:
        super().__init__(folder, memory_bytes=sys.maxsize)
        self._user_id = user_id

    def keep(self, shard: int, table: str, rows: pa.Table) -> bool:
        """Keep the user's rows."""
        is_own = pc.equal(rows["user_id"], pa.scalar(self._user_id, pa.int64()))
        own = rows.filter(is_own)
        return len(own) == 0 or super().keep(shard, table, own)


def build_one_user(
    event_log: EventLog, recipe: RunConfig, as_of: datetime, user_id: int
) -> OneUser:
    """Build the shard that holds one user alone.

    Raises:
        DataContractError: the log breaks its contract in the files that are read.
        ConfigurationError: the user has no impressions in the windows of as_of.
    """
    one_shard = recipe.snapshot.model_copy(update={"num_shards": 1})
    plan = plan_of(recipe.model_copy(update={"snapshot": one_shard}), as_of)
    user_names = names_of(event_log, "user_id", [user_id])
    # Where this process is killed, the next check or look removes the folder.
    with scratch_folder(own_temporary_folder("scratch").as_uri()) as out:
        held = _RowsOfOne(out / "spilled", user_id)
        read = functools.partial(deal_out, put=held.keep)
        tasks = make_tasks(event_log, plan)
        found = merge_as_they_come(run_in_threads(read, tasks, usable_cores()))
        own = held.take(0)
        if own.impressions is None or len(own.impressions) == 0:
            raise ConfigurationError(
                f"user {named(user_id, user_names)} has no impressions in the event log at "
                f"{event_log.uri} in the windows of as_of {as_of:%Y-%m-%d}; expected some, known "
                f"before as_of, in {_told_windows(plan)}; name another request"
            )
        pin_ids = [np.asarray(t["pin_id"]) for t in (own.impressions, own.actions) if t is not None]
        found = replace(found, pin_ids=np.unique(np.concatenate(pin_ids)))
        _, pin_index = count_pins(event_log, found, plan, out)
        tables, pins = build_shard(own, pin_index, plan), open_table(out, PINS_FILE)
    pin_names = names_of(event_log, "pin_id", pins["pin_id"].to_pylist())
    return OneUser(plan, tables, pins, user_names, pin_names)


def _told_windows(plan: SnapshotPlan) -> str:
    return " and ".join(
        f"{name} {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}"
        for name, window in plan.windows.items()
    )


def named(number: int, names: dict[int, str]) -> str:
    """Return an id for a person: with the name that it was made from, where that is known."""
    return f"{number} ({names[number]!r})" if number in names else str(number)


def value_of(built: OneUser, row: int) -> dict[str, Any]:
    """Return what a model would see of the request in a row; times in milliseconds, UTC."""
    tables, features, start = built.tables, built.plan.features, numeric_column("")
    request = _row(tables.requests, row)
    user = _row(tables.users, request["user_row"])
    pin_of = [named(pin, built.pin_names) for pin in built.pins["pin_id"].to_pylist()]
    first = request["first_example"]
    examples = [_row(tables.examples, first + place) for place in range(request["num_examples"])]
    newest_first = range(request["timeline_end"] - 1, request["timeline_start"] - 1, -1)
    return {
        "as_of": f"{built.plan.as_of:%Y-%m-%d}",
        "request_id": request["request_id"],
        "user": named(request["user_id"], built.user_names),
        "impressed_at_ms": request["impressed_at"],
        "split": "holdout" if request["split"] == SPLIT_HOLDOUT else "training",
        "is_core": bool(request["is_core"]),
        "user_row": {
            "as_of_ms": user["as_of"],  # 0, which is 1970, where there is none before the request
            "embedding_length": float(np.linalg.norm(np.array(user["embedding"], np.float32))),
            "categories": _categories(user, features.categorical_of("users")),
        },
        "actions": [
            {
                "action_type": features.action_types[action["action_type_id"] - 1],
                "pin": pin_of[action["pin_row"]],
                "acted_at_ms": action["acted_at"],
                "known_at_ms": action["known_at"],
            }
            for action in (_row(tables.timeline, place) for place in newest_first)
        ],
        "candidates": [
            {
                "position": each["position"],
                "pin": pin_of[each["pin_row"]],
                "got": [head for head in features.head_names if each[label_column(head)] == 1],
                "numbers": {
                    n.removeprefix(start): v for n, v in each.items() if n.startswith(start)
                },
                "categories": _categories(each, features.categorical_of("impressions"))
                | _categories(_row(built.pins, each["pin_row"]), features.categorical_of("pins")),
            }
            for each in examples
        ],
    }


def _row(table: Any, row: int) -> dict[str, Any]:
    return {name: table[name][row].as_py() for name in table.column_names}


def _categories(
    row: dict[str, Any], features: tuple[CategoricalFeature, ...]
) -> dict[str, str | None]:
    """Return the value of each feature; None where it is not listed."""
    codes = {each.name: row[categorical_column(each.name)] for each in features}
    return {e.name: e.values[codes[e.name] - 1] if codes[e.name] else None for e in features}


def lines_of(value: dict[str, Any]) -> list[str]:
    """Return what `show_request` returned as YAML, with times as people read them."""
    text = yaml.safe_dump(_readable(value), sort_keys=False, default_flow_style=None, width=1000)
    return text.splitlines()


def _readable(value: Any, name: str = "") -> Any:
    if isinstance(value, dict) and name in ("numbers", "categories"):
        return {key: _readable(each) for key, each in value.items()}  # the recipe's own names
    if isinstance(value, dict):
        return {key.removesuffix("_ms"): _readable(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if name.endswith("_ms"):
        return f"{datetime.fromtimestamp(value / 1000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
    return round(value, 3) if isinstance(value, float) else value
