"""A snapshot that is not what was published is found, whatever was done to it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.snapshot_view.finding import problems
from support.damage import flip_a_byte


@pytest.fixture
def copy(built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.newer_dir, tmp_path / "copy"))


def test_what_was_published_is_found_unharmed(built) -> None:
    assert list(problems(built.newer, built.newer_dir)) == []


def test_every_file_s_every_byte_counts(built, copy: Path) -> None:
    for file in built.newer.files:
        flip_a_byte(copy / file.path)
    assert len(list(problems(built.newer, copy))) == len(built.newer.files)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "pins.arrow").unlink(), "pins.arrow is missing"),
        (
            lambda folder: (folder / "shard-00001/users.arrow").write_bytes(b""),
            "shard-00001/users.arrow was altered: it has 0 bytes",
        ),
        (
            lambda folder: (folder / "shard-00000/notes.txt").write_text("mine"),
            "shard-00000/notes.txt is no file of this snapshot",
        ),
    ],
)
def test_harm_to_a_file_is_named(
    built, copy: Path, harm: Callable[[Path], object], said: str
) -> None:
    harm(copy)
    [found] = problems(built.newer, copy)
    assert said in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: {"digest": "0" * 64}, "manifest.json names digest 0000000000000000"),
        (lambda one: {"num_pins": 7}, "pins.arrow has 80 rows, expected 7"),
        (
            lambda one: {
                "shards": (one.shards[0].model_copy(update={"num_examples": 5}), one.shards[1])
            },
            "shard-00000/examples.arrow has",
        ),
    ],
)
def test_a_manifest_that_says_otherwise_is_named(
    built, change: Callable[[Snapshot], dict[str, object]], said: str
) -> None:
    [found] = problems(built.newer.model_copy(update=change(built.newer)), built.newer_dir)
    assert said in found


def test_a_manifest_that_has_lost_a_file_is_named(built) -> None:
    fewer = built.newer.model_copy(update={"files": built.newer.files[1:]})
    found = list(problems(fewer, built.newer_dir))
    assert f"the manifest names no {built.newer.files[0].path}" in found
    assert "manifest.json names digest" in found[0]
