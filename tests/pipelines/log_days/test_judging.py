"""An event log is judged before anything is built, by its own past or by what was accepted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun
from pipelines.contracts.day_profile import KeptDays
from pipelines.contracts.errors import ConfigurationError, DataGateFailedError
from pipelines.contracts.run_layout import (
    StageFailure,
    failure_uri,
    judged_log_uri,
    manifest_uri,
)
from pipelines.log_days.judging import (
    DAYS_FILE,
    accept_shift,
    accepted_shifts,
    judge_event_log,
    read_report,
)
from pipelines.recipes import smoke
from pipelines.registry.evidence import accepted_folder, newest_mark
from pipelines.snapshot.plan import plan_of
from pipelines.stages import runner
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.worlds import PLANTED_START, write_planted_world

NOW = datetime(2017, 3, 3, 8, 30, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_planted_world(tmp_path / "event_log", num_days=74)
    return tmp_path


def change_files(world: Path, pattern: str, change: Callable[[dict], dict]) -> None:
    for path in sorted((world / "event_log").glob(pattern)):
        table = pq.read_table(path)
        pq.write_table(table.from_pydict(change(table.to_pydict()), schema=table.schema), path)


def later(world: Path, days: int = 0, reference: str | None = None) -> ResolvedRun:
    as_of = PLANTED_AS_OF + timedelta(days=days)
    return save_run(make_run(world, as_of=as_of, last_accepted_snapshot_uri=reference))


def test_a_spoiled_log_is_refused_before_anything_is_built(world: Path) -> None:
    change_files(
        world, "actions/day=2017-02-2*/*.parquet",
        lambda rows: rows | {"request_id": ["nowhere"] * len(rows["request_id"])},
    )  # fmt: skip
    run = later(world)
    with pytest.raises(DataGateFailedError) as caught:
        runner.run_stage("build_snapshot", run.run_uri)
    for part in (
        "refused the event log",
        "nothing was built",
        "log_harms_no_model (critical): found",
        "named.repin.known",
        f"homefeed gate accept {run.run_uri} log_harms_no_model",
    ):
        assert part in str(caught.value)
    failure = storage.read_model(failure_uri(run.run_uri, "build_snapshot"), StageFailure)
    assert failure.acceptable == ("log_harms_no_model",)
    assert not storage.exists(storage.join(run.workspace_uri, "snapshots"))
    assert not storage.exists(manifest_uri(run.run_uri, "build_snapshot"))


def built_and_checked(run: ResolvedRun) -> DataReport:
    runner.run_stage("build_snapshot", run.run_uri)
    runner.run_stage("check_snapshot", run.run_uri)
    return runner.read_artifact(run.run_uri, "check_snapshot", DataReport)


def test_a_day_of_which_the_windows_have_an_hour_is_not_missed(world: Path) -> None:
    """With a label window of one hour, training begins at 23:00, an hour before the log does."""
    first = PLANTED_START - timedelta(hours=1)
    config = smoke().snapshot.model_copy(update={"label_window_hours": 1})
    plan = plan_of(smoke().model_copy(update={"snapshot": config}), PLANTED_AS_OF)
    as_of = PLANTED_AS_OF - (plan.training.start - first)
    run = later(world)
    config = run.config.model_copy(update={"snapshot": config})
    run = save_run(run.model_copy(update={"config": config, "as_of": as_of}))
    report = judge_event_log(run)
    [every_day] = [each for each in report.outcomes if each.name == "log_has_every_day"]
    assert every_day.is_met


def test_a_log_is_held_against_its_own_past_and_a_later_cycle_against_no_less(world: Path) -> None:
    run = later(world)
    report, of_log = built_and_checked(run), read_report(run)
    assert of_log is not None and of_log.failures == ()
    assert of_log.num_judged_days == 22 and (history := of_log.num_history_days) > 30
    assert Path(storage.local_path(of_log.docs_uri)).is_file()
    assert report.outcomes[: len(of_log.outcomes)] == of_log.outcomes
    assert report.log_docs_uri == of_log.docs_uri

    end = PLANTED_AS_OF + timedelta(days=1)
    mark = newest_mark(accepted_folder(run.workspace_uri, run.config.reference), end)
    reference = mark.snapshot_uri
    next_run = later(world, 14, reference)
    of_log = judge_event_log(next_run)
    assert of_log.is_accepted
    # Of 22 days, the first cycle had eight as they are.
    assert of_log.num_judged_days == 14 and of_log.num_history_days > history
    uri = storage.join(judged_log_uri(next_run.run_uri), DAYS_FILE)
    days = [day.day for day in KeptDays.from_record(storage.read_bytes(uri)).days]
    assert days == list(range(days[0], days[0] + 36))

    files = "impressions/day=2017-02-25/*.parquet"
    change_files(world, files, lambda rows: {k: v[: len(v) // 2] for k, v in rows.items()})
    of_log = judge_event_log(later(world, 14, reference))
    (outcome,) = [o for o in of_log.outcomes if o.name == "log_days_as_accepted"]
    assert not outcome.is_met and outcome.partitions == ("2017-02-25",)
    assert "2017-02-25 was rewritten since it was accepted: " in outcome.observed
    assert of_log.num_judged_days == 15

    (kept,) = (world / "workspace").glob(f"runs/*/check_snapshot/output-*/{DAYS_FILE}")
    for damage in (lambda: kept.write_text("{"), kept.unlink):  # passed over
        damage()
        of_log = judge_event_log(later(world, 14, reference))
        assert of_log.num_judged_days == 22 and of_log.num_history_days > history


def test_rows_that_come_later_change_nothing_of_the_past(world: Path) -> None:
    before = judge_event_log(later(world))
    change_files(
        world, "actions/day=2017-03-1*/*.parquet",
        lambda rows: rows | {"known_at": [int(1.6e12)] * len(rows["known_at"])},
    )  # fmt: skip
    assert judge_event_log(later(world)).outcomes == before.outcomes


@pytest.mark.parametrize(
    ("name", "by", "reason", "message"),
    [
        ("row_count_shift", "Ada", "a new country", ""),
        ("files_match_manifest", "Ada", "I say so", "cannot be accepted by a person"),
        ("embeddings_as_accepted", "Ada", "I say so", "cannot be accepted by a person"),
        ("row_count_shift", "", "why", "needs a name and a reason"),
        ("row_count_shift", "Ada", " ", "needs a name and a reason"),
    ],
)
def test_a_word_is_kept_for_its_run_alone_and_what_is_never_right_is_not_accepted(
    tmp_path: Path, name: str, by: str, reason: str, message: str
) -> None:
    run = make_run(tmp_path)
    if message:
        with pytest.raises(ConfigurationError, match=message):
            accept_shift(run.run_uri, name, by, reason, NOW)
        assert accepted_shifts(run.run_uri) == {}
    else:
        accept_shift(run.run_uri, name, by, reason, NOW)
        assert accepted_shifts(run.run_uri) == {name: f"{by}, 2017-03-03 08:30 UTC: {reason}"}
        assert accepted_shifts(make_run(tmp_path, run_id="another").run_uri) == {}


@pytest.mark.docs
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

    report = built_and_checked(run)
    (outcome,) = [each for each in report.warnings if each.name == "log_has_most_days"]
    assert outcome.accepted_by == "Ada, 2017-03-03 08:30 UTC: we were closed"
    page = Path(storage.local_path(report.log_docs_uri)).read_text()
    assert "accepted by Ada, 2017-03-03 08:30 UTC: we were closed" in page
