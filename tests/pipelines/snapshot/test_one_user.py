"""A user with nearly all events takes one shard's room, and changes nothing for the others."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.schemas import ACTIONS
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
from support.random_log import AS_OF, NUM_DAYS, NUM_PINS, START_MS, config_of, write_random_log
from support.runs import make_run
from support.worlds import write_events

BUSY_USER, NUM_EVENTS = 3, 300_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The random log, to whose days a user adds far more actions than all others together."""
    rows = write_random_log(tmp_path / "event_log")
    rng = np.random.default_rng(2)
    times = np.sort(START_MS + rng.integers(0, NUM_DAYS * DAY_MS, NUM_EVENTS))
    busy = pa.table(
        {
            "user_id": np.full(NUM_EVENTS, BUSY_USER),
            "pin_id": rng.integers(0, NUM_PINS, NUM_EVENTS),
            "action_type": pa.array(["click"]).take(pa.array(np.zeros(NUM_EVENTS, dtype=int))),
            "acted_at": times,
            "known_at": times,
            "request_id": pa.nulls(NUM_EVENTS, pa.string()),
        },
        schema=ACTIONS,
    )
    others = pa.Table.from_pylist(rows.actions, schema=ACTIONS)
    write_events(tmp_path / "event_log", "actions", pa.concat_tables([others, busy]))
    return tmp_path


def test_the_bytes_depend_neither_on_memory_nor_on_threads(log: Path) -> None:
    run = make_run(log, config_of(num_shards=4), AS_OF)
    ample = write_snapshot(run, num_workers=2)
    assert write_snapshot(run, num_workers=2, memory_bytes=1).digest == ample.digest
    assert write_snapshot(run, num_workers=1).digest == ample.digest
    assert max(shard.num_actions for shard in ample.shards) > 100_000


def test_a_request_sees_the_users_newest_actions(log: Path) -> None:
    snapshot = write_snapshot(make_run(log, config_of(num_shards=4), AS_OF))
    folder, lengths = local_path(snapshot.uri), {}
    for shard in snapshot.shards:
        requests = open_table(folder, f"{shard.name}/requests.arrow")
        known_at = np.asarray(open_table(folder, f"{shard.name}/timeline.arrow")["known_at"])
        for request in requests.to_pylist():
            start, end = request["timeline_start"], request["timeline_end"]
            is_theirs = request["user_id"] == BUSY_USER
            assert end == start or known_at[end - 1] < request["impressed_at"]
            lengths.setdefault(is_theirs, []).append(end - start)
    assert min(lengths[True]) > 50_000 and max(lengths[False]) < 200
