"""The data gate as a whole: what it accepts, what it refuses, and shift."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Severity, Snapshot
from support.data_gate import SHARD, failed, judge
from support.snapshots import copy_snapshot, rewrite, with_column, with_embedding

PINS = {"pin_embeddings_finite", "pin_embedding_norm", "unique_pins", "pin_codes_in_range"}
FILES = {"files_match_manifest", "schema", "no_nulls"}


def test_a_sound_snapshot_is_accepted(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    outcomes = judge(planted_snapshot, folder, tmp_path, reference=planted_snapshot)

    assert failed(outcomes) == set()
    assert len(outcomes) == 47
    # It is held against itself, so no pin is new.
    not_judged = [name for name, outcome in outcomes.items() if not outcome.is_judged]
    assert not_judged == ["new_embeddings_like_accepted"]
    assert {outcome.severity for outcome in outcomes.values()} == set(Severity)


def test_altered_missing_and_unreadable_files(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    (folder / SHARD / "users.arrow").unlink()
    with (folder / "shard-00000" / "timeline.arrow").open("r+b") as stream:
        stream.truncate(1000)
    outcomes = judge(snapshot, folder, tmp_path / "out")

    assert outcomes["files_match_manifest"].partitions == ("shard-00000", SHARD)
    assert outcomes["schema"].partitions == ("shard-00000", SHARD)
    assert "has 1,000 bytes" in outcomes["files_match_manifest"].observed
    assert "bytes, expected" in outcomes["schema"].observed
    assert "cannot be read" in outcomes["schema"].observed
    assert "not measured in snapshot" in outcomes["target_label_rate"].observed
    # No shard could be measured: every rate fails rather than passing on nothing.
    was_judged = {name for name, outcome in outcomes.items() if outcome.is_judged}
    assert was_judged - failed(outcomes) == PINS | {"no_nulls"}


@pytest.mark.docs
def test_shift_against_the_last_accepted_snapshot(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    def one_in_ten_more(label: np.ndarray) -> np.ndarray:
        return label | (np.random.default_rng(1).random(len(label)) < 0.1)

    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    for shard in snapshot.shards:
        for change in (
            with_column("label_repin", one_in_ten_more),
            with_column("num_pin_popularity", lambda v: v + 2),
        ):
            snapshot = rewrite(snapshot, folder, f"{shard.name}/examples.arrow", change)
    snapshot = rewrite(snapshot, folder, "pins.arrow", with_embedding(3, 3.0))
    outcomes = judge(snapshot, folder, tmp_path / "out", reference=planted_snapshot)

    assert failed(outcomes) == {"target_label_rate_shift", "label_rate_shift", "feature_shift",
                                "feature_move", "embeddings_as_accepted",
                                "every_embedding_as_accepted"}  # fmt: skip
    assert outcomes["target_label_rate_shift"].severity is Severity.CRITICAL
    assert outcomes["label_rate_shift"].partitions == ("repin",)
    assert outcomes["feature_shift"].partitions == ("pin_popularity",)
    assert outcomes["row_count_shift"].observed == "+0 %"
    # What moved beyond its limit is drawn, the most unusual first; the others have a line each.
    page = (tmp_path / "out" / "data_docs" / "index.html").read_text("utf-8")
    drawn = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert drawn[:2] == ["pin_popularity, in % of rows", "label rate of repin, in %"]
    assert "the last accepted snapshot</span>" in page and re.search(r"2 of \d+ have moved", page)
    listed = re.findall(r'<li><span class="name">(.*?)</span>', page)
    assert listed[:2] == drawn[:2] and len({*listed}) > 12 and page.count("+0.0%: ") == 5


def test_what_shift_is_judged_by(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    """Half of the rows are a shift, of few rows nothing is said, nor against what is gone."""
    folder = storage.local_path(planted_snapshot.uri)
    one_shard = planted_snapshot.model_copy(
        update={
            "shards": planted_snapshot.shards[1:],
            "files": tuple(f for f in planted_snapshot.files if "shard-00000" not in f.path),
        }
    )
    outcome = judge(one_shard, folder, tmp_path / "a", planted_snapshot)["row_count_shift"]
    assert not outcome.is_met
    assert outcome.observed.startswith("-6")  # 1,414 of 3,849 examples
    few = judge(planted_snapshot, folder, tmp_path / "b", planted_snapshot, min_rows_for_shift=5000)
    outcome = few["row_count_shift"]
    assert outcome.is_met and not outcome.is_judged
    assert outcome.observed == "not judged: 3,849 examples, fewer than min_rows_for_shift = 5,000"
    reference, gone = copy_snapshot(planted_snapshot, tmp_path / "reference")
    (gone / SHARD / "examples.arrow").unlink()
    outcomes = judge(planted_snapshot, folder, tmp_path / "c", reference)
    assert "can no longer be read" in outcomes["row_count_shift"].observed
    assert failed(outcomes) == set()
