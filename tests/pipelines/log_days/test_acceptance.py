"""A person's word for data that are unusual and right."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport
from pipelines.contracts.errors import ConfigurationError, DataGateFailedError
from pipelines.log_days.acceptance import ACCEPTABLE, accept_shift, accepted_shifts
from pipelines.stages import runner
from support.runs import make_run, save_run
from support.worlds import write_planted_world

NOW = datetime(2017, 3, 3, 8, 30, tzinfo=UTC)


def test_a_word_is_kept_with_name_and_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    accept_shift(run.run_uri, "row_count_shift", "Ada", "a new country", NOW)
    assert accepted_shifts(run.run_uri) == {
        "row_count_shift": "Ada, 2017-03-03 08:30 UTC: a new country"
    }


@pytest.mark.parametrize("name", ["files_match_manifest", "embeddings_as_accepted", "nonsense"])
def test_what_is_never_right_cannot_be_accepted(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be accepted by a person"):
        accept_shift(run.run_uri, name, "Ada", "I say so", NOW)
    assert accepted_shifts(run.run_uri) == {}


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("Ada", " "), (" ", "")])
def test_nobody_accepts_without_name_and_reason(tmp_path: Path, by: str, reason: str) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ConfigurationError, match="needs a name and a reason"):
        accept_shift(run.run_uri, "row_count_shift", by, reason, NOW)


def test_an_accepted_shift_lets_the_cycle_go_on_and_is_told(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log")
    lost = sorted((tmp_path / "event_log" / "impressions").glob("day=2017-02-1*"))[:4]
    for folder in lost:
        for path in folder.iterdir():
            path.unlink()
    run = save_run(make_run(tmp_path))
    with pytest.raises(DataGateFailedError, match="log_has_most_days"):
        runner.run_stage("build_snapshot", run.run_uri)
    accept_shift(run.run_uri, "log_has_most_days", "Ada", "we were closed", NOW)

    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    report = runner.read_artifact(run.run_uri, "check_snapshot", DataReport)
    (outcome,) = [each for each in report.warnings if each.name == "log_has_most_days"]
    assert outcome.accepted_by == "Ada, 2017-03-03 08:30 UTC: we were closed"
    page = Path(storage.local_path(report.log_docs_uri)).read_text()
    assert "accepted by Ada, 2017-03-03 08:30 UTC: we were closed" in page


def test_a_word_for_one_run_is_none_for_another(tmp_path: Path) -> None:
    accept_shift(make_run(tmp_path).run_uri, "row_count_shift", "Ada", "why", NOW)
    other = make_run(tmp_path, run_id="another")
    assert accepted_shifts(other.run_uri) == {}
    assert all("_" in name for name in ACCEPTABLE)
