"""The silent defects of an event log, as the data gate meets them in the snapshot built of it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.contracts.artifacts import ExpectationOutcome, Severity, Snapshot
from pipelines.contracts.time import HOUR_MS
from pipelines.snapshot.build import write_snapshot
from support.data_gate import judge
from support.runs import make_run
from support.worlds import write_events, write_planted_world

EVENT_CHECKS = (
    "every_day_has_labels",
    "label_rate_of_each_day",
    "most_requests_are_known",
    "requests_are_known",
    "actions_follow_impressions",
)
TRAINING_DAY = "2017-02-14"


def judged(folder: Path, change: Callable[[pa.Table], pa.Table]) -> dict[str, ExpectationOutcome]:
    """Plant a world whose actions are changed, build its snapshot and judge it."""
    log = folder / "event_log"
    write_planted_world(log, num_users=250)
    files = sorted((log / "actions").glob("*/*.parquet"))
    rows = change(pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]))
    for path in files:
        path.unlink()
    write_events(log, "actions", rows)
    snapshot: Snapshot = write_snapshot(make_run(folder))
    found = judge(snapshot, storage.local_path(snapshot.uri), folder / "out")
    return {name: found[name] for name in EVENT_CHECKS}


def unmet(outcomes: dict[str, ExpectationOutcome]) -> dict[str, Severity]:
    return {name: each.severity for name, each in outcomes.items() if not each.is_met}


def set_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(name), values)


def test_a_sound_log_meets_them_and_all_are_judged(tmp_path: Path) -> None:
    outcomes = judged(tmp_path, lambda rows: rows)
    assert unmet(outcomes) == {}
    assert all(outcome.is_judged for outcome in outcomes.values())


def test_a_day_without_actions_is_critical_and_named(tmp_path: Path) -> None:
    def without_a_day(rows: pa.Table) -> pa.Table:
        days = np.asarray(rows["acted_at"]).astype("datetime64[ms]").astype("datetime64[D]")
        return rows.filter(pa.array(days != np.datetime64(TRAINING_DAY)))

    outcomes = judged(tmp_path, without_a_day)
    assert unmet(outcomes)["every_day_has_labels"] is Severity.CRITICAL
    assert outcomes["every_day_has_labels"].partitions == (f"{TRAINING_DAY} (training)",)


def test_requests_that_match_nothing_are_critical(tmp_path: Path) -> None:
    def renamed(rows: pa.Table) -> pa.Table:
        ids = rows["request_id"].to_pylist()
        other = [name and (f"x{name}" if n % 10 < 7 else name) for n, name in enumerate(ids)]
        return set_column(rows, "request_id", pa.array(other, pa.string()))

    outcomes = judged(tmp_path, renamed)
    assert unmet(outcomes) == {
        "most_requests_are_known": Severity.CRITICAL,
        "requests_are_known": Severity.WARNING,
    }
    assert re.match(r"(69|70|71)", outcomes["most_requests_are_known"].observed)


def test_actions_three_hours_early_without_a_request_are_told(tmp_path: Path) -> None:
    def earlier(rows: pa.Table) -> pa.Table:
        shift = np.where(np.arange(len(rows)) % 9 == 0, 3 * HOUR_MS, 0)
        for name in ("acted_at", "known_at"):
            rows = set_column(rows, name, pa.array(np.asarray(rows[name]) - shift))
        return set_column(rows, "request_id", pa.nulls(len(rows), pa.string()))

    outcomes = judged(tmp_path, earlier)
    assert unmet(outcomes) == {"actions_follow_impressions": Severity.WARNING}
    assert re.match(r"(9|10|11|12)\.", outcomes["actions_follow_impressions"].observed)
    assert not outcomes["requests_are_known"].is_judged
