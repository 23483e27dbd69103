"""`train_challenger` as a stage: it trains on nothing that the data gate has not accepted.

A whole training is in `test_killed_stages`.
"""

from pathlib import Path

import pytest

from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, Severity, Snapshot
from pipelines.contracts.errors import DataGateFailedError
from pipelines.snapshot.build import write_snapshot
from pipelines.stages.train_challenger import train_challenger
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log


def report_on(snapshot_digest: str, is_met: bool) -> DataReport:
    outcome = ExpectationOutcome(
        name="enough_rows",
        description="There are enough rows.",
        severity=Severity.CRITICAL,
        is_met=is_met,
        observed="1",
        expected="2",
    )
    return DataReport(
        snapshot_digest=snapshot_digest,
        outcomes=(outcome,),
        docs_uri="file:///nowhere/index.html",
        reference_digest=None,
    )


@pytest.mark.parametrize(
    ("is_about_this", "is_met", "message"),
    [(True, False, "refuses it"), (False, True, "is about snapshot ffffffffffff")],
)
def test_a_snapshot_without_an_accepting_report_is_not_trained_on(
    tmp_path: Path, is_about_this: bool, is_met: bool, message: str
) -> None:
    write_tiny_log(tmp_path / "event_log")
    run = make_run(tmp_path, tiny_config(num_shards=1), TINY_AS_OF)
    snapshot: Snapshot = write_snapshot(run)
    report = report_on(snapshot.digest if is_about_this else "f" * 64, is_met)
    with pytest.raises(DataGateFailedError, match=message):
        train_challenger(run, snapshot, report, "file:///nowhere/output")
