"""What is kept of an event log's files: by their footers, and by rows only where these are mute."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import FileSystemDataset

from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.time import to_ms
from pipelines.event_log import listing
from pipelines.event_log.listing import ListedFile, list_files
from pipelines.event_log.log_files import EventLog, LogFile, open_event_log
from pipelines.storage import publish_folder, to_uri
from support.damage import damage_pages
from support.faulty_proxy import faulty_proxy
from support.tiny_log import ACTIONS_15, TINY_AS_OF, with_pin_times, write_tiny_log

AS_OF_MS = to_ms(TINY_AS_OF)


def listed(folder: Path) -> dict[str, ListedFile]:
    log = open_event_log(to_uri(folder))
    return {file.path: file for file in list_files(log, log.files, AS_OF_MS).files}


def test_rows_known_before_as_of_are_counted(tmp_path: Path) -> None:
    write_tiny_log(tmp_path)
    files = listed(tmp_path)
    # one of the two actions of the 18th was known at as_of, and not before
    counts = {path: (file.num_rows, file.num_known) for path, file in files.items()}
    assert counts["actions/day=2017-01-18/part-0.parquet"] == (3, 2)
    assert counts[ACTIONS_15] == (1, 1)
    assert counts["pins/part-0.parquet"] == (5, 5)
    assert counts["users/part-0.parquet"] == (3, 3)
    assert all(file.footer and file.modified_at for file in files.values())


def test_pins_that_have_a_time_are_counted_by_it(tmp_path: Path) -> None:
    write_tiny_log(tmp_path)
    with_pin_times(tmp_path, {10: "01 00:00", 20: "19 23:59:59.999", 30: "20 00:00"})
    found = listed(tmp_path)["pins/part-0.parquet"]
    assert (found.num_rows, found.num_known) == (3, 2)


def test_rows_are_read_only_where_the_footer_does_not_tell(tmp_path: Path) -> None:
    """Pages that are damaged are not seen, where the bounds in the footer say enough."""
    write_tiny_log(tmp_path)
    path = tmp_path / ACTIONS_15
    before = listed(tmp_path)[ACTIONS_15]
    pq.write_table(pq.read_table(path, partitioning=None), path, write_statistics=False)
    mute = listed(tmp_path)[ACTIONS_15]
    assert mute.num_known == before.num_known == 1
    assert mute.footer != before.footer
    pq.write_table(pq.read_table(path, partitioning=None), path)
    damage_pages(path, "known_at")
    assert listed(tmp_path)[ACTIONS_15].num_known == 1


def test_a_damaged_file_is_listed_without_counts(tmp_path: Path) -> None:
    write_tiny_log(tmp_path)
    (tmp_path / ACTIONS_15).write_bytes(b"no parquet")
    found = listed(tmp_path)[ACTIONS_15]
    assert (found.num_bytes, found.footer, found.num_rows, found.num_known) == (10, "", None, None)


STRADDLING = "actions/day=2017-01-18/part-0.parquet"
"""A file with rows known before as_of and rows known at it, so that its pages are read."""


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_file_whose_pages_are_damaged_is_listed_without_known_rows(
    tmp_path: Path, compression: str
) -> None:
    """Its footer is whole, and arrow's error about a page is that of a failing disk."""
    write_tiny_log(tmp_path)
    path = tmp_path / STRADDLING
    pq.write_table(pq.read_table(path, partitioning=None), path, compression=compression)
    damage_pages(path, "known_at")
    found = listed(tmp_path)[STRADDLING]
    assert (found.num_rows, found.num_known) == (3, None)
    assert found.footer


def test_a_store_that_fails_while_rows_are_counted_is_said_to_have_failed(
    tmp_path: Path, s3_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_log(tmp_path / "log")
    publish_folder(tmp_path / "log", s3_uri)
    genuine = listing.open_file
    with faulty_proxy(s3_url) as proxy:

        def open_and_fail(event_log: EventLog, file: LogFile) -> FileSystemDataset:
            opened = genuine(event_log, file)
            proxy.choose = lambda method, path: "500"
            return opened

        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(listing, "open_file", open_and_fail)
        log = open_event_log(s3_uri)
        with pytest.raises(TransientStorageError, match=r"actions/day=.*: .*then retry"):
            list_files(log, log.files_of("actions"), AS_OF_MS)
