"""Files that are not what the manifest says."""

from pathlib import Path

import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.snapshot_files import verify_files
from pipelines.storage import local_path
from support.damage import flip_a_byte
from support.tiny_log import build_tiny, write_tiny_log


def test_verify_names_the_altered_and_the_missing_file(tmp_path: Path) -> None:
    write_tiny_log(tmp_path / "event_log")
    snapshot = build_tiny(tmp_path)
    folder = local_path(snapshot.uri)
    verify_files(snapshot, folder)
    victim = folder / "shard-00000" / "examples.arrow"
    flip_a_byte(victim)
    with pytest.raises(DataContractError, match=r"examples\.arrow was altered"):
        verify_files(snapshot, folder)
    victim.unlink()
    with pytest.raises(DataContractError, match=r"examples\.arrow is missing"):
        verify_files(snapshot, folder)
