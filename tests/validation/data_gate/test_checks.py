"""The expectations: their names and bounds, and what they find in the whole of a snapshot."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Severity, Snapshot
from pipelines.contracts.time import DAY_MS
from support.data_gate import CONFIG, failed, judge, reference_of
from support.snapshots import (
    Change,
    copy_snapshot,
    rewrite,
    with_column,
    with_embedding,
)
from validation.data_gate import checks
from validation.data_gate.judged_tables import rate_shares
from validation.data_gate.shifts import FEATURE, MOVE, RATE, STEADY
from validation.data_gate.snapshot_profile import Measures


def test_every_check_of_a_gate_has_its_own_name_and_a_bound(planted_snapshot: Snapshot) -> None:
    known = reference_of(planted_snapshot)
    table = pd.DataFrame({"partition": ["repin"]})
    tables = {name: table for name in (STEADY, RATE, FEATURE, MOVE)}
    found = checks.make_checks(CONFIG, planted_snapshot, known.profile, known, tables, "")

    assert not any(check.not_judged for check in found)
    assert len({check.name for check in found}) == len(found)
    assert all(check.minimum is not None or check.maximum is not None for check in found)
    assert all(check.description.endswith((".", ")")) for check in found)


WHOLE_DEFECTS = [
    ("embedding_coverage", "pins.arrow", with_embedding(4, 0.0), {}),
    ("pin_embeddings_differ", "pins.arrow", with_embedding(-1, 0.25), {}),
    ("every_head_has_positives", "*/examples.arrow", with_column("label_save", np.zeros_like), {}),
    ("target_label_rate", "*/examples.arrow", with_column("label_repin", np.zeros_like), {}),
    ("target_label_rate_holdout", "*/examples.arrow", with_column("label_repin", np.ones_like), {}),
    ("known_categories", "*/examples.arrow", with_column("cat_surface", np.zeros_like), {}),
    ("enough_training_requests", None, None, {"min_training_requests": 10_000}),
    ("enough_holdout_requests", None, None, {"min_holdout_requests": 10_000}),
    ("sequence_coverage", None, None, {"min_sequence_share": 0.999}),
]


@pytest.mark.parametrize(
    ("name", "pattern", "change", "thresholds"), WHOLE_DEFECTS, ids=[d[0] for d in WHOLE_DEFECTS]
)
def test_a_defect_of_the_whole_is_found(
    planted_snapshot: Snapshot,
    tmp_path: Path,
    name: str,
    pattern: str | None,
    change: Change | None,
    thresholds: dict[str, Any],
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    if pattern is not None and change is not None:
        for path in sorted(folder.glob(pattern)):
            relative = path.relative_to(folder).as_posix()
            snapshot = rewrite(snapshot, folder, relative, change)
    outcomes = judge(snapshot, folder, tmp_path / "out", **thresholds)

    assert name in failed(outcomes)
    assert outcomes[name].partitions


@pytest.mark.parametrize(("least", "is_met"), [(211, True), (212, False)])
def test_a_threshold_holds_exactly_at_the_bound(
    planted_snapshot: Snapshot, tmp_path: Path, least: int, is_met: bool
) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    outcomes = judge(planted_snapshot, folder, tmp_path, min_training_requests=least)

    outcome = outcomes["enough_training_requests"]
    assert (outcome.observed, outcome.expected) == ("211", f"at least {least}")
    assert outcome.is_met is is_met


def test_a_day_without_requests_is_named(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    start = snapshot.training.start_ms

    def a_day_later(at: np.ndarray) -> np.ndarray:
        return np.where((at >= start) & (at < start + DAY_MS), at + DAY_MS, at)

    for shard in snapshot.shards:
        relative = f"{shard.name}/requests.arrow"
        snapshot = rewrite(snapshot, folder, relative, with_column("impressed_at", a_day_later))
    outcome = judge(snapshot, folder, tmp_path / "out")["every_day_is_there"]

    assert not outcome.is_met and outcome.severity is Severity.WARNING
    assert outcome.partitions == (f"{snapshot.training.start.date()} (training)",)


def test_a_label_rate_that_moves_between_the_windows_is_told(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    known = planted_snapshot
    bound = {"max_label_rate_change": 0.001}
    outcome = judge(planted_snapshot, folder, tmp_path, known, **bound)["label_rate_is_steady"]
    assert not outcome.is_met
    assert "allowed -0% to +0%" in outcome.observed


def shares(*days: tuple[int, int, int]) -> dict[str, list[float]]:
    """Return the shares of days with (examples, repins, likes): of all heads, and of launched ones.

    Repin is the main head.
    """
    measures = Measures(labels_per_day={n: np.array(day) for n, day in enumerate(days)})
    return {"all": list(rate_shares(measures).values()),
            "launched": list(rate_shares(measures, 0).values())}  # fmt: skip


def test_a_head_that_is_launched_within_the_window_is_told_and_stops_nothing() -> None:
    found = shares(*[(1000, 100, 0)] * 5, *[(1000, 100, 50)] * 9)
    assert found == {"all": [0.0] * 5 + [1.0] * 9, "launched": [1.0] * 14}


def test_a_launched_head_that_is_missing_on_a_day_stops_the_cycle() -> None:
    found = shares(*[(1000, 100, 50)] * 5, (1000, 100, 0), *[(1000, 100, 50)] * 5)
    assert found["launched"][5] == 0.0


def test_days_without_any_action_and_those_without_the_main_head_stop_it_also_at_the_start() -> (
    None
):
    assert shares((1000, 0, 0), *[(1000, 100, 50)] * 9)["launched"][0] == 0.0
    assert shares((1000, 0, 50), *[(1000, 100, 50)] * 9)["launched"][0] == 0.0
