"""A hand-written event log of January 2017, small enough to work every answer out on paper.

Windows at as_of 20 January: training [15, 17), embargo [17, 18), holdout [18, 19). Not random and
not for training: that is `worlds`.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import ACTIONS, EMBEDDING_DIM, IMPRESSIONS, PINS, USERS
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import list_names, local_path, to_uri
from support.runs import make_run
from support.worlds import embedding_column, write_events, write_rows

TINY_AS_OF = datetime(2017, 1, 20, tzinfo=UTC)
IMPRESSIONS_15 = "impressions/day=2017-01-15/part-0.parquet"
ACTIONS_15 = "actions/day=2017-01-15/part-0.parquet"
Row = dict[str, Any]


def january(text: str) -> int:
    """Return milliseconds of e.g. '15 08:00:00.000' in January 2017."""
    pattern = "%d %H:%M:%S.%f" if "." in text else "%d %H:%M"
    return to_ms(datetime.strptime(text, pattern).replace(year=2017, tzinfo=UTC))


def tiny_config(**snapshot: Any) -> RunConfig:
    """Return `smoke()` with windows of days."""
    base = smoke()
    days = {"training_days": 2, "embargo_days": 1, "holdout_days": 1, "history_days": 5}
    days |= {"popularity_days": 3, "core_days": 4, "num_shards": 1}
    update = {"snapshot": base.snapshot.model_copy(update=days | snapshot)}
    return base.model_copy(update=update)


def impression(
    request_id: str, user_id: int, pin_id: int, time_ms: int, position: int, **more: Any
) -> Row:
    """Return a candidate that was shown, known in the same millisecond."""
    keys = {"request_id": request_id, "user_id": user_id, "pin_id": pin_id, "position": position}
    usual = {"surface": "homefeed", "is_exploration": False, "propensity": None}
    return keys | usual | {"impressed_at": time_ms, "known_at": time_ms} | more


def action(
    user_id: int, pin_id: int, kind: str, acted_at: int, known_at: int, request_id: str | None
) -> Row:
    """Return one action, whose times are in milliseconds."""
    keys = {"user_id": user_id, "pin_id": pin_id, "action_type": kind, "request_id": request_id}
    return keys | {"acted_at": acted_at, "known_at": known_at}


def shown(request_id: str, user_id: int, when: str, *pin_ids: int) -> list[Row]:
    """Return a request's impressions in the order given, known in the same millisecond."""
    time_ms = january(when)
    return [impression(request_id, user_id, pin, time_ms, n) for n, pin in enumerate(pin_ids)]


def acted(
    user_id: int, pin_id: int, kind: str, when: str, known: str, request_id: str | None = None
) -> Row:
    """Return one action."""
    return action(user_id, pin_id, kind, january(when), january(known), request_id)


def days_before(row: Row, num_days: int) -> Row:
    """Return an action that happened, and became known, some days earlier."""
    earlier = {name: row[name] - num_days * DAY_MS for name in ("acted_at", "known_at")}
    return {**row, **earlier}


def tiny_impressions() -> list[Row]:
    """Return requests on, just inside and just outside every edge of the windows."""
    return [
        *shown("too-old", 1, "14 23:59:59.999", 10),
        *shown("A", 1, "15 00:00", 10, 20),
        *shown("B", 2, "16 12:00", 20, 30),
        *shown("embargo", 1, "17 00:00", 10),
        *shown("C", 1, "18 00:00", 10, 30),
        *shown("D", 1, "18 23:59:59.999", 20, 10),
        *shown("immature", 2, "19 00:00", 10),
    ]


def tiny_actions() -> list[Row]:
    """Return actions on, just inside and just outside every edge."""
    return [
        acted(1, 40, "click", "09 23:59:59.999", "10 00:10"),  # before the history
        acted(1, 40, "click", "10 00:00", "10 00:10"),  # the history's first instant
        acted(2, 20, "repin", "12 08:00", "12 09:00"),
        acted(1, 10, "repin", "15 00:00", "15 00:05", "A"),  # at the impression: a label
        acted(1, 20, "repin", "16 00:00", "16 00:01", "A"),  # 24 h after: no label
        acted(2, 30, "repin", "17 10:00", "18 00:00"),  # labels B; known at midnight, not before
        acted(2, 30, "long_click", "17 11:59:59.999", "17 12:30"),  # just inside B's window
        acted(1, 10, "repin", "18 01:00", "18 02:00", "C"),
        acted(1, 30, "repin", "18 02:00", "18 03:00", "elsewhere"),  # not of request C
        acted(1, 30, "repin", "18 00:30", "20 00:00"),  # known at as_of, not before
    ]


def write_tiny_log(
    folder: Path, impressions: list[Row] | None = None, actions: list[Row] | None = None
) -> None:
    """Write the tiny log anew, or other impressions and actions with its pins and users."""
    shutil.rmtree(folder, ignore_errors=True)
    shown_rows = tiny_impressions() if impressions is None else impressions
    acted_rows = tiny_actions() if actions is None else actions
    write_events(folder, "impressions", pa.Table.from_pylist(shown_rows, schema=IMPRESSIONS))
    write_events(folder, "actions", pa.Table.from_pylist(acted_rows, schema=ACTIONS))
    write_rows(folder, "pins", pins_of([10, 20, 30, 40, 50]))
    days = ["10 00:00", "15 00:00", "19 00:00"]
    write_rows(folder, "users", users_of([(1, january(day)) for day in days]))


def build_tiny(
    folder: Path, config: RunConfig | None = None, as_of: datetime = TINY_AS_OF
) -> Snapshot:
    """Return the snapshot of `<folder>/event_log`."""
    return write_snapshot(make_run(folder, config or tiny_config(), as_of))


def rows_of(snapshot: Snapshot, name: str) -> list[Row]:
    """Return the rows of one file of the snapshot's only shard."""
    return open_table(local_path(snapshot.uri), f"shard-00000/{name}.arrow").to_pylist()


def assert_refused(
    folder: Path, pattern: str, config: RunConfig | None = None, as_of: datetime = TINY_AS_OF
) -> None:
    """Check that the snapshot is refused for this reason and that nothing was published."""
    with pytest.raises(DataContractError, match=pattern) as caught:
        build_tiny(folder, config, as_of)
    assert caught.value.exit_code == 65
    assert not caught.value.is_retryable
    assert list_names(to_uri(folder / "workspace" / "snapshots")) == []


def pins_of(pin_ids: list[int], version: str = "planted-1") -> pa.Table:
    """Return pins whose embedding is their id divided by 100, 32 times."""
    rows = np.repeat(np.array(pin_ids, dtype=np.float32)[:, None] / 100, EMBEDDING_DIM, axis=1)
    return pa.table([pin_ids, [version] * len(pin_ids), embedding_column(rows)], schema=PINS)


def with_pin_times(folder: Path, known: dict[int, str]) -> None:
    """Write the tiny log's pins anew, only these, each known from an instant of January 2017 on."""
    times = pa.array([january(when) for when in known.values()], pa.int64())
    write_rows(folder, "pins", pins_of(list(known)).append_column("known_at", times))


def users_of(keys: list[tuple[int, int]]) -> pa.Table:
    """Return user rows of (user_id, as_of) with embeddings of ones."""
    ones = embedding_column(np.ones((len(keys), EMBEDDING_DIM)))
    columns = [[k[0] for k in keys], [k[1] for k in keys], ones, ["core"] * len(keys)]
    return pa.table([*columns, pa.nulls(len(keys), pa.string())], schema=USERS)


def rewrite(folder: Path, relative: str, column: str, values: pa.Array | None) -> Path:
    """Replace (or drop, with None) one column of a file of the log; return the file's path."""
    path = Path(folder) / relative
    rows = pq.read_table(path, partitioning=None)
    index = rows.schema.get_field_index(column)
    rows = rows.remove_column(index)
    if values is not None:
        rows = rows.add_column(index, pa.field(column, values.type), values)
    pq.write_table(rows, path)
    return path
