"""What is told of a snapshot is what its rows hold, and what was done to one."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.snapshot_files import open_table, verify_files
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view import facts_of, problems
from pipelines.storage import local_path
from support.damage import flip_a_byte
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world

SHARD = "shard-00000"


class Built(NamedTuple):
    """Two snapshots of one planted world, a week apart, and the folder of their log."""

    folder: Path
    newer: tuple[Snapshot, Path]
    older: tuple[Snapshot, Path]


def build(folder: Path, **options: object) -> tuple[Snapshot, Path]:
    snapshot = write_snapshot(make_run(folder, **options))
    return snapshot, local_path(snapshot.uri)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("viewed")
    write_planted_world(folder / "event_log")
    return Built(folder, build(folder), build(folder, as_of=PLANTED_AS_OF - timedelta(days=7)))


def test_what_is_shown_is_what_the_manifest_counts(built: Built) -> None:
    snapshot, folder = built.newer
    shown = facts_of(snapshot)
    num = sum(open_table(folder, f"{s.name}/examples.arrow").num_rows for s in snapshot.shards)
    assert shown["rows"].startswith(f"{num:,} examples of {snapshot.num_requests:,} requests, ")
    assert shown["heads"] == "repin, long_click, save" and shown["holdout"].endswith("2017-03-01")


def test_what_was_published_is_unharmed_and_every_byte_counts(built: Built, tmp_path: Path) -> None:
    snapshot, folder = built.newer
    assert list(problems(snapshot, folder)) == []
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for file in snapshot.files:
        flip_a_byte(copy / file.path)
    assert len(list(problems(snapshot, copy))) == len(snapshot.files)
    verify_files(snapshot, folder)
    with pytest.raises(SnapshotDamagedError, match=r"arrow was altered: its sha.* more files; ex"):
        verify_files(snapshot, copy)
    for changed in ({"digest": "f" * 64}, {"files": snapshot.files[1:]}):
        edited = snapshot.model_copy(update=changed)
        assert "manifest.json has digest" in next(iter(problems(edited, folder)))


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("pins.arrow", None, "pins.arrow is missing"),
        (f"{SHARD}/users.arrow", b"", f"{SHARD}/users.arrow was altered: it has 0 bytes"),
        (f"{SHARD}/notes.txt", b"mine", f"{SHARD}/notes.txt is no file of this snapshot"),
    ],
)
def test_harm_to_a_file_is_named(
    built: Built, tmp_path: Path, path: str, content: bytes | None, said: str
) -> None:
    copy = Path(shutil.copytree(built.newer[1], tmp_path / "copy"))
    (copy / path).write_bytes(content or b"")
    if content is None:
        (copy / path).unlink()
    [found] = problems(built.newer[0], copy)
    assert said in found
