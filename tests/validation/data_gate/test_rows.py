"""Each rule of a shard's rows and of the pins finds the defect that is planted for it."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.files import digest_files
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, to_ms
from support.data_gate import EXAMPLES, SHARD, judge
from support.snapshots import (
    Change,
    copy_snapshot,
    drop,
    null,
    rewrite,
    with_column,
    with_embedding,
    with_value,
)
from validation.data_gate.rows import BrokenRows, read_tables
from validation.data_gate.snapshot_profile import profile_snapshot


def test_a_rule_that_was_not_checked_is_told_from_one_that_holds_and_a_name_from_a_typo() -> None:
    broken = BrokenRows("files")
    broken.add("schema", 1, "row 1")
    broken.add("schema", 0)
    assert broken.counts["schema"] == 1 and broken.details == {"schema": "row 1"}
    assert math.isnan(broken.counts["no_nulls"]) and not broken.has("no_nulls")
    for use in (broken.has, lambda rule: broken.add(rule, 0)):
        with pytest.raises(KeyError, match="no_null"):
            use("no_null")


def test_a_file_that_is_not_arrow_and_one_that_is_missing(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    (folder / EXAMPLES).write_bytes(b"not an Arrow file" * 100)
    files = tuple(file for file in digest_files(folder) if file.path == EXAMPLES)
    odd, missing = BrokenRows("files"), BrokenRows("files")
    assert read_tables(folder, snapshot.model_copy(update={"files": files}), [EXAMPLES], odd) == {}
    assert (odd.counts["files_match_manifest"], odd.counts["schema"]) == (0, 1)
    assert f"{EXAMPLES} cannot be read: " in odd.details["schema"]
    (folder / EXAMPLES).unlink()
    assert read_tables(folder, snapshot, [EXAMPLES], missing) == {}
    said = f"{EXAMPLES} is missing"
    assert missing.details == {"files_match_manifest": said,
                               "schema": f"{said}; it cannot be read"}  # fmt: skip


TIMELINE, REQUESTS, USERS = (f"{SHARD}/{name}.arrow" for name in ("timeline", "requests", "users"))


def repeated(column: str) -> Change:
    """Let the second row have the value of the first."""
    return lambda table: with_value(column, 1, table[column][0].as_py())(table)


def swap_first_actions(table: pa.Table) -> pa.Table:
    """Exchange two actions of a user: neighbours whose times differ."""
    known = np.asarray(table["known_at"])
    row = int(np.argmax(np.diff(known) > 0))
    order = np.arange(table.num_rows)
    order[[row, row + 1]] = order[[row + 1, row]]
    return table.take(pa.array(order))


def shifted_pointer(by: int) -> Change:
    """Move one request's pointer within its user's block, as an off-by-one builder would."""

    def change(table: pa.Table) -> pa.Table:
        user, end = np.asarray(table["user_id"]), np.array(table["timeline_end"])
        start = np.asarray(table["timeline_start"])
        last = np.array([end[user == u].max() for u in user])
        has_room = (end < last) if by > 0 else (end > start + 1) & (end < last)
        row = int(np.flatnonzero(has_room)[0])
        return with_value("timeline_end", row, int(end[row]) + by)(table)

    return change


def into_embargo(table: pa.Table) -> pa.Table:
    """Push the latest training request a day later."""
    at, split = np.asarray(table["impressed_at"]), np.asarray(table["split"])
    row = int(np.argmax(np.where(split == 0, at, 0)))
    return with_value("impressed_at", row, int(at[row]) + DAY_MS)(table)


DEFECTS: list[tuple[str, str, Change]] = [
    ("schema", EXAMPLES, drop("label_repin")),
    ("schema", TIMELINE, lambda t: t.set_column(2, "acted_at", t["acted_at"].cast(pa.float64()))),
    ("no_nulls", EXAMPLES, null("pin_row")),
    ("counts_match_manifest", TIMELINE, lambda t: pa.concat_tables([t, t[-1:]])),
    ("references_resolve", EXAMPLES, with_value("pin_row", 3, 80)),
    ("references_resolve", TIMELINE, with_value("pin_row", 3, -1)),
    ("references_resolve", REQUESTS, with_value("user_row", 0, 10_000)),
    ("pointers_inside_block", REQUESTS, with_value("timeline_end", 5, 10**6)),
    ("pointers_inside_block", REQUESTS, with_value("timeline_start", -1, 0)),
    ("requests_own_examples", REQUESTS, with_value("num_examples", 4, 11)),
    ("unique_requests", REQUESTS, repeated("request_id")),
    ("unique_candidates", EXAMPLES, repeated("pin_row")),
    ("action_vocabulary", TIMELINE, with_value("action_type_id", 7, 0)),
    ("action_vocabulary", TIMELINE, with_value("action_type_id", 7, 5)),
    ("action_times", TIMELINE, with_column("acted_at", lambda at: at // 1000)),  # seconds
    ("timeline_order", TIMELINE, swap_first_actions),
    ("no_future_actions", REQUESTS, shifted_pointer(+1)),
    ("no_missed_actions", REQUESTS, shifted_pointer(-1)),
    ("requests_in_window", REQUESTS, into_embargo),
    ("requests_in_window", REQUESTS, with_value("split", 2, 2)),
    ("user_rows_point_in_time", USERS, with_column("as_of", lambda a: a + 10**12)),
    ("user_rows_point_in_time", USERS, with_column("user_id", lambda u: u + 1)),
    ("labels_are_binary", EXAMPLES, with_value("label_save", 9, 2)),
    ("numeric_features_in_range", EXAMPLES, with_value("num_pin_popularity", 2, np.nan)),
    ("numeric_features_in_range", EXAMPLES, with_value("num_past_engagements", 2, 900)),
    ("numeric_features_in_range", EXAMPLES, with_value("num_pin_age_missing", 2, 2)),
    ("numeric_features_in_range", EXAMPLES, with_column("num_pin_age_missing", np.ones_like)),
    ("category_codes_in_range", EXAMPLES, with_value("cat_surface", 2, 2)),
    ("category_codes_in_range", USERS, with_value("cat_state", 2, -1)),
    ("positions_not_negative", EXAMPLES, with_value("position", 2, -1)),
    ("user_embeddings_finite", USERS, with_embedding(0, np.inf)),
    ("schema", "pins.arrow", drop("embedding")),
    ("pin_embeddings_finite", "pins.arrow", with_embedding(4, np.nan)),
    ("pin_embedding_norm", "pins.arrow", with_embedding(4, 1e6)),
    ("unique_pins", "pins.arrow", with_value("pin_id", 5, 4)),
    ("pin_codes_in_range", "pins.arrow", with_value("cat_embedding_version", 5, 7)),
]  # fmt: skip


def broken_rules(snapshot: Snapshot, folder: Path) -> dict[str, set[str]]:
    """Return the rules that rows break, with the parts; NaN is a rule that was not checked."""
    profile, found = profile_snapshot(snapshot, folder), dict[str, set[str]]()
    for part, broken in {"pins.arrow": profile.pins, **profile.shards}.items():
        for name in (name for name, num in broken.counts.items() if num > 0):
            found.setdefault(name, set()).add(part)
            assert broken.details[name]
    return found


@pytest.mark.parametrize(
    ("name", "relative", "change"), DEFECTS, ids=[f"{d[0]}-{i}" for i, d in enumerate(DEFECTS)]
)
def test_a_planted_defect_is_found_its_place_is_named_and_nothing_else_is_accused(
    planted_snapshot: Snapshot, tmp_path: Path, name: str, relative: str, change: Change
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    snapshot = rewrite(snapshot, folder, relative, change)
    assert broken_rules(snapshot, folder) == {name: {relative.split("/", maxsplit=1)[0]}}


def test_windows_as_of_and_a_request_s_own_millisecond_are_half_open(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    table = open_table(folder, REQUESTS)
    start, end, shown, split = (
        np.asarray(table[name])
        for name in ("timeline_start", "timeline_end", "impressed_at", "split")
    )
    row, late = int(np.flatnonzero(end > start)[0]), int(np.flatnonzero(split == 1)[0])
    for rule, path, column, place, edge in (
        ("no_future_actions", TIMELINE, "known_at", int(end[row]) - 1, int(shown[row])),
        ("action_times", TIMELINE, "known_at", -1, to_ms(snapshot.as_of)),
        ("requests_in_window", REQUESTS, "impressed_at", late, to_ms(snapshot.holdout.end)),
    ):
        for at, is_met in ((edge - 1, True), (edge, False)):
            moved = rewrite(snapshot, folder, path, with_value(column, place, at))
            assert (rule not in broken_rules(moved, folder)) is is_met, (rule, at)


def test_two_defects_name_both_shards(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    change = with_column("label_repin", lambda of: np.where(np.arange(len(of)) < 2, 3, of))
    for shard in snapshot.shards:
        snapshot = rewrite(snapshot, folder, f"{shard.name}/examples.arrow", change)
    outcome = judge(snapshot, folder, tmp_path / "out")["labels_are_binary"]
    assert outcome.partitions == ("shard-00000", "shard-00001")
    assert outcome.observed.startswith("4 in 2 of 2 parts; examples.label_repin is 3 in row 0")
