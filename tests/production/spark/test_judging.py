"""Days that executors measure have the profiles that one machine finds, to the last bit."""

from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.day_profile import KeptDays
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import judged_log_uri
from pipelines.event_log.log_files import open_event_log
from pipelines.log_days import reading
from pipelines.log_days.judging import DAYS_FILE, judge_event_log
from pipelines.log_days.reading import measure_log
from pipelines.recipes import completejourney
from pipelines.snapshot.plan import plan_of
from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
from pipelines.sources.publish import ingest
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]


@pytest.fixture
def one_part_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a day is large."""
    monkeypatch.setattr(reading, "BYTES_AT_ONCE", 1)


def test_the_sample_s_days_have_the_profiles_of_one_machine(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ingest(CompleteJourneyAdapter(), str(tmp_path / "event_log"))
    event_log = open_event_log(storage.to_uri(tmp_path / "event_log"))
    as_of = PLANTED_AS_OF.replace(month=6, day=12)
    plan, end = plan_of(completejourney(), as_of), int(as_of.timestamp()) // 86_400
    here = measure_log(event_log, plan, range(end - 12, end), tmp_path)
    request.getfixturevalue("by_spark")
    request.getfixturevalue("one_part_a_day")
    assert measure_log(event_log, plan, range(end - 12, end), tmp_path) == here != ()


def test_a_log_in_a_bucket_is_judged_where_it_lies_and_its_days_are_kept_there(
    tmp_path: Path,
    in_bucket: ResolvedRun,
    by_spark: None,
    one_part_a_day: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = judge_event_log(in_bucket)
    assert judged.is_accepted and judged.num_judged_days > 10
    asked: list[int] = []
    parts_of = reading.parts_of
    monkeypatch.setattr(
        reading, "parts_of", lambda log, days: asked.extend(days) or parts_of(log, days)
    )
    assert judge_event_log(in_bucket).num_judged_days == judged.num_judged_days
    # Of the planted world, some rows of the last days become known after as_of.
    assert len(asked) <= 2
    here = make_run(tmp_path)
    monkeypatch.setenv("HOMEFEED_SPARK_OPTIONS", "{}")
    judge_event_log(here)
    profiles = [
        KeptDays.from_record(
            storage.read_bytes(storage.join(judged_log_uri(run.run_uri), DAYS_FILE))
        )
        for run in (in_bucket, here)
    ]
    assert profiles[0] == profiles[1]


def test_a_damaged_day_is_refused_by_its_name(
    tmp_path: Path, by_spark: None, one_part_a_day: None
) -> None:
    write_planted_world(tmp_path / "event_log", num_days=67)
    day = f"day={(PLANTED_AS_OF - timedelta(days=8)).date()}"
    [path] = (tmp_path / "event_log/impressions" / day).iterdir()
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["position"]), path)
    with pytest.raises(DataContractError, match=f"{day}.*position"):
        judge_event_log(make_run(tmp_path))
