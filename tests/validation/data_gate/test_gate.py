import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ExpectationOutcome, Severity, Snapshot
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.recipes import smoke
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
from validation.data_gate import checks, gate, measures
from validation.data_gate.gate import judge_snapshot

CONFIG = smoke().data_gate
SHARD = "shard-00001"
EXAMPLES = f"{SHARD}/examples.arrow"


def judge(
    snapshot: Snapshot,
    folder: Path,
    out_dir: Path,
    reference: Snapshot | None = None,
    **thresholds: Any,
) -> dict[str, ExpectationOutcome]:
    out_dir.mkdir(exist_ok=True)
    reference_dir = storage.local_path(reference.uri) if reference is not None else None
    config = CONFIG.model_copy(update=thresholds)
    outcomes = judge_snapshot(snapshot, folder, reference, reference_dir, config, out_dir)
    return {outcome.name: outcome for outcome in outcomes}


def failed(outcomes: dict[str, ExpectationOutcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.is_met}


def test_a_sound_snapshot_is_accepted(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    outcomes = judge(planted_snapshot, folder, tmp_path, reference=planted_snapshot)

    assert failed(outcomes) == set()
    assert len(outcomes) >= 40
    assert not any("not judged" in outcome.observed for outcome in outcomes.values())
    assert {outcome.severity for outcome in outcomes.values()} == set(Severity)


def test_every_check_of_a_gate_has_its_own_name_and_a_bound(planted_snapshot: Snapshot) -> None:
    facts = checks.ReferenceFacts(10**6, True, True, True)
    found = checks.make_checks(CONFIG, planted_snapshot, 10**6, facts)

    assert len({check.name for check in found}) == len(found)
    assert all(check.minimum is not None or check.maximum is not None for check in found)
    assert all(check.description.endswith((".", ")")) for check in found)


def repeat_candidate(table: pa.Table) -> pa.Table:
    return with_value("pin_row", 1, int(table["pin_row"][0].as_py()))(table)


def repeat_request(table: pa.Table) -> pa.Table:
    return with_value("request_id", 1, table["request_id"][0].as_py())(table)


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
    ("schema", "pins.arrow", drop("embedding")),
    (
        "schema",
        f"{SHARD}/timeline.arrow",
        lambda t: t.set_column(2, "acted_at", t["acted_at"].cast(pa.float64())),
    ),
    ("no_nulls", EXAMPLES, null("pin_row")),
    ("counts_match_manifest", f"{SHARD}/timeline.arrow", lambda t: pa.concat_tables([t, t[-1:]])),
    ("references_resolve", EXAMPLES, with_value("pin_row", 3, 80)),
    ("references_resolve", f"{SHARD}/timeline.arrow", with_value("pin_row", 3, -1)),
    ("references_resolve", f"{SHARD}/requests.arrow", with_value("user_row", 0, 10_000)),
    ("pointers_inside_block", f"{SHARD}/requests.arrow", with_value("timeline_end", 5, 10**6)),
    ("pointers_inside_block", f"{SHARD}/requests.arrow", with_value("timeline_start", -1, 0)),
    ("requests_own_examples", f"{SHARD}/requests.arrow", with_value("num_examples", 4, 11)),
    ("unique_requests", f"{SHARD}/requests.arrow", repeat_request),
    ("unique_candidates", EXAMPLES, repeat_candidate),
    ("action_vocabulary", f"{SHARD}/timeline.arrow", with_value("action_type_id", 7, 0)),
    ("action_vocabulary", f"{SHARD}/timeline.arrow", with_value("action_type_id", 7, 5)),
    (
        "action_times",
        f"{SHARD}/timeline.arrow",
        with_column("acted_at", lambda at: at // 1000),  # seconds, not milliseconds
    ),
    ("timeline_order", f"{SHARD}/timeline.arrow", swap_first_actions),
    ("no_future_actions", f"{SHARD}/requests.arrow", shifted_pointer(+1)),
    ("no_missed_actions", f"{SHARD}/requests.arrow", shifted_pointer(-1)),
    ("requests_in_window", f"{SHARD}/requests.arrow", into_embargo),
    ("requests_in_window", f"{SHARD}/requests.arrow", with_value("split", 2, 2)),
    ("user_rows_point_in_time", f"{SHARD}/users.arrow", with_column("as_of", lambda a: a + 10**12)),
    ("user_rows_point_in_time", f"{SHARD}/users.arrow", with_column("user_id", lambda u: u + 1)),
    ("labels_are_binary", EXAMPLES, with_value("label_save", 9, 2)),
    ("numeric_features_in_range", EXAMPLES, with_value("num_pin_popularity", 2, np.nan)),
    ("numeric_features_in_range", EXAMPLES, with_value("num_past_engagements", 2, 900)),
    ("category_codes_in_range", EXAMPLES, with_value("cat_surface", 2, 2)),
    ("category_codes_in_range", f"{SHARD}/users.arrow", with_value("cat_state", 2, -1)),
    ("positions_not_negative", EXAMPLES, with_value("position", 2, -1)),
    ("user_embeddings_finite", f"{SHARD}/users.arrow", with_embedding(0, np.inf)),
    ("pin_embeddings_finite", "pins.arrow", with_embedding(4, np.nan)),
    ("pin_embedding_norm", "pins.arrow", with_embedding(4, 1e6)),
    ("unique_pins", "pins.arrow", with_value("pin_id", 5, 4)),
    ("pin_codes_in_range", "pins.arrow", with_value("cat_embedding_version", 5, 7)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "relative", "change"), DEFECTS, ids=[f"{d[0]}-{i}" for i, d in enumerate(DEFECTS)]
)
def test_a_planted_defect_is_found_and_its_place_is_named(
    planted_snapshot: Snapshot, tmp_path: Path, name: str, relative: str, change: Change
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    snapshot = rewrite(snapshot, folder, relative, change)
    outcomes = judge(snapshot, folder, tmp_path / "out")

    outcome = outcomes[name]
    assert not outcome.is_met
    assert outcome.partitions == (relative.split("/", maxsplit=1)[0],)
    assert re.match(r"[1-9]", outcome.observed)
    # What cannot be judged behind the defect says so; nothing else is accused.
    for other in failed(outcomes) - {name}:
        assert re.search("not measured|nothing to look at", outcomes[other].observed), other


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
    ("label_rate_is_steady", None, None, {"max_label_rate_change": 0.001}),
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


def test_altered_missing_and_unreadable_files(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    (folder / SHARD / "users.arrow").unlink()
    with (folder / "shard-00000" / "timeline.arrow").open("r+b") as stream:
        stream.truncate(1000)
    outcomes = judge(snapshot, folder, tmp_path / "out")

    assert outcomes["files_match_manifest"].partitions == ("shard-00000", SHARD)
    assert outcomes["schema"].partitions == ("shard-00000", SHARD)
    assert "has 1,000 bytes" in outcomes["files_match_manifest"].observed
    assert "cannot be read" in outcomes["schema"].observed
    assert "not measured in snapshot" in outcomes["target_label_rate"].observed
    # No shard could be measured: every rate fails rather than passing on nothing.
    assert {"target_label_rate", "sequence_coverage", "timeline_order"} <= failed(outcomes)


def test_two_defects_name_both_shards(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    for shard in snapshot.shards:
        change = with_column(
            "label_repin", lambda label: np.where(np.arange(len(label)) < 2, 3, label)
        )
        snapshot = rewrite(snapshot, folder, f"{shard.name}/examples.arrow", change)
    outcome = judge(snapshot, folder, tmp_path / "out")["labels_are_binary"]

    assert outcome.partitions == ("shard-00000", "shard-00001")
    assert outcome.observed.startswith("4 in 2 of 2 parts; label_repin is 3 in row 0")


def one_in_ten_more(label: np.ndarray) -> np.ndarray:
    return label | (np.random.default_rng(1).random(len(label)) < 0.1)


def test_shift_against_the_last_accepted_snapshot(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    for shard in snapshot.shards:
        relative = f"{shard.name}/examples.arrow"
        more = with_column("label_repin", one_in_ten_more)
        snapshot = rewrite(snapshot, folder, relative, more)
        higher = with_column("num_pin_popularity", lambda v: v + 2)
        snapshot = rewrite(snapshot, folder, relative, higher)
    snapshot = rewrite(snapshot, folder, "pins.arrow", with_embedding(3, 3.0))
    outcomes = judge(snapshot, folder, tmp_path / "out", reference=planted_snapshot)

    assert failed(outcomes) >= {"target_label_rate_shift", "label_rate_shift", "feature_shift",
                                "embedding_norm_shift"}  # fmt: skip
    assert outcomes["target_label_rate_shift"].severity is Severity.CRITICAL
    assert outcomes["label_rate_shift"].partitions == ("repin",)
    assert outcomes["feature_shift"].partitions == ("pin_popularity",)
    assert outcomes["row_count_shift"].observed == "+0 %"


def test_a_snapshot_of_half_the_rows_has_shifted(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    one_shard = planted_snapshot.model_copy(
        update={
            "shards": planted_snapshot.shards[1:],
            "files": tuple(f for f in planted_snapshot.files if "shard-00000" not in f.path),
        }
    )
    folder = storage.local_path(planted_snapshot.uri)
    outcomes = judge(one_shard, folder, tmp_path, reference=planted_snapshot)

    assert not outcomes["row_count_shift"].is_met
    assert outcomes["row_count_shift"].observed.startswith("-6")  # 1,414 of 3,849 examples


def test_shift_is_not_judged_on_few_rows_and_says_so(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    outcomes = judge(
        planted_snapshot, folder, tmp_path, reference=planted_snapshot, min_rows_for_shift=5000
    )
    outcome = outcomes["row_count_shift"]
    assert outcome.is_met
    assert outcome.observed == ("not judged: 3,849 examples, fewer than min_rows_for_shift = 5,000")


def test_a_reference_that_is_gone_is_no_evidence(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    reference, folder = copy_snapshot(planted_snapshot, tmp_path / "reference")
    (folder / SHARD / "examples.arrow").unlink()
    outcomes = judge(
        planted_snapshot, storage.local_path(planted_snapshot.uri), tmp_path / "out", reference
    )
    assert "can no longer be read" in outcomes["row_count_shift"].observed
    assert failed(outcomes) == set()


def test_a_snapshot_without_shards_is_not_accepted(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    empty = planted_snapshot.model_copy(update={"shards": ()})
    outcomes = judge(empty, storage.local_path(planted_snapshot.uri), tmp_path)
    assert {"timeline_order", "enough_training_requests"} <= failed(outcomes)


def test_the_first_cycle_has_nothing_to_shift_from(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    outcomes = judge(planted_snapshot, storage.local_path(planted_snapshot.uri), tmp_path)
    assert "no earlier accepted snapshot" in outcomes["target_label_rate_shift"].observed


def test_a_broken_check_is_not_bad_data(
    planted_snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = checks.Check(
        "broken", Severity.WARNING, "Looks at nothing.", "shards", "no_such_column", maximum=0
    )
    genuine = checks.make_checks
    monkeypatch.setattr(gate, "make_checks", lambda *a: (*genuine(*a), broken))

    with pytest.raises(HomefeedError, match="check 'broken' itself broke") as caught:
        judge(planted_snapshot, storage.local_path(planted_snapshot.uri), tmp_path)
    assert "no_such_column" in str(caught.value)
    assert caught.value.exit_code == 70


def test_the_data_docs_read_offline(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    relative = EXAMPLES
    snapshot = rewrite(snapshot, folder, relative, with_value("label_save", 9, 2))
    judge(snapshot, folder, tmp_path / "out")
    docs = tmp_path / "out" / "data_docs"

    overview = (docs / "index.html").read_text()
    assert (
        "Not accepted" in overview and "label_save is 2 in row 9" in overview and SHARD in overview
    )
    assert "labels_are_binary" in overview
    pages = sorted(docs.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        html = page.read_text()
        assert re.findall(r"https?://", html) == [], page
        for link in re.findall(r'href="([^"#]+\.html)"', html):
            assert (page.parent / link).is_file(), (page, link)
    assert sum(f.stat().st_size for f in docs.rglob("*") if f.is_file()) < 1_000_000


def test_psi_by_hand_and_of_nothing() -> None:
    now, before = np.array([49, 149]), np.array([99, 99])
    # With half a row added: 49.5/199, 149.5/199 against 99.5/199 twice.
    p, q = np.array([49.5, 149.5]) / 199, np.array([0.5, 0.5])
    expected = ((p - q) * np.log(p / q)).sum()
    assert measures.population_stability_index(now, before) == pytest.approx(expected)
    assert measures.population_stability_index(before, before) == 0.0


def test_the_windows_are_half_open(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    relative = f"{SHARD}/requests.arrow"
    split = np.asarray(pa.ipc.open_file(str(folder / relative)).read_all()["split"])
    row = int(np.flatnonzero(split == 1)[0])
    for at, is_met in ((snapshot.holdout.end, False), (snapshot.holdout.start, True)):
        moved = rewrite(snapshot, folder, relative, with_value("impressed_at", row, to_ms(at)))
        outcome = judge(moved, folder, tmp_path / f"out{is_met}")["requests_in_window"]
        assert outcome.is_met is is_met
