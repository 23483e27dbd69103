"""Files of an event log: where they lie, damaged ones, ones from the future, names of ids."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from pipelines.contracts.time import LATEST_MS
from pipelines.event_log import reader
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.reader import Among, Before, EventFilter, names_of, read_events
from pipelines.sources import EventLogWriter
from pipelines.sources.writer.batches import id_of
from pipelines.storage import to_uri
from support.own_tables import VERSION, pins, shown_on, write_own_log
from support.tiny_log import (
    IMPRESSIONS_15,
    assert_refused,
    build_tiny,
    january,
)


def test_a_missing_or_empty_log_names_the_place_and_the_command(tmp_path: Path) -> None:
    says = r"no event log at file://.*/event_log: the folder is missing or empty.*homefeed ingest"
    assert_refused(tmp_path, says)
    (tmp_path / "event_log").mkdir()
    assert_refused(tmp_path, says)


@pytest.mark.parametrize("hidden", ["_temporary/0", ".staging", "day=2017-01-15/_tmp"])
def test_what_lies_in_a_hidden_folder_of_a_table_is_passed_over(log: Path, hidden: str) -> None:
    before = open_event_log(to_uri(log)).files
    under_way = log / "impressions" / hidden / "day=2017-01-15" / "part-0.parquet"
    under_way.parent.mkdir(parents=True)
    shutil.copy(log / IMPRESSIONS_15, under_way)
    (log / "impressions" / "day=2017-01-15" / "_SUCCESS").write_text("")
    (log / "impressions" / "day=2017-01-15" / ".part-1.parquet").write_text("unfinished")
    assert open_event_log(to_uri(log)).files == before
    assert len(before) > 0


def test_a_log_below_a_folder_whose_name_is_hidden_is_read(log: Path) -> None:
    above = log.parent / ".homefeed" / "_logs"
    above.parent.mkdir()
    log.rename(above)
    listed = open_event_log(to_uri(above))
    days = [str(file.day) for file in listed.files_of("impressions")]
    assert days == [f"2017-01-{day}" for day in range(14, 20)]
    assert [str(day) for day in listed.span("actions")] == ["2017-01-09", "2017-01-18"]


def test_several_files_of_a_day_are_one_day_and_ids_may_be_dictionaries(log: Path) -> None:
    expected = build_tiny(log.parent).digest
    path = log / IMPRESSIONS_15
    rows = pq.read_table(path, partitioning=None)
    place = rows.schema.get_field_index("request_id")
    coded = rows.set_column(place, "request_id", rows["request_id"].dictionary_encode())
    pq.write_table(rows.slice(1), path.with_name("part-1.parquet"))
    pq.write_table(coded.slice(0, 1), path)
    assert build_tiny(log.parent).digest == expected


def test_what_is_missing_or_absurd_passes_every_filter_because_the_checks_must_refuse_it() -> None:
    late, absurd = january("16 00:00"), LATEST_MS + 5
    known_at = pa.array([january("15 12:00"), None, late, absurd, late - 1], pa.int64())
    pin_id = pa.array([0, 1, 2, None, 4], pa.int64())
    rows = pa.RecordBatch.from_pydict({"pin_id": pin_id, "known_at": known_at})
    for wanted, expected in (
        (Before("known_at", late), [0, 1, None, 4]),
        (Among("pin_id", pa.array([0, 2, 9])), [0, 2, None]),
    ):
        assert wanted.of(rows)["pin_id"].to_pylist() == expected
        assert wanted.of(rows.slice(0, 1))["pin_id"].to_pylist() == [0]


def test_one_file_is_open_at_a_time(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that read many small files would have more open than a process may have."""
    opened: list[pq.ParquetFile] = []
    open_one = reader._open

    def count(*given: Any) -> pq.ParquetFile:
        assert all(each.closed for each in opened)
        opened.append(open_one(*given))
        return opened[-1]

    monkeypatch.setattr(reader, "_open", count)
    event_log = open_event_log(to_uri(log))
    files = event_log.files_of("actions")
    wanted = EventFilter(january("30 00:00"), 0, january("30 00:00"))
    assert len(read_events(event_log, files, wanted)) == 10
    assert len(opened) > len(files) > 2


def test_files_of_a_bucket_give_the_rows_that_files_of_a_disk_give(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_log = open_event_log(to_uri(log))
    files, wanted = event_log.files_of("actions"), EventFilter(january("18 00:00"), 0, LATEST_MS)
    read = read_events(event_log, files, wanted)
    far = fs.PyFileSystem(fs.FSSpecHandler(LocalFileSystem()))
    monkeypatch.setattr(reader, "open_filesystem", lambda uri: (far, uri.removeprefix("file://")))
    assert far.type_name != "local"
    assert read_events(event_log, files, wanted).equals(read)


def test_a_file_that_has_a_column_twice_is_named(log: Path) -> None:
    path = log / IMPRESSIONS_15
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.append_column("user_id", rows["user_id"]), path)
    assert_refused(log.parent, rf"{path}: column 'user_id' is there 2 times")


def test_names_of_every_increment_are_found_by_their_ids(log: Path, tmp_path: Path) -> None:
    write_own_log(tmp_path / "own", 1)
    with EventLogWriter(tmp_path / "own", VERSION) as writer:
        writer.pins(pins(3, 5))
        writer.impressions(shown_on(2, num_requests=4))
    own = open_event_log(to_uri(tmp_path / "own"))
    ids = [id_of("p1"), id_of("p4"), id_of("nobody's"), 7, 2**70]
    assert names_of(own, "pin_id", ids) == {id_of("p1"): "p1", id_of("p4"): "p4"}
    assert names_of(own, "user_id", [id_of("u3"), id_of("p1")]) == {id_of("u3"): "u3"}
    assert names_of(open_event_log(to_uri(log)), "pin_id", [10, 20]) == {}
