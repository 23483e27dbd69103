"""A snapshot is held against the one of the same day that was refused."""

from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, Severity, Snapshot
from support.data_gate import CONFIG, failed, judge, reference_of
from support.snapshots import copy_snapshot, rewrite, with_column
from validation.data_gate.gate import judge_snapshot, since_refused


def outcome(name: str, is_met: bool, observed: str, **changes: object) -> ExpectationOutcome:
    fields = {
        "name": name,
        "description": "",
        "severity": Severity.CRITICAL,
        "is_met": is_met,
        "observed": observed,
        "expected": "at most 1 %",
    }
    return ExpectationOutcome(**fields | changes)


def report(*outcomes: ExpectationOutcome, digest: str = "of another") -> DataReport:
    return DataReport(
        snapshot_digest=digest, reference_digest=None, outcomes=outcomes, docs_uri="file:///docs"
    )


def told(
    snapshot: Snapshot, then: ExpectationOutcome, now: ExpectationOutcome, digest: str = "other"
) -> tuple[str, ...]:
    return since_refused(report(then, digest=digest), snapshot, [now])


THEN = outcome("share", False, "7 %; a: 7 %; b: 6 %")


@pytest.mark.parametrize(
    ("now", "phrase"),
    [
        (outcome("share", True, "0.5 %"),
         "share is mended: found 0.5 %, 7 %, a: 7 % when it was refused, expected at most 1 %"),
        (outcome("share", False, "3 %"),
         "share is not mended: found 3 %, 7 %, a: 7 % when it was refused, expected at most 1 %"),
        (outcome("share", True, "3 %", expected="at most 4 %"),
         "share is mended: found 3 %, 7 %, a: 7 % when it was refused, expected at most 4 % and "
         "at most 1 % then"),
        (outcome("share", False, "7 %", accepted_by="Ada: a new country"),
         "share is not mended and accepted by Ada: a new country: found 7 %, 7 %, a: 7 % when it "
         "was refused, expected at most 1 %"),
        (outcome("share", True, "not judged: 3 examples", is_judged=False),
         "share; not judged: 3 examples; found 7 %, a: 7 % when it was refused"),
    ],
)  # fmt: skip
def test_what_was_not_met_is_told_with_both_numbers(
    planted_snapshot: Snapshot, now: ExpectationOutcome, phrase: str
) -> None:
    assert told(planted_snapshot, THEN, now) == (phrase.replace("share; not", "share: not"),)


def test_what_broke_since_is_told_and_the_gravest_first(planted_snapshot: Snapshot) -> None:
    met = outcome("share", True, "0 %")
    assert told(planted_snapshot, met, met) == since_refused(None, planted_snapshot, [THEN]) == ()
    assert told(planted_snapshot, met, outcome("share", False, "2 %")) == (
        "share is not met any more: found 2 %, expected at most 1 %",
    )
    warned = outcome("warned", False, "2 %", severity=Severity.WARNING)
    refused = report(warned, THEN, digest=planted_snapshot.digest)
    found = since_refused(refused, planted_snapshot, refused.outcomes)
    assert [phrase.partition(" is ")[0] for phrase in found] == ["the snapshot", "share", "warned"]
    assert found[0] == "the snapshot is the one that was refused"


def test_a_repaired_snapshot_s_page_says_what_was_wrong(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    """The refused snapshot lacks nine labels in ten; the repaired one has all of them."""
    spoiled, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    for shard in spoiled.shards:
        few = with_column("label_repin", lambda v: v & (np.arange(len(v)) % 10 == 0))
        spoiled = rewrite(spoiled, folder, f"{shard.name}/examples.arrow", few)
    then = judge(spoiled, folder, tmp_path / "then", reference=planted_snapshot)
    assert "target_label_rate_shift" in failed(then)
    refused = report(*then.values(), digest=spoiled.digest)

    out_dir, reference = tmp_path / "now", reference_of(planted_snapshot)
    out_dir.mkdir()
    folder = storage.local_path(planted_snapshot.uri)
    now = judge_snapshot(planted_snapshot, folder, reference, CONFIG, out_dir, None, refused)
    shift = then["target_label_rate_shift"].observed
    phrase = f"target_label_rate_shift is mended: found +0 %, {shift} when it was refused"
    assert any(each.startswith(phrase) for each in since_refused(refused, planted_snapshot, now))
    page = (out_dir / "data_docs" / "index.html").read_text()
    assert "Since it was refused" in page and phrase in page


def test_what_could_not_be_measured_then_is_counted_where_it_is_met_now(
    planted_snapshot: Snapshot,
) -> None:
    unmeasured = [
        outcome(name, False, "not measured in a", is_unmeasured=True) for name in ("b", "c", "d")
    ]
    met = [outcome(name, True, "0 %") for name in ("share", "b", "c")]
    now = [*met, outcome("d", False, "9 %")]
    found = since_refused(report(THEN, *unmeasured), planted_snapshot, now)
    assert found == (
        "share is mended: found 0 %, 7 %, a: 7 % when it was refused, expected at most 1 %",
        "d is not mended: found 9 %, not measured in a when it was refused, expected at most 1 %",
        "2 more, which could not be measured then, are met now",
    )
