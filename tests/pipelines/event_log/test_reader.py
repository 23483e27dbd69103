"""Files of an event log: where they lie, damaged ones, ones from the future, names of ids."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs
from pyarrow.dataset import FileSystemDataset

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.contracts.time import LATEST_MS, to_ms
from pipelines.event_log import reader
from pipelines.event_log.log_files import EventLog, LogFile, open_event_log
from pipelines.event_log.reader import (
    Among,
    Before,
    EventFilter,
    ListedFile,
    append_numbers,
    list_files,
    names_of,
    positions,
    read_events,
)
from pipelines.sources.event_log_writer import id_of
from pipelines.storage import publish_folder, to_uri
from support.damage import damage_pages
from support.faulty_proxy import faulty_proxy
from support.own_tables import give, pins, shown_on, write_own_log
from support.tiny_log import (
    ACTIONS_15,
    IMPRESSIONS_15,
    TINY_AS_OF,
    assert_refused,
    build_tiny,
    january,
    with_pin_times,
)


def test_a_missing_or_empty_log_names_the_place_and_the_command(tmp_path: Path) -> None:
    says = r"no event log at file://.*/event_log: the folder is missing or empty.*homefeed ingest"
    assert_refused(tmp_path, says)
    (tmp_path / "event_log").mkdir()
    assert_refused(tmp_path, says)


@pytest.mark.parametrize("hidden", ["_temporary/0", ".staging", "day=2017-01-15/_tmp"])
def test_hidden_folders_of_a_table_are_passed_over_and_those_above_are_not(
    log: Path, hidden: str
) -> None:
    above = log.parent / ".homefeed" / "_logs"
    above.parent.mkdir()
    log.rename(above)
    before = open_event_log(to_uri(above))
    days = [str(file.day) for file in before.files_of("impressions")]
    assert days == [f"2017-01-{day}" for day in range(14, 20)]
    assert [str(day) for day in before.span("actions")] == ["2017-01-09", "2017-01-18"]
    under_way = above / "impressions" / hidden / "day=2017-01-15" / "part-0.parquet"
    under_way.parent.mkdir(parents=True)
    shutil.copy(above / IMPRESSIONS_15, under_way)
    for name in ("_SUCCESS", ".part-1.parquet"):
        (above / "impressions" / "day=2017-01-15" / name).write_text("unfinished")
    assert open_event_log(to_uri(above)) == before


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


def test_names_of_every_increment_are_found_by_their_ids(log: Path, tmp_path: Path) -> None:
    write_own_log(tmp_path / "own", 1)
    give(tmp_path / "own", pins=pins(3, 5), impressions=shown_on(2, num_requests=4))
    own = open_event_log(to_uri(tmp_path / "own"))
    ids = [id_of("p1"), id_of("p4"), id_of("nobody's"), 7, 2**70]
    assert names_of(own, "pin_id", ids) == {id_of("p1"): "p1", id_of("p4"): "p4"}
    assert names_of(own, "user_id", [id_of("u3"), id_of("p1")]) == {id_of("u3"): "u3"}
    assert names_of(open_event_log(to_uri(log)), "pin_id", [10, 20]) == {}


AS_OF_MS = to_ms(TINY_AS_OF)
STRADDLING = "actions/day=2017-01-18/part-0.parquet"
"""A file with rows known before as_of and rows known at it, so that its pages are read."""


def listed(folder: Path) -> dict[str, ListedFile]:
    log = open_event_log(to_uri(folder))
    return {file.path: file for file in list_files(log, log.files, AS_OF_MS).files}


def test_rows_known_before_as_of_are_counted(log: Path) -> None:
    files = listed(log)
    counts = {path: (file.num_rows, file.num_known) for path, file in files.items()}
    expected = {STRADDLING: (3, 2), ACTIONS_15: (1, 1)}
    expected |= {"pins/part-0.parquet": (5, 5), "users/part-0.parquet": (3, 3)}
    assert counts.items() >= expected.items()
    assert all(file.footer and file.modified_at for file in files.values())
    with_pin_times(log, {10: "01 00:00", 20: "19 23:59:59.999", 30: "20 00:00"})
    found = listed(log)["pins/part-0.parquet"]
    assert (found.num_rows, found.num_known) == (3, 2)


def test_rows_are_read_only_where_the_footer_does_not_tell(log: Path) -> None:
    """Pages that are damaged are not seen, where the bounds in the footer say enough."""
    path, before = log / ACTIONS_15, listed(log)[ACTIONS_15]
    pq.write_table(pq.read_table(path, partitioning=None), path, write_statistics=False)
    mute = listed(log)[ACTIONS_15]
    assert mute.num_known == before.num_known == 1
    assert mute.footer != before.footer
    pq.write_table(pq.read_table(path, partitioning=None), path)
    damage_pages(path, "known_at")
    assert listed(log)[ACTIONS_15].num_known == 1


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_damaged_file_is_listed_without_known_rows(log: Path, compression: str) -> None:
    """Where its footer is whole, arrow's error about a page is that of a failing disk."""
    path = log / STRADDLING
    pq.write_table(pq.read_table(path, partitioning=None), path, compression=compression)
    damage_pages(path, "known_at")
    found = listed(log)[STRADDLING]
    assert (found.num_rows, found.num_known) == (3, None)
    assert found.footer
    path.write_bytes(b"no parquet")
    found = listed(log)[STRADDLING]
    assert (found.num_bytes, found.footer, found.num_rows, found.num_known) == (10, "", None, None)


def test_a_store_that_fails_while_rows_are_counted_is_said_to_have_failed(
    log: Path, s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_folder(log, s3_uri)
    genuine = reader.open_file
    with faulty_proxy(s3_url) as proxy:

        def open_and_fail(event_log: EventLog, file: LogFile) -> FileSystemDataset:
            opened = genuine(event_log, file)
            proxy.choose = lambda method, path: "500"
            return opened

        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(reader, "open_file", open_and_fail)
        far = open_event_log(s3_uri)
        with pytest.raises(TransientStorageError, match=r"actions/day=.*: .*then retry"):
            list_files(far, far.files_of("actions"), AS_OF_MS)


def test_texts_have_one_position_however_a_file_holds_them() -> None:
    texts = pa.chunked_array([["b", None, "x"], [], ["a", "b"]], pa.string())
    coded = pa.chunked_array([chunk.dictionary_encode() for chunk in texts.chunks])
    together = pa.chunked_array([coded.combine_chunks()])
    for found in (texts, coded, together, texts.cast(pa.large_string())):
        assert positions(found, ["a", "b"]).tolist() == [1, -1, -1, 0, 1]
    assert positions(texts.slice(0, 0), ["a"]).tolist() == []


def test_a_null_becomes_nan_and_an_integer_a_float() -> None:
    rows = pa.table({"age": pa.array([1, None, 3], pa.int32()), "x": pa.nulls(3)})
    found = append_numbers("a.parquet", rows.select([]), rows, ["age", "x"])
    assert found.schema.field("raw_age") == pa.field("raw_age", pa.float64(), nullable=False)
    assert np.asarray(found["raw_age"]).tolist()[::2] == [1.0, 3.0]
    assert np.isnan(np.asarray(found["raw_x"])).all()
    assert found["raw_age"].null_count == 0


@pytest.mark.parametrize("number", [np.inf, -np.inf, 1e39])
def test_a_number_that_no_float32_holds_is_refused(number: float) -> None:
    rows = pa.table({"price": [1.0, number]})
    with pytest.raises(
        DataContractError, match="a.parquet: column 'price' has a number that is inf"
    ):
        append_numbers("a.parquet", rows, rows, ["price"])
