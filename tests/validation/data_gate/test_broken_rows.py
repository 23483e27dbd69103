"""Broken rows: rules by name, and files that cannot be read."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.files import digest_files
from support.data_gate import CONFIG, EXAMPLES, SHARD, judge
from support.snapshots import copy_snapshot
from validation.data_gate.broken_rows import FILE_RULES, BrokenRows, read_tables
from validation.data_gate.checks import make_checks
from validation.data_gate.pin_checks import PIN_RULES
from validation.data_gate.shard_checks import SHARD_RULES
from validation.data_gate.shifts import shift_tables
from validation.data_gate.snapshot_profile import profile_snapshot


def test_a_rule_that_was_not_checked_is_told_from_one_that_holds() -> None:
    broken = BrokenRows(("bad_labels", "bad_codes"))
    broken.add("bad_labels", np.array([False, True]), lambda i: f"row {i}")
    broken.add_phrases("bad_labels", [])
    assert broken.count("bad_labels") == 1 and broken.details == {"bad_labels": "row 1"}
    assert math.isnan(broken.count("bad_codes")) and not broken.has("bad_codes")


NOTHING_SHIFTED = shift_tables((), {}, is_measured=True)


def test_a_name_that_is_no_rule_is_refused() -> None:
    broken = BrokenRows(("bad_labels",))
    for use in (broken.count, broken.has, lambda rule: broken.add_phrases(rule, [])):
        with pytest.raises(HomefeedError, match=r"no rows for \['bad_lables'\]; .*'bad_labels'"):
            use("bad_lables")


def test_every_rule_is_judged_by_a_check(planted_snapshot: Snapshot) -> None:
    profile = profile_snapshot(planted_snapshot, storage.local_path(planted_snapshot.uri))
    checks = make_checks(CONFIG, planted_snapshot, profile, None, NOTHING_SHIFTED, "none")
    for table, rules in (("files", FILE_RULES), ("shards", SHARD_RULES), ("pins", PIN_RULES)):
        assert sorted(check.column for check in checks if check.table == table) == sorted(rules)


def test_a_file_of_the_right_digest_that_is_not_arrow(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    (folder / EXAMPLES).write_bytes(b"not an Arrow file" * 100)
    written = {file.path: file for file in digest_files(folder)}
    files = tuple(written[file.path] for file in snapshot.files)
    outcomes = judge(snapshot.model_copy(update={"files": files}), folder, tmp_path / "out")

    assert outcomes["files_match_manifest"].is_met
    assert outcomes["schema"].partitions == (SHARD,)
    assert f"{EXAMPLES} cannot be read: " in outcomes["schema"].observed
    assert "not an Arrow file" in outcomes["schema"].observed


def test_a_missing_file_is_said_to_be_missing(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    (folder / EXAMPLES).unlink()
    broken = BrokenRows(FILE_RULES)
    assert read_tables(folder, snapshot, [EXAMPLES], broken) == {}
    assert broken.details["altered_files"] == f"{EXAMPLES} is missing"
    assert broken.details["schema_problems"] == f"{EXAMPLES} is missing; it cannot be read"
