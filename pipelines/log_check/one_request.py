"""Shows what a model would see of one request of an event log; nothing is judged or published.

The log is read as for a snapshot, and the rows of one user alone are kept: what is counted by pin
counts everybody's. The shard of that user is built by the kernel that builds every snapshot, and
what is told comes from its tables; nothing is computed again. Tested in
tests/pipelines/log_check/test_one_request.py.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import own_temporary_folder
from pipelines.contracts.schemas import (
    IMPRESSIONS,
    PINS_FILE,
    categorical_column,
    label_column,
    numeric_column,
)
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import floor_to_day
from pipelines.event_log.log_files import EventLog
from pipelines.event_log.reader import names_of, open_file, read_file
from pipelines.event_log.rules import column_problems, null_problems, require_none
from pipelines.snapshot.build import rows_of_one_shard
from pipelines.snapshot.kernel import build_shard
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.snapshot.shard import ShardTables
from pipelines.storage import scratch_folder


def show_request(event_log: EventLog, recipe: RunConfig, request_id: str) -> dict[str, Any]:
    """Return what a model would see of a request.

    Raises:
        ConfigurationError: the log has no such request, or no cycle would read it.
        DataContractError: the log breaks its contract in the files that are read.
    """
    user_id, at = find_request(event_log, request_id)
    # As of the earliest day whose holdout has the instant, in one shard.
    one_shard = recipe.snapshot.model_copy(update={"num_shards": 1})
    days = 1 - (-one_shard.label_window_hours // 24)  # the request's, and those of its labels
    as_of = floor_to_day(at) + timedelta(days=days)
    plan = plan_of(recipe.model_copy(update={"snapshot": one_shard}), as_of)
    built = build_one_user(event_log, plan, user_id)
    names = built[0].requests["request_id"].to_pylist() if built else []
    if built is None or request_id not in names:
        raise ConfigurationError(
            f"request {request_id!r} of user {user_id} has no impressions in the event log at "
            f"{event_log.uri} that a cycle of {plan.as_of:%Y-%m-%d} would judge; expected some "
            f"from {plan.holdout.start} on, known before that day; name another one"
        )
    return _value(event_log, plan, *built, names.index(request_id))


def find_request(event_log: EventLog, request_id: str) -> tuple[int, datetime]:
    """Return whose a request is, and when it began.

    Raises:
        ConfigurationError: the log has no such request.
        DataContractError: a file that is looked into lacks a column for that, or the request has
            no user or no time.
    """
    wanted = pa.schema([IMPRESSIONS.field(n) for n in ("request_id", "user_id", "impressed_at")])
    for file in reversed(event_log.files_of("impressions")):
        dataset = open_file(event_log, file)
        require_none(column_problems(file.path, dataset.schema, wanted))
        is_it = ds.field("request_id").cast(pa.string()) == request_id
        found = read_file(dataset, file, wanted.names, is_it)
        if len(found):
            require_none(null_problems(file.path, found, wanted.names, wanted))
            at = datetime.fromtimestamp(pc.min(found["impressed_at"]).as_py() / 1000, UTC)
            return found["user_id"][0].as_py(), at
    first, last = event_log.span("impressions")
    raise ConfigurationError(
        f"the event log at {event_log.uri} has no request {request_id!r}; expected one of its "
        f"impressions from {first} to {last}; correct --request"
    )


def build_one_user(
    event_log: EventLog, plan: SnapshotPlan, user_id: int
) -> tuple[ShardTables, pa.Table] | None:
    """Return the shard of one user and its pins; None without impressions in the plan's windows.

    Raises:
        DataContractError: the log breaks its contract in the files that are read.
    """
    # Where this process is killed, the next check or look removes the folder.
    with scratch_folder(own_temporary_folder("scratch").as_uri()) as out:
        own, found = rows_of_one_shard(
            event_log, plan, out, lambda rows: rows.filter(pc.equal(rows["user_id"], user_id))
        )
        if own.impressions is None or len(own.impressions) == 0:
            return None
        pin_ids = [np.asarray(t["pin_id"]) for t in (own.impressions, own.actions) if t is not None]
        found = replace(found, pin_ids=np.unique(np.concatenate(pin_ids)))
        pin_index = count_pins(event_log, found, plan, out)
        return build_shard(own, pin_index, plan), open_table(out, PINS_FILE)


def _value(
    event_log: EventLog, plan: SnapshotPlan, tables: ShardTables, pins: pa.Table, row: int
) -> dict[str, Any]:
    features, start = plan.features, numeric_column("")
    [request] = tables.requests.slice(row, 1).to_pylist()
    [user] = tables.users.slice(request["user_row"], 1).to_pylist()
    first = request["timeline_start"]
    timeline = tables.timeline.slice(first, request["timeline_end"] - first).to_pylist()
    examples = tables.examples.slice(request["first_example"], request["num_examples"]).to_pylist()
    all_pins, user_id = pins.drop_columns(["embedding"]).to_pylist(), request["user_id"]
    names = names_of(event_log, "pin_id", [each["pin_id"] for each in all_pins])
    pin_of = [_named(each["pin_id"], names) for each in all_pins]

    def categories(row: dict[str, Any], table: str) -> dict[str, str | None]:
        """Return the value of each feature; None where it is not listed."""
        known = {f.name: (None, *f.values) for f in features.categorical_of(table)}
        return {name: values[row[categorical_column(name)]] for name, values in known.items()}

    return {
        "as_of": f"{plan.as_of:%Y-%m-%d}",
        "request_id": request["request_id"],
        "user": _named(user_id, names_of(event_log, "user_id", [user_id])),
        "impressed_at": _time(request["impressed_at"]),
        "is_core": bool(request["is_core"]),
        "user_row": {
            "as_of": _time(user["as_of"]),  # 1970, where there is none before the request
            "categories": categories(user, "users"),
        },
        "actions": [
            {
                "action_type": features.action_types[action["action_type_id"] - 1],
                "pin": pin_of[action["pin_row"]],
                "acted_at": _time(action["acted_at"]),
                "known_at": _time(action["known_at"]),
            }
            for action in reversed(timeline)
        ],
        "candidates": [
            {
                "position": each["position"],
                "pin": pin_of[each["pin_row"]],
                "got": [head for head in features.head_names if each[label_column(head)] == 1],
                "numbers": {
                    name.removeprefix(start): None if number is None else round(number, 3)
                    for name, number in each.items()
                    if name.startswith(start)
                },
                "categories": categories(each, "impressions")
                | categories(all_pins[each["pin_row"]], "pins"),
            }
            for each in examples
        ],
    }


def _named(number: int, names: dict[int, str]) -> str:
    return f"{number} ({names[number]!r})" if number in names else str(number)


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
