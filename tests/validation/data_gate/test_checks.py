"""The expectations: their names and bounds, and what they find in the whole of a snapshot."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ExpectationOutcome, Severity, Snapshot
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.snapshot.build import write_snapshot
from support.data_gate import failed, judge
from support.runs import make_run
from support.snapshots import Change, copy_snapshot, rewrite, with_column, with_embedding
from support.worlds import write_events, write_planted_world
from validation.data_gate.checks import rate_shares
from validation.data_gate.snapshot_profile import Measures

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
    change: Change,
    thresholds: dict[str, Any],
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    for path in sorted(folder.glob(pattern)) if pattern else ():
        snapshot = rewrite(snapshot, folder, path.relative_to(folder).as_posix(), change)
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


SOUND = (1000, 100, 50)


@pytest.mark.parametrize(
    ("days", "of_all", "of_launched"),
    [
        ([(1000, 100, 0)] * 5 + [SOUND] * 9, 0.0, 1.0),  # a head that is launched within
        ([(1000, 100, 0), *[SOUND] * 5], 0.0, 1.0),
        ([(1000, 0, 0), *[SOUND] * 9], 0.0, 0.0),  # a day without any action, at the start too
        ([(1000, 0, 50), *[SOUND] * 9], 0.0, 0.0),  # a day without the main head
    ],
)
def test_a_new_head_is_told_and_stops_nothing_and_a_missing_one_does(
    days: list[tuple[int, int, int]], of_all: float, of_launched: float
) -> None:
    """Days of (examples, repins, likes), of which repin is the main head."""
    measures = Measures(days={n: np.array([1, *day]) for n, day in enumerate(days)})
    assert (rate_shares(measures)[0], rate_shares(measures, 0)[0]) == (of_all, of_launched)


def test_a_launched_head_that_is_missing_on_a_day_stops_the_cycle() -> None:
    days = [SOUND] * 5 + [(1000, 100, 0)] + [SOUND] * 5
    measures = Measures(days={n: np.array([1, *day]) for n, day in enumerate(days)})
    assert rate_shares(measures, 0)[5] == 0.0


TRAINING_DAY = "2017-02-14"
EVENT_CHECKS = ("every_day_has_labels", "label_rate_of_each_day", "most_requests_are_known",
                "requests_are_known", "actions_follow_impressions")  # fmt: skip


def without_a_day(rows: pa.Table) -> pa.Table:
    days = np.asarray(rows["acted_at"]).astype("datetime64[ms]").astype("datetime64[D]")
    return rows.filter(pa.array(days != np.datetime64(TRAINING_DAY)))


def renamed(rows: pa.Table) -> pa.Table:
    ids = rows["request_id"].to_pylist()
    other = [name and (f"x{name}" if n % 10 < 7 else name) for n, name in enumerate(ids)]
    return set_column(rows, "request_id", pa.array(other, pa.string()))


def earlier(rows: pa.Table) -> pa.Table:
    shift = np.where(np.arange(len(rows)) % 9 == 0, 3 * HOUR_MS, 0)
    for name in ("acted_at", "known_at"):
        rows = set_column(rows, name, pa.array(np.asarray(rows[name]) - shift))
    return set_column(rows, "request_id", pa.nulls(len(rows), pa.string()))


def set_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(name), values)


@pytest.mark.parametrize(
    ("change", "unmet", "observed"),
    [
        (lambda rows: rows, {}, {}),
        (without_a_day, {"every_day_has_labels": "critical", "label_rate_of_each_day": "warning"},
         {"every_day_has_labels": ".*" + TRAINING_DAY}),
        (renamed, {"most_requests_are_known": "critical", "requests_are_known": "warning"},
         {"most_requests_are_known": "(69|70|71)"}),
        (earlier, {"actions_follow_impressions": "warning"},
         {"actions_follow_impressions": r"(9|10|11|12)\.", "requests_are_known": "not judged"}),
    ],
    ids=["sound", "without_a_day", "renamed", "earlier"],
)  # fmt: skip
def test_the_silent_defects_of_an_event_log(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], unmet: dict, observed: dict
) -> None:
    """As the data gate meets them in the snapshot that is built of a world's spoiled actions."""
    log = tmp_path / "event_log"
    write_planted_world(log, num_users=250)
    files = sorted((log / "actions").glob("*/*.parquet"))
    rows = change(pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]))
    for path in files:
        path.unlink()
    write_events(log, "actions", rows)
    snapshot: Snapshot = write_snapshot(make_run(tmp_path))
    all_found = judge(snapshot, storage.local_path(snapshot.uri), tmp_path / "out")
    found: dict[str, ExpectationOutcome] = {name: all_found[name] for name in EVENT_CHECKS}
    assert {name: each.severity for name, each in found.items() if not each.is_met} == unmet
    for name, pattern in observed.items():
        assert re.match(pattern, found[name].observed)
    assert all(each.is_judged for each in found.values()) or change is earlier
