"""`build_snapshot` as a stage: again where its files were lost, or the log was mended since."""

import logging
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.run_layout import listing_uri
from pipelines.event_log import reader
from pipelines.event_log.reader import Listing
from pipelines.snapshot.build import write_snapshot
from pipelines.stages import runner
from pipelines.stages.build_snapshot import build_snapshot
from support.runs import make_run, save_run
from support.tiny_log import (
    TINY_AS_OF,
    acted,
    pins_of,
    shown,
    tiny_actions,
    tiny_config,
    tiny_impressions,
    write_tiny_log,
)


@pytest.fixture
def run(log: Path) -> ResolvedRun:
    return save_run(make_run(log.parent, tiny_config(num_shards=2), TINY_AS_OF))


@pytest.fixture
def done(run: ResolvedRun) -> ResolvedRun:
    """The same run, whose snapshot is built."""
    runner.run_stage("build_snapshot", run.run_uri)
    return run


def test_who_wakes_up_after_another_listed_the_log_does_not_write_over_its_list(
    s3_uri: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an object store: another attempt is at work at the same time."""
    run = make_run(log.parent, tiny_config(num_shards=2), TINY_AS_OF, workspace_uri=s3_uri)
    uri, genuine = listing_uri(run.run_uri), reader.list_files
    build_snapshot(run)
    theirs = Listing(event_log_uri="of another process", files=())

    def meanwhile(*arguments: object) -> Listing:
        storage.write_model(uri, theirs)
        return genuine(*arguments)

    monkeypatch.setattr(reader, "list_files", meanwhile)
    with pytest.raises(RunInProgressError, match=f"^{uri} was written by another process since"):
        build_snapshot(run)
    assert storage.read_model(uri, Listing) == theirs
    monkeypatch.setattr(reader, "list_files", genuine)
    build_snapshot(run)
    assert len(storage.read_model(uri, Listing).files) > 5


ACTIONS_15 = "actions/day=2017-01-15/part-0.parquet"


def built(run: ResolvedRun) -> Snapshot:
    return runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)


def finished_at(run: ResolvedRun) -> str:
    return str(runner.read_record(run.run_uri, "build_snapshot").finished_at)


def run_again(run: ResolvedRun, caplog: pytest.LogCaptureFixture) -> str:
    """Run the stage again; return what was warned of."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        runner.run_stage("build_snapshot", run.run_uri)
    return "\n".join(record.getMessage() for record in caplog.records)


def mend(run: ResolvedRun) -> None:
    """Add an action that was missing: a click on A's second pin."""
    path = storage.local_path(run.event_log_uri) / ACTIONS_15
    rows = pq.read_table(path, partitioning=None)
    added = acted(1, 20, "repin", "15 02:00", "15 02:05", "A")
    pq.write_table(pa.concat_tables([rows, pa.Table.from_pylist([added], rows.schema)]), path)


def test_who_was_killed_while_building_the_mended_log_builds_it_again(
    done: ResolvedRun, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, first = built(done), finished_at(done)
    mend(done)
    with monkeypatch.context() as patch:

        def killed(run: ResolvedRun) -> Snapshot:
            raise KeyboardInterrupt

        patch.setattr("pipelines.snapshot.build.write_snapshot", killed)
        with pytest.raises(KeyboardInterrupt):
            runner.run_stage("build_snapshot", done.run_uri)
    assert built(done) == before  # and the list of files is that of the mended log already
    assert "changed" in run_again(done, caplog)
    assert built(done).digest == write_snapshot(done).digest != before.digest
    assert finished_at(done) != first


def test_files_that_are_new_gone_or_written_again_are_noticed(
    done: ResolvedRun, caplog: pytest.LogCaptureFixture
) -> None:
    log, changed = storage.local_path(done.event_log_uri), "the event log has changed; it is done"
    path = (log / ACTIONS_15).rename(log / ACTIONS_15.replace("part-0", "part-1"))
    before = built(done)
    assert changed in run_again(done, caplog)
    assert built(done) == before  # the same rows: the stages behind replay
    os.utime(path, (2_000_000_000, 2_000_000_000))  # of the same size
    assert changed in run_again(done, caplog)
    pq.write_table(pins_of([50]), log / "pins" / "part-1.parquet")
    assert changed in run_again(done, caplog)
    assert changed not in run_again(done, caplog)


def test_a_snapshot_whose_log_is_gone_stays(
    done: ResolvedRun, caplog: pytest.LogCaptureFixture
) -> None:
    before = finished_at(done)
    shutil.rmtree(storage.local_path(done.event_log_uri))
    assert "not compared with what was read of it: no event log at" in run_again(done, caplog)
    assert finished_at(done) == before


def test_the_duplicates_of_this_log_are_counted_though_the_content_is_there(log: Path) -> None:
    first = write_snapshot(make_run(log.parent, tiny_config(), TINY_AS_OF))
    again = shown("C", 1, "18 00:01", 30, 10)
    write_tiny_log(log, [*tiny_impressions(), *again], tiny_actions())
    second = write_snapshot(make_run(log.parent, tiny_config(), TINY_AS_OF))
    assert (first.digest, first.num_duplicate_impressions) == (second.digest, 0)
    assert second.num_duplicate_impressions == 2
