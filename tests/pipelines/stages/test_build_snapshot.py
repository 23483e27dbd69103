"""`build_snapshot` as a stage: what was lost of a published snapshot is built again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.run_layout import listing_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.event_log import listing
from pipelines.event_log.listing import Listing
from pipelines.stages import runner
from pipelines.stages.build_snapshot import build_snapshot
from support.runs import make_run, save_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    write_tiny_log(tmp_path / "event_log")
    return save_run(make_run(tmp_path, tiny_config(num_shards=2), TINY_AS_OF))


def lose_a_file(folder: Path) -> None:
    (folder / "shard-00000" / "examples.arrow").unlink()


def cut_a_file(folder: Path) -> None:
    path = folder / "shard-00001" / "timeline.arrow"
    path.write_bytes(path.read_bytes()[:-8])


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [shutil.rmtree, lose_a_file, cut_a_file, lose_the_manifest])
def test_a_snapshot_that_lost_something_is_built_again(
    run: ResolvedRun, damage: Callable[[Path], None]
) -> None:
    first = runner.run_stage("build_snapshot", run.run_uri)
    snapshot = runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)
    folder = storage.local_path(snapshot.uri)
    damage(folder)
    assert runner.run_stage("build_snapshot", run.run_uri) == first
    assert runner.read_artifact(run.run_uri, "build_snapshot", Snapshot) == snapshot
    verify_files(snapshot, folder)
    assert (folder / "manifest.json").exists()


def test_a_whole_snapshot_is_left_alone(run: ResolvedRun) -> None:
    runner.run_stage("build_snapshot", run.run_uri)
    snapshot = runner.read_artifact(run.run_uri, "build_snapshot", Snapshot)
    files = [path for path in storage.local_path(snapshot.uri).rglob("*") if path.is_file()]
    written = {path: path.stat().st_mtime_ns for path in files}
    runner.run_stage("build_snapshot", run.run_uri)
    assert {path: path.stat().st_mtime_ns for path in files} == written


def test_who_wakes_up_after_another_listed_the_log_does_not_write_over_its_list(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an object store: the lease was lost while the files of the log were looked at."""
    write_tiny_log(tmp_path / "event_log")
    run = make_run(tmp_path, tiny_config(num_shards=2), TINY_AS_OF, workspace_uri=s3_uri)
    uri, genuine = listing_uri(run.run_uri), listing.list_files
    build_snapshot(run)
    theirs = Listing(event_log_uri="of another process", files=())

    def meanwhile(*arguments: object) -> Listing:
        storage.write_model(uri, theirs)
        return genuine(*arguments)

    monkeypatch.setattr(listing, "list_files", meanwhile)
    with pytest.raises(RunInProgressError, match=f"^{uri} was written by another process since"):
        build_snapshot(run)
    assert storage.read_model(uri, Listing) == theirs
    monkeypatch.setattr(listing, "list_files", genuine)
    build_snapshot(run)
    assert len(storage.read_model(uri, Listing).files) > 5
