"""A snapshot is held against the one of the same day that was refused."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, Severity, Snapshot
from support.data_gate import CONFIG
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


THEN = outcome("share", False, "7 %; a: 7 %; b: 6 %")
WAS = "7 %, a: 7 % when it was refused, expected at most"


@pytest.mark.parametrize(
    ("then", "now", "phrases"),
    [
        (THEN, outcome("share", True, "0.5 %"), (f"share is mended: found 0.5 %, {WAS} 1 %",)),
        (THEN, outcome("share", False, "3 %"), (f"share is not mended: found 3 %, {WAS} 1 %",)),
        (THEN, outcome("share", True, "3 %", expected="at most 4 %"),
         (f"share is mended: found 3 %, {WAS} 4 %",)),
        (outcome("share", True, "0 %"), outcome("share", False, "2 %"),
         ("share is not met any more: found 2 %, expected at most 1 %",)),
        (outcome("share", True, "0 %"), outcome("share", True, "0 %"), ()),
        (outcome("share", False, "not measured in a", is_unmeasured=True),
         outcome("share", False, "9 %"), ()),
        (THEN, outcome("another", True, "0 %"), ()),
    ],
)  # fmt: skip
def test_what_became_of_what_was_not_met_is_told_with_both_numbers(
    planted_snapshot: Snapshot,
    then: ExpectationOutcome,
    now: ExpectationOutcome,
    phrases: tuple[str, ...],
) -> None:
    assert since_refused(report(then), planted_snapshot, [now]) == phrases
    assert since_refused(None, planted_snapshot, [now]) == ()


def test_the_gravest_is_told_first_and_the_page_says_what_was_wrong(
    planted_snapshot: Snapshot, tmp_path: Path
) -> None:
    name = "every_head_has_positives"
    refused = report(
        outcome(name, False, "0 (save)", severity=Severity.WARNING),
        outcome("target_label_rate", False, "0.1 %"),
        digest=planted_snapshot.digest,
    )
    folder = storage.local_path(planted_snapshot.uri)
    now = judge_snapshot(planted_snapshot, folder, None, CONFIG, tmp_path, None, refused)
    found = since_refused(refused, planted_snapshot, now)
    assert [phrase.partition(" is ")[0] for phrase in found] == [
        "the snapshot", "target_label_rate", name]  # fmt: skip
    assert found[0] == "the snapshot is the one that was refused"
    page = (tmp_path / "data_docs" / "index.html").read_text()
    assert "Since it was refused" in page and f"{name} is mended: found " in page
