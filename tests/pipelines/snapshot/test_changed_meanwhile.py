"""A partition that is written while it is read is told as that, and may be tried again."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.event_log import reader
from pipelines.event_log.log_files import open_event_log, unchanged_meanwhile
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import to_uri
from support.random_log import AS_OF, config_of, write_random_log
from support.runs import make_run

NAME = "actions/day=2017-02-2"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_random_log(tmp_path / "event_log")
    return tmp_path


def first_of(log: Path, name: str = NAME) -> Path:
    return next(
        path for path in sorted((log / "event_log").rglob("*.parquet")) if name in path.as_posix()
    )


def write_while_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Change something when the first file is opened."""
    opened = []
    original = reader._Scan.read

    def read(scan: reader._Scan, *arguments: object) -> object:
        if not opened:
            opened.append(True)
            change()
        return original(scan, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reader._Scan, "read", read)


def build(log: Path) -> str:
    return write_snapshot(make_run(log, config_of(), AS_OF), num_workers=1).digest


def shorter(path: Path) -> None:
    rows = pq.read_table(path, partitioning=None)
    written = path.with_name(".new")
    pq.write_table(rows.slice(0, len(rows) // 2), written)
    written.replace(path)


@pytest.mark.parametrize(
    "change",
    [shorter, Path.unlink, lambda path: path.write_bytes(b"PAR1 is being written")],
    ids=["replaced", "removed", "half written"],
)
def test_a_file_written_while_others_are_read_is_named(
    log: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = first_of(log)
    write_while_reading(monkeypatch, lambda: change(path))
    with pytest.raises(TransientStorageError, match=f"changed while it was read: {NAME}") as caught:
        build(log)
    assert "let the writer finish, then retry" in str(caught.value)
    assert not any((log / "workspace" / "snapshots").glob("*/manifest.json"))


def test_the_next_attempt_reads_what_was_written(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_while_reading(monkeypatch, lambda: shorter(first_of(log)))
    with pytest.raises(TransientStorageError):
        build(log)
    again = build(log)
    assert again == build(log)


def test_files_that_come_in_addition_are_no_change(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build(log)
    path = first_of(log)
    more = path.with_name("part-9.parquet")
    write_while_reading(monkeypatch, lambda: more.write_bytes(path.read_bytes()))
    assert build(log) == expected


def test_a_fault_of_a_log_at_rest_stays_a_fault_of_the_log(log: Path) -> None:
    event_log = open_event_log(to_uri(log / "event_log"))
    with pytest.raises(DataContractError, match="broken"):  # noqa: SIM117
        with unchanged_meanwhile(event_log, event_log.files):
            raise DataContractError("broken")
