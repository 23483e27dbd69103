"""A profile comes back from its file as it was, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from support.data_gate import CONFIG, never_shifted
from validation.data_gate import kept_profile, measures
from validation.data_gate.canaries import choose_canaries
from validation.data_gate.gate import PROFILE_FILE, judge_snapshot
from validation.data_gate.kept_profile import from_json, to_json
from validation.data_gate.snapshot_profile import Reference, SnapshotProfile, profile_snapshot


@pytest.fixture(scope="module")
def profile(planted_snapshot: Snapshot) -> SnapshotProfile:
    return profile_snapshot(planted_snapshot, storage.local_path(planted_snapshot.uri))


def plain(value: Any) -> Any:
    """Return arrays as (type, values), so that == compares both."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return value


def test_every_measure_comes_back_with_its_type(profile: SnapshotProfile) -> None:
    back = from_json(to_json(profile, "d"), "d")
    assert back is not None
    assert plain(vars(back.measures)) == plain(vars(profile.measures))
    assert profile.measures.histograms and profile.measures.requests_per_day
    assert (back.mean_pin_norm, back.pin_spread) == (profile.mean_pin_norm, profile.pin_spread)


def test_earlier_shifts_come_back(profile: SnapshotProfile) -> None:
    known = replace(profile, shifts={"feature_shift/surface": [0.1, 0.2]})
    back = from_json(to_json(known, "d"), "d")
    assert back is not None
    assert back.shifts == {"feature_shift/surface": [0.1, 0.2]}


def test_the_gate_judges_by_a_kept_profile_as_by_a_new_one(
    planted_snapshot: Snapshot, profile: SnapshotProfile, tmp_path: Path
) -> None:
    snapshot, folder = planted_snapshot, storage.local_path(planted_snapshot.uri)
    found = []
    profile.shifts = never_shifted(snapshot, profile)
    kept: SnapshotProfile | None = profile
    canaries = choose_canaries(snapshot, folder)
    for name in ("new", "kept"):
        out_dir = tmp_path / name
        out_dir.mkdir()
        known = Reference(snapshot, kept, canaries)
        found.append(judge_snapshot(snapshot, folder, known, CONFIG, out_dir))
        kept = from_json((out_dir / PROFILE_FILE).read_bytes(), snapshot.digest)
        assert kept is not None
        kept.shifts = profile.shifts
    assert found[0] == found[1]
    assert all(outcome.is_judged for outcome in found[1])


def test_another_snapshot_format_or_bins_are_not_taken(
    profile: SnapshotProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = to_json(profile, "d")
    assert from_json(text, "another") is None
    with monkeypatch.context() as changed:
        changed.setattr(kept_profile, "FORMAT_VERSION", kept_profile.FORMAT_VERSION + 1)
        assert from_json(text, "d") is None
    with monkeypatch.context() as changed:
        changed.setattr(kept_profile, "LENGTH_EDGES", measures.LENGTH_EDGES[:-1])
        assert from_json(text, "d") is None


BEFORE_NUMBERS_COULD_BE_CHOSEN = """{
 "format": "395eb13b2ab87218",
 "snapshot_digest": "d",
 "unmeasured_shards": [],
 "mean_pin_norm": 1.5,
 "pin_spread": 0.25,
 "measures": {
  "requests": [40, 10],
  "examples": [160, 40],
  "exploration": [8, 2],
  "positives": {"repin": [16, 6]},
  "with_sequence": 45,
  "zero_embeddings": 3,
  "requests_per_day": {"17180": 40, "17190": 10},
  "histograms": {
   "sequence_length": [5, 5, 40, 0, 0, 0, 0, 0, 0, 0, 0],
   "pin_popularity": [150, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
   "past_engagements": [9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
  }
 }
}"""
"""As the code of that time wrote it, from counts made by hand."""


def test_a_file_of_before_numbers_could_be_chosen_is_still_a_profile(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    back = from_json(BEFORE_NUMBERS_COULD_BE_CHOSEN, "d")
    assert back is not None
    assert back.measures.label_rate("repin") == 22 / 200
    assert back.measures.labels_per_day == {}
    assert (back.mean_pin_norm, back.pin_spread) == (1.5, 0.25)

    folder = storage.local_path(planted_snapshot.uri)
    back.shifts = never_shifted(planted_snapshot, profile_snapshot(planted_snapshot, folder))
    judged = judge_snapshot(
        planted_snapshot, folder, Reference(planted_snapshot, back), CONFIG, tmp_path
    )
    found = {outcome.name: outcome for outcome in judged}
    shifts = ("row_count_shift", "target_label_rate_shift", "label_rate_shift", "feature_shift")
    for name in shifts:
        assert found[name].is_judged, name


@pytest.mark.parametrize("damage", [lambda t: t[:-20], lambda t: b"", lambda t: b"[]"])
def test_a_damaged_file_is_no_profile(profile: SnapshotProfile, damage: Any) -> None:
    assert from_json(damage(to_json(profile, "d").encode()), "d") is None


def test_a_file_without_a_measure_is_no_profile(profile: SnapshotProfile) -> None:
    value = json.loads(to_json(profile, "d"))
    del value["measures"]["positives"]
    assert from_json(json.dumps(value), "d") is None
