"""Which pins a snapshot has, and pins that it cannot have."""

from pathlib import Path

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import assert_refused, pins_of
from support.worlds import write_rows


def test_only_referenced_pins_are_kept_with_their_embedding(tiny: Snapshot) -> None:
    pins = open_table(local_path(tiny.uri), "pins.arrow")
    assert pins["pin_id"].to_pylist() == [10, 20, 30, 40]
    assert pins["embedding"][3].as_py() == pytest.approx([0.4] * 32)
    assert tiny.num_pins == 4


def test_a_missing_embedding_version_lists_what_is_there(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 30, 40], version="other-7"))
    assert_refused(
        log.parent, r"no embedding of version 'planted-1'.*found the versions \['other-7'\]"
    )


def test_a_pin_without_embedding_is_named(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 40]))
    assert_refused(log.parent, "1 of 4 pins .* have no embedding of version 'planted-1', first: 30")


def test_a_pin_with_two_embeddings_is_named(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 20, 30, 40]))
    assert_refused(log.parent, "pin 20 has more than one embedding")
