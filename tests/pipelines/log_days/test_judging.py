"""An event log is judged before anything is built, by its own past or by what was accepted."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun, Snapshot
from pipelines.contracts.errors import DataGateFailedError
from pipelines.contracts.judged.day_profile import KeptDays
from pipelines.contracts.run_layout import (
    StageFailure,
    failure_uri,
    judged_log_uri,
    manifest_uri,
)
from pipelines.log_days.judging import DAYS_FILE, judge_event_log, read_report
from pipelines.registry.accepted import newest_accepted
from pipelines.stages import runner
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.worlds import write_planted_world

HOLDOUT_FILES = "actions/day=2017-02-2*/*.parquet"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_planted_world(tmp_path / "event_log", num_days=74)
    return tmp_path


def change_files(world: Path, pattern: str, change: Callable[[dict], dict]) -> None:
    for path in sorted((world / "event_log").glob(pattern)):
        table = pq.read_table(path)
        pq.write_table(table.from_pydict(change(table.to_pydict()), schema=table.schema), path)


def later(world: Path, days: int, reference: str | None) -> ResolvedRun:
    as_of = PLANTED_AS_OF + timedelta(days=days)
    return save_run(make_run(world, as_of=as_of, last_accepted_snapshot_uri=reference))


def accept_first(world: Path) -> str:
    """Run a first cycle up to its accepted snapshot; return that snapshot."""
    first = later(world, 0, None)
    runner.run_stage("build_snapshot", first.run_uri)
    runner.run_stage("check_snapshot", first.run_uri)
    end = PLANTED_AS_OF + timedelta(days=1)
    uri = newest_accepted(first.workspace_uri, first.config.reference, end)
    assert uri is not None
    return uri


def without_requests(rows: dict) -> dict:
    return rows | {"request_id": ["nowhere"] * len(rows["request_id"])}


def test_a_sound_log_is_held_against_its_own_past(world: Path) -> None:
    report = judge_event_log(later(world, 0, None))
    assert report.is_accepted and report.failures == ()
    assert report.num_judged_days == 22 and report.num_history_days > 30
    assert Path(storage.local_path(report.docs_uri)).is_file()


def test_a_spoiled_log_is_refused_before_anything_is_built(world: Path) -> None:
    change_files(world, HOLDOUT_FILES, without_requests)
    run = later(world, 0, None)
    with pytest.raises(DataGateFailedError) as caught:
        runner.run_stage("build_snapshot", run.run_uri)
    message = str(caught.value)
    assert "refused the event log" in message and "nothing was built" in message
    assert "log_harms_no_model (critical): found" in message
    assert "named.repin.known" in message
    assert "(for example on 2017-02-2" in message and "of a request that is not there" in message
    assert f"homefeed gate accept {run.run_uri} log_harms_no_model" in message
    failure = storage.read_model(failure_uri(run.run_uri, "build_snapshot"), StageFailure)
    assert failure.acceptable == ("log_harms_no_model",)
    assert not storage.exists(storage.join(run.workspace_uri, "snapshots"))
    assert not storage.exists(manifest_uri(run.run_uri, "build_snapshot"))


def test_what_was_found_goes_into_the_data_report(world: Path) -> None:
    run = later(world, 0, None)
    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    report = runner.read_artifact(run.run_uri, "check_snapshot", DataReport)
    of_log = read_report(run)
    assert of_log is not None
    assert report.outcomes[: len(of_log.outcomes)] == of_log.outcomes
    assert report.log_docs_uri == of_log.docs_uri


def test_accepted_days_are_the_history_of_the_next_cycle(world: Path) -> None:
    run = later(world, 14, accept_first(world))
    report = judge_event_log(run)
    assert report.is_accepted
    # Of 22 days, the first cycle had eight as they are; its own 22 days are what is usual.
    assert report.num_judged_days == 14 and report.num_history_days == 22
    uri = storage.join(judged_log_uri(run.run_uri), DAYS_FILE)
    kept = KeptDays.model_validate_json(storage.read_bytes(uri))
    days = [day.day for day in kept.days]
    assert days == list(range(days[0], days[0] + 36))


def test_a_partition_that_was_rewritten_is_named(world: Path) -> None:
    reference = accept_first(world)

    def half(rows: dict) -> dict:
        size = len(rows["user_id"]) // 2
        return {name: values[:size] for name, values in rows.items()}

    change_files(world, "impressions/day=2017-02-25/*.parquet", half)
    report = judge_event_log(later(world, 14, reference))
    (outcome,) = [o for o in report.outcomes if o.name == "log_days_as_accepted"]
    assert not outcome.is_met and outcome.partitions == ("2017-02-25",)
    assert "2017-02-25 was rewritten since it was accepted: " in outcome.observed
    assert report.num_judged_days == 15


def test_rows_that_come_later_change_nothing_of_the_past(world: Path) -> None:
    run = later(world, 0, None)
    before = judge_event_log(run)
    write_planted_world(world / "more", num_days=90)
    again = judge_event_log(later(world, 0, None))
    assert again.outcomes == before.outcomes
    known = {"known_at": np.iinfo(np.int64).max // 2}
    change_files(
        world, "actions/day=2017-03-1*/*.parquet",
        lambda rows: rows | {"known_at": [int(1.6e12)] * len(rows["known_at"])},
    )  # fmt: skip
    assert known and judge_event_log(later(world, 0, None)).outcomes == before.outcomes


def test_damaged_kept_days_are_passed_over(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = accept_first(world)
    (kept,) = (world / "workspace").glob(f"runs/*/check_snapshot/output-*/{DAYS_FILE}")
    kept.write_text("{")
    report = judge_event_log(later(world, 14, reference))
    assert report.num_judged_days == 22
    assert "the kept days of the last accepted snapshot are damaged" in caplog.text


def test_a_snapshot_from_before_days_were_kept(world: Path) -> None:
    reference = accept_first(world)
    (kept,) = (world / "workspace").glob(f"runs/*/check_snapshot/output-*/{DAYS_FILE}")
    kept.unlink()
    report = judge_event_log(later(world, 14, reference))
    assert report.num_judged_days == 22 and report.num_history_days > 30
    assert storage.read_model(f"{reference}/manifest.json", Snapshot)
