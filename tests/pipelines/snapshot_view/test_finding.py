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


def test_a_manifest_that_was_edited_is_named(built, tmp_path: Path) -> None:
    for changed in ({"digest": "f" * 64}, {"files": built.newer.files[1:]}):
        edited = built.newer.model_copy(update=changed)
        assert "manifest.json has digest" in next(iter(problems(edited, built.newer_dir)))


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
