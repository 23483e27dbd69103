"""What is told of a snapshot is what its rows hold, and what was done to one."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.snapshot_files import open_table, verify_files
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view import lines_of, problems, read_facts
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


def rows_of(snapshot: Snapshot, folder: Path) -> pd.DataFrame:
    """One row for each example, with the columns of its request."""
    parts = []
    for shard in snapshot.shards:
        requests, examples = (
            open_table(folder, f"{shard.name}/{kind}.arrow").to_pandas()
            for kind in ("requests", "examples")
        )
        repeated = requests.loc[requests.index.repeat(requests["num_examples"])]
        parts.append(examples.join(repeated.reset_index(drop=True)))
    return pd.concat(parts)


@pytest.mark.parametrize(("split", "name"), [(0, "training"), (1, "holdout")])
def test_a_window_s_counts_are_those_of_its_rows(built: Built, split: int, name: str) -> None:
    facts, rows = read_facts(*built.newer), rows_of(*built.newer)
    own = rows[rows["split"] == split]
    requests, figures = own.drop_duplicates("request_id"), facts.figures
    assert figures[f"{name}: examples"] == len(own) > 1000
    assert figures[f"{name}: requests"] == len(requests)
    assert figures[f"{name}: users"] == own["user_id"].nunique()
    is_empty = requests["timeline_end"] == requests["timeline_start"]
    assert figures[f"{name}: requests of users without an action"] == is_empty.mean()
    for head in facts.snapshot.features.head_names:
        assert figures[f"{name}: label rate of {head}"] == own[f"label_{head}"].mean()
    assert figures["bytes"] == sum(file.num_bytes for file in facts.snapshot.files)


def test_a_rate_of_nothing_is_unknown_and_a_file_that_is_gone_is_named(
    built: Built, tmp_path: Path
) -> None:
    snapshot, _ = built.newer
    shown = list(lines_of(read_facts(snapshot.model_copy(update={"shards": ()}), tmp_path)))
    assert "holdout: requests: 0" in shown
    assert "holdout: requests of users without an action: unknown" in shown
    with pytest.raises(SnapshotDamagedError, match=f"{SHARD}/requests.arrow is missing"):
        read_facts(snapshot, tmp_path)


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
