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
from support.tiny_log import ACTIONS_15, TINY_AS_OF, with_pin_times

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
    genuine = listing.open_file
    with faulty_proxy(s3_url) as proxy:

        def open_and_fail(event_log: EventLog, file: LogFile) -> FileSystemDataset:
            opened = genuine(event_log, file)
            proxy.choose = lambda method, path: "500"
            return opened

        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(listing, "open_file", open_and_fail)
        far = open_event_log(s3_uri)
        with pytest.raises(TransientStorageError, match=r"actions/day=.*: .*then retry"):
            list_files(far, far.files_of("actions"), AS_OF_MS)
