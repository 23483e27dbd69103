"""Each rule of the pins finds the defect that is planted for it."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from support.data_gate import assert_found
from support.snapshots import (
    Change,
    drop,
    with_embedding,
    with_value,
)

DEFECTS: list[tuple[str, str, Change]] = [
    ("schema", "pins.arrow", drop("embedding")),
    ("pin_embeddings_finite", "pins.arrow", with_embedding(4, np.nan)),
    ("pin_embedding_norm", "pins.arrow", with_embedding(4, 1e6)),
    ("unique_pins", "pins.arrow", with_value("pin_id", 5, 4)),
    ("pin_codes_in_range", "pins.arrow", with_value("cat_embedding_version", 5, 7)),
]


@pytest.mark.parametrize(
    ("name", "relative", "change"), DEFECTS, ids=[f"{d[0]}-{i}" for i, d in enumerate(DEFECTS)]
)
def test_a_planted_defect_is_found_and_its_place_is_named(
    planted_snapshot: Snapshot, tmp_path: Path, name: str, relative: str, change: Change
) -> None:
    assert_found(planted_snapshot, tmp_path, name, relative, change)
