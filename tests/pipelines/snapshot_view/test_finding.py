"""A snapshot that is not what was published is found, whatever was done to it."""

import shutil
from pathlib import Path

import pytest

from pipelines.snapshot_view.finding import problems
from support.damage import flip_a_byte

SHARD = "shard-00000"


def test_what_was_published_is_unharmed_and_every_byte_counts(built, tmp_path: Path) -> None:
    assert list(problems(built.newer, built.newer_dir)) == []
    copy = Path(shutil.copytree(built.newer_dir, tmp_path / "copy"))
    for file in built.newer.files:
        flip_a_byte(copy / file.path)
    assert len(list(problems(built.newer, copy))) == len(built.newer.files)


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("pins.arrow", None, "pins.arrow is missing"),
        (f"{SHARD}/users.arrow", b"", f"{SHARD}/users.arrow was altered: it has 0 bytes"),
        (f"{SHARD}/notes.txt", b"mine", f"{SHARD}/notes.txt is no file of this snapshot"),
    ],
)
def test_harm_to_a_file_is_named(
    built, tmp_path: Path, path: str, content: bytes | None, said: str
) -> None:
    copy = Path(shutil.copytree(built.newer_dir, tmp_path / "copy"))
    (copy / path).write_bytes(content or b"")
    if content is None:
        (copy / path).unlink()
    [found] = problems(built.newer, copy)
    assert said in found


def test_a_manifest_that_says_otherwise_is_named(built) -> None:
    one = built.newer
    shards = (one.shards[0].model_copy(update={"num_examples": 5}), one.shards[1])
    for change, said in (
        ({"digest": "0" * 64}, "manifest.json names digest 0000000000000000"),
        ({"num_pins": 7}, "pins.arrow has 80 rows, expected 7"),
        ({"shards": shards}, f"{SHARD}/examples.arrow has"),
    ):
        [found] = problems(one.model_copy(update=change), built.newer_dir)
        assert said in found
    found = list(problems(one.model_copy(update={"files": one.files[1:]}), built.newer_dir))
    assert f"the manifest names no {one.files[0].path}" in found
    assert "manifest.json names digest" in found[0]
