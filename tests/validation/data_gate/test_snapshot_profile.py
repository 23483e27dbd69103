"""What a snapshot's rows look like, worked by hand; a profile comes back from its file."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from support.data_gate import EXAMPLES
from support.snapshots import copy_snapshot, rewrite, with_value
from validation.data_gate.snapshot_profile import (
    SnapshotProfile,
    from_json,
    profile_snapshot,
    to_json,
)


@pytest.fixture(scope="module")
def profile(planted_snapshot: Snapshot) -> SnapshotProfile:
    return profile_snapshot(planted_snapshot, storage.local_path(planted_snapshot.uri))


def test_every_measure_comes_back_with_its_type(profile: SnapshotProfile) -> None:
    known = replace(profile, shifts={"feature_shift/surface": [0.1, 0.2]})
    back = from_json(to_json(known, "d"), "d")
    assert back is not None
    assert to_json(back, "d") == to_json(known, "d") and back.shifts == known.shifts
    assert vars(back.measures).keys() == vars(profile.measures).keys()
    assert profile.measures.histograms and profile.measures.days


def test_another_snapshot_or_format_is_no_profile(profile: SnapshotProfile) -> None:
    text = to_json(profile, "d")
    assert from_json(text.replace('"format": ', '"format": 9'), "d") is None
    assert from_json(text, "another") is None


def test_a_missing_number_counts_in_its_flag_alone(
    planted_snapshot: Snapshot, profile: SnapshotProfile, tmp_path: Path
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    for column, value in (("num_pin_age_missing", 1), ("num_pin_age", 0.0)):
        snapshot = rewrite(snapshot, folder, EXAMPLES, with_value(column, 2, value))
    counts = profile_snapshot(snapshot, folder).measures.histograms
    num = int(profile.measures.examples.sum())
    assert counts["pin_age_missing"].tolist() == [num - 1, 1]
    assert counts["pin_age"].sum() == num - 1
