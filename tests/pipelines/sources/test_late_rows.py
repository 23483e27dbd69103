"""Rows that arrive late: they are added once, change no earlier snapshot, and small files go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import to_ms
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.reader import open_file
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.sources import event_log_writer, publish
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.storage import to_uri
from support.own_tables import (
    acted_on,
    give,
    pins,
    record_of,
    rows_of_log,
    shown_on,
    write_own_log,
)
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world

DAY = pd.Timedelta("1D")


def late(location: Path, *, known_after: pd.Timedelta = DAY, **batches: pd.DataFrame) -> None:
    """Add rows of days that a log may have, known some time after they happened."""
    for table, rows in batches.items():
        time = "impressed_at" if table == "impressions" else "acted_at"
        batches[table] = rows.assign(known_at=rows[time] + known_after)
    give(location, late_rows=True, pins=pins(), **batches)


def test_late_rows_are_added_to_a_day_that_is_there_and_the_same_block_counts_once(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    write_own_log(log, 2, 3)
    acted = acted_on(2).assign(pin_id="p0")
    shown = shown_on(2, num_requests=1).assign(request_id="late", position=[0, 1, 2])
    late(log, actions=acted, impressions=shown)
    before = record_of(log)
    late(log, actions=acted.iloc[::-1], impressions=shown)  # as a writer that died does again
    assert record_of(log) == before
    assert before.num_rows == {"impressions": 21, "actions": 6, "pins": 3, "users": 2}
    rows = rows_of_log(log, "actions")
    delays = [row["known_at"] - row["acted_at"] for row in rows]
    assert sorted(delays) == [0, 0, 0, 0, 86_400_000, 86_400_000]


def test_what_a_late_row_leaves_out_is_not_made_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_own_log(log, 2)
    give(log, complete_to=datetime(2024, 1, 4, tzinfo=UTC), actions=acted_on(3))
    for table, rows, says in (
        ("actions", acted_on(2), "known_at"),
        ("impressions", shown_on(2).assign(known_at=pd.Timestamp(2024, 1, 5)), "position"),
    ):
        with pytest.raises(DataContractError, match=f"{table}, batch 1: .*{says}"):
            give(log, late_rows=True, **{table: rows})
    says = "known_at is .*2024-01-03 07:00.*; expected none before 2024-01-04 00:00 UTC"
    with pytest.raises(DataContractError, match=says):
        late(log, actions=acted_on(2))
    late(log, actions=acted_on(2), known_after=2 * DAY)


def test_a_snapshot_is_the_same_bytes_whatever_came_after_its_as_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log_writer, "_MANY_SMALL_FILES", 4)
    write_planted_world(tmp_path / "planted", num_users=60, num_days=67)
    tables = {}
    for table in ("pins", "users", "impressions", "actions"):
        files = sorted((tmp_path / "planted" / table).rglob("*.parquet"))
        parts = [pq.read_table(path, partitioning=None) for path in files]
        tables[table] = pa.concat_tables(parts)
    [version] = set(tables["pins"]["embedding_version"].to_pylist())
    as_of, cut = PLANTED_AS_OF, to_ms(PLANTED_AS_OF)
    log, later = tmp_path / "event_log", list[pa.Table]()
    with EventLogWriter(log, version, complete_to=as_of) as writer:
        for table, rows in tables.items():
            is_known = pc.less(rows["known_at"], cut) if "known_at" in rows.column_names else None
            getattr(writer, table)(rows.filter(is_known) if is_known is not None else rows)
    first = write_snapshot(make_run(tmp_path, smoke(), as_of))
    # What became known later comes hour by hour, and much of it is of days before.
    for n in range(20):
        low, high = cut + n * 6 * 3_600_000, cut + (n + 1) * 6 * 3_600_000
        with EventLogWriter(log, version, late_rows=True) as writer:
            for table in ("impressions", "actions"):
                known = tables[table]["known_at"]
                within = pc.and_(pc.greater_equal(known, low), pc.less(known, high))
                later.append(tables[table].filter(within))
                getattr(writer, table)(later[-1])
    assert sum(map(len, later)) > 1000 and record_of(log).dropped
    folders = pd.Series([name.rpartition("/")[0] for name in record_of(log).files])
    assert folders.value_counts().max() <= 5
    for days, name in ((0, "again"), (5, "then")):
        here = make_run(tmp_path, smoke(), as_of + timedelta(days=days), run_id=name)
        found = write_snapshot(here)
        there = here.model_copy(update={"event_log_uri": to_uri(tmp_path / "planted")})
        assert found.shards == write_snapshot(there).shards
        assert days or found.shards == first.shards


def test_a_reader_keeps_the_files_that_it_has_listed_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    write_own_log(log, 2, 3)
    reader = open_event_log(to_uri(log))
    give(log, replace_days=True, actions=acted_on(3).iloc[:1])
    assert sum(open_file(reader, file).count_rows() for file in reader.files_of("actions")) == 4
    assert len(rows_of_log(log, "actions")) == 3
    monkeypatch.setattr(publish, "READ_WITHIN", timedelta(0))
    write_own_log(log, 4)
    [gone] = {file.path for file in reader.files} - {
        str(log / name) for name in record_of(log).files
    }
    assert not Path(gone).exists() and not record_of(log).dropped
