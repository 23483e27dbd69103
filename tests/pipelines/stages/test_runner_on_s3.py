"""Two processes and one workspace on a real S3 server: neither harms what the other has made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import LostRaceError
from pipelines.contracts.run_layout import (
    StageFailure,
    StageRecord,
    failure_uri,
    lost_race_uri,
    manifest_uri,
)
from pipelines.contracts.snapshot_files import verify_files
from pipelines.contracts.stage_table import TABLE, Stage
from pipelines.places import lease as store_lease
from pipelines.registry import tracking
from pipelines.stages import runner
from support.holders import TTL_S, Holder, state_of
from support.runs import make_run, save_run
from support.tiny_log import TINY_AS_OF, tiny_config, write_tiny_log

NAME = "build_snapshot"
RUN_STAGE = """
from pipelines.contracts.base import Artifact
from pipelines.places import lease
from pipelines.stages import build_snapshot, runner
from pipelines.contracts.stage_table import TABLE, Stage

class File(Artifact):
    file_uri: str

def body(output_uri: str) -> File:
    uri = storage.join(output_uri, "file")
    storage.write_bytes(uri, b"theirs")
    print("working", flush=True)
    sys.stdin.readline()
    {unaware}
    {then}
    return File(file_uri=uri)

TABLE["build_snapshot"] = Stage("build_snapshot", {{}}, File, ("output_uri",))
build_snapshot.build_snapshot = body
try:
    print(runner.run_stage("build_snapshot", {run_uri!r}, again=True), flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""
UNAWARE = "storage.require_held_leases = lambda: None"
"""As if the process had been stopped after it had looked at its lease, and before it wrote."""
TAG = """
    from pipelines.registry import tracking
    client = tracking.connect({uri!r})
    client.get_run({mlflow_run_id!r})  # Whoever has lost a lease may read.
    print("read", flush=True)
    client.set_tag({mlflow_run_id!r}, "written_by", "theirs")
"""


class File(Artifact):
    file_uri: str

    def places(self) -> dict[str, int | None]:
        return {self.file_uri: None}


@pytest.fixture
def run_uri(s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that is resolved, whose first stage writes one file."""
    monkeypatch.setattr(store_lease, "TTL_S", TTL_S)
    monkeypatch.setitem(TABLE, NAME, Stage(NAME, inputs={}, gives=File, also=("output_uri",)))
    monkeypatch.setattr("pipelines.stages.build_snapshot.build_snapshot", write_file)
    return save_run(make_run(tmp_path, workspace_uri=s3_uri)).run_uri


def write_file(output_uri: str) -> File:
    uri = storage.join(output_uri, "file")
    storage.write_bytes(uri, b"ours")
    return File(file_uri=uri)


def published(run_uri: str) -> tuple[StageRecord, bytes]:
    """Return the manifest and the content of the file that it names."""
    record = runner.read_record(run_uri, NAME)
    return record, storage.read_bytes(record.artifact["file_uri"])


def outputs(run_uri: str) -> list[str]:
    names = storage.list_names(storage.join(run_uri, NAME))
    return [name for name in names if name.startswith("output-")]


def start_theirs(run_uri: str, unaware: str = "pass", then: str = "pass") -> Holder:
    holder = Holder(RUN_STAGE.format(run_uri=run_uri, unaware=unaware or "pass", then=then))
    assert holder.says() == "working"
    return holder


def test_a_stage_is_run_by_one_of_two_processes_and_its_files_stay(run_uri: str) -> None:
    with start_theirs(run_uri) as theirs:
        with pytest.raises(LostRaceError, match=f"process {theirs.pid} on "):
            runner.run_stage(NAME, run_uri)
        theirs.tell()
        assert theirs.says() == manifest_uri(run_uri, NAME)
    record, content = published(run_uri)
    assert (record.lease, content) == (1, b"theirs")
    assert storage.exists(lost_race_uri(run_uri, NAME))
    assert len(outputs(run_uri)) == 1


@pytest.mark.parametrize("unaware", ["", UNAWARE])
def test_a_stopped_attempt_that_wakes_up_harms_nothing_of_its_successor(
    run_uri: str, unaware: str
) -> None:
    with start_theirs(run_uri, unaware) as theirs:
        theirs.stop()
        runner.run_stage(NAME, run_uri)
        ours, content = published(run_uri)
        theirs.wake()
        theirs.tell()
        assert theirs.says().startswith("LostRaceError")
    assert published(run_uri) == (ours, content)
    assert (ours.lease, content) == (2, b"ours")
    # Such a failure is not told to people: the successor tells how it ends.
    noted = (failure_uri if unaware else lost_race_uri)(run_uri, NAME)
    assert storage.read_model(noted, StageFailure).error_class == "LostRaceError"
    assert unaware or not storage.exists(failure_uri(run_uri, NAME))


@pytest.mark.services
def test_a_stopped_attempt_that_wakes_up_writes_nothing_to_mlflow(
    run_uri: str, tracking_uri: str
) -> None:
    client = tracking.connect(tracking_uri)
    mlflow_run_id = client.create_run("0").info.run_id
    tag = TAG.format(uri=tracking_uri, mlflow_run_id=mlflow_run_id).strip()
    with start_theirs(run_uri, then=tag) as theirs:
        theirs.stop()
        runner.run_stage(NAME, run_uri)
        client.set_tag(mlflow_run_id, "written_by", "ours")
        theirs.wake()
        theirs.tell()
        assert theirs.says() == "read"
        assert theirs.says().startswith("LostRaceError")
    assert client.get_run(mlflow_run_id).data.tags["written_by"] == "ours"


def test_a_successor_at_work_is_neither_refused_nor_robbed(run_uri: str) -> None:
    """The stopped attempt wakes up before its successor has published anything."""
    with start_theirs(run_uri) as first:
        first.stop()
        with start_theirs(run_uri) as second:
            first.wake()
            first.tell()
            assert first.says().startswith("LostRaceError")
            second.tell()
            assert second.says() == manifest_uri(run_uri, NAME)
    record, content = published(run_uri)
    assert (record.lease, content) == (2, b"theirs")
    assert len(outputs(run_uri)) == 1, "what the first attempt had made is gone"


def test_only_outputs_of_earlier_attempts_are_removed(run_uri: str) -> None:
    runner.run_stage(NAME, run_uri)
    [mine] = outputs(run_uri)
    folder = storage.join(run_uri, NAME)
    for name in ("output-00000002-0123abcd", "output-00000004-0123abcd", "output-of-mine"):
        storage.write_bytes(storage.join(folder, name, "file"), b"x")
    runner.tidy(NAME, run_uri, 3)
    assert outputs(run_uri) == [mine, "output-00000004-0123abcd", "output-of-mine"]


def test_two_runs_that_build_the_same_snapshot_at_once_both_have_it_whole(
    s3_uri: str, tmp_path: Path
) -> None:
    """The real stage by the real command, from two runs of one workspace."""
    write_tiny_log(tmp_path / "event_log")
    runs = [start_building(name, s3_uri, tmp_path) for name in ("one", "two")]
    for _, process in runs:
        assert process.wait(timeout=120) == 0
    one, two = (runner.read_artifact(run.run_uri, NAME, Snapshot) for run, _ in runs)
    assert one == two
    assert storage.find_missing(one.places()) == []
    with storage.local_copy(one.uri) as folder:
        verify_files(one, folder)
    assert state_of(one.uri).number == 2, "they took turns"


def start_building(
    run_id: str, workspace_uri: str, tmp_path: Path
) -> "tuple[ResolvedRun, subprocess.Popen[bytes]]":
    config = tiny_config(num_shards=2)
    run = make_run(tmp_path, config, TINY_AS_OF, workspace_uri=workspace_uri, run_id=run_id)
    save_run(run)
    command = [sys.executable, "-m", "pipelines.cli", "stage", NAME, "--run", run.run_uri]
    environment = {**os.environ, "HOMEFEED_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return run, subprocess.Popen(command, env=environment)
