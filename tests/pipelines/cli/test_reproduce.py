"""What `homefeed reproduce` says of a snapshot whose log, code or record is not as it was."""

import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
)
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.contracts.schemas import ACTIONS
from pipelines.reproduction import comparing
from pipelines.stages.runner import run_stage
from support import commands
from support.runs import make_run, save_run
from support.tiny_log import ACTIONS_15, TINY_AS_OF, acted, rewrite, tiny_config, write_tiny_log
from support.untouched import look_of

WRITTEN = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
LATE_FILE = "actions/day=2017-01-18/part-1.parquet"


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    """A run whose snapshot was built."""
    home = tmp_path / "home"
    write_tiny_log(home / "event_log")
    run = save_run(make_run(home, tiny_config(), TINY_AS_OF))
    run_stage("build_snapshot", run.run_uri)
    return run


Reproduce = Callable[..., str]


@pytest.fixture
def reproduce(run: ResolvedRun, tmp_path: Path, capsys: pytest.CaptureFixture) -> Reproduce:
    """Rebuilds the run; gives what was said, and the class of the error before it."""

    def rebuild(
        until: str = "build_snapshot", into: str = "rebuilt", name: str = "", more: str = ""
    ) -> str:
        folder = tmp_path / into
        error = ""
        try:
            commands.run(
                f"HOMEFEED_HOME={tmp_path / 'home'} homefeed reproduce {name or run.run_uri} "
                f"--until {until} --into {folder} {more}"
            )
        except DataContractError as found:
            if found.kind != "differs":
                raise
            error = f"{found.exit_code}: {found}\n"
        return error + capsys.readouterr().out

    return rebuild


def add_actions(home: Path, *rows: dict) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=ACTIONS), home / LATE_FILE)
    os.utime(home / LATE_FILE, (WRITTEN.timestamp(),) * 2)


def test_the_snapshot_alone_is_rebuilt_and_the_original_is_not_touched(
    run: ResolvedRun, reproduce: Reproduce, tmp_path: Path
) -> None:
    before = look_of(tmp_path / "home")
    said = reproduce()
    assert said.splitlines()[-1] == "1 equal"
    assert "build_snapshot: starting" in said and "build_snapshot: done in" in said
    again = reproduce(name=run.run_id)  # goes on in the folder
    assert again.splitlines()[-1] == "1 equal"
    assert "build_snapshot: was rebuilt before" in again and "done in" not in again
    start = reproduce(name=run.run_id, more="--json").index("{\n")
    read = json.loads(reproduce(name=run.run_id, more="--json")[start:])
    assert [each["state"] for each in read["findings"]] == ["equal"]
    assert look_of(tmp_path / "home") == before
    assert not (tmp_path / "rebuilt" / "registry").exists()


def test_stages_that_never_ended_are_named(reproduce: Reproduce) -> None:
    said = reproduce(until="train_challenger")
    assert "not on record  train_challenger" in said
    assert said.splitlines()[-1] == "1 equal; 2 not on record"


def test_a_partition_that_is_altered_before_or_after_it_was_rebuilt_is_named_with_its_time(
    reproduce: Reproduce, tmp_path: Path
) -> None:
    assert reproduce().splitlines()[-1] == "1 equal"
    path = tmp_path / "home" / "event_log" / ACTIONS_15
    kinds = pq.read_table(path, partitioning=None)["action_type"].to_pylist()
    rewrite(path.parents[2], ACTIONS_15, "action_type", pa.array(["save", *kinds[1:]]))
    os.utime(path, (WRITTEN.timestamp(),) * 2)
    for into in ("rebuilt", "anew"):
        said = reproduce(into=into)
        assert said.startswith("65: what was rebuilt of file://")
        assert f"data: {ACTIONS_15}: " in said and "2026-02-03T04:05:06Z now; footer: " in said
        assert "not as it was when the cycle ran, and may be why:" in said
        digests = "[0-9a-f]{12} then, [0-9a-f]{12} now"
        assert re.search(f"  files.shard-00000/examples.arrow: {digests}", said)
        assert said.splitlines()[-1] == "1 differs"


def change_the_worker(folder: Path, **changes: object) -> None:
    """Let it look as if other code, packages or another machine had worked in a scratch folder."""
    [path] = folder.glob("workspace/runs/*/resolve_run/manifest.json")
    record = StageRecord.from_record(path.read_bytes())
    assert record.made_with is not None
    made_with = record.made_with.model_copy(update=changes)
    other = record.model_copy(update={"made_with": made_with}).sealed()
    path.write_bytes(other.to_record())


def test_what_other_code_has_rebuilt_is_rebuilt_again(reproduce: Reproduce, tmp_path: Path) -> None:
    reproduce()
    [stage] = (tmp_path / "rebuilt").glob("workspace/runs/*/build_snapshot")
    unfinished = stage.parent / "train_challenger" / "training" / "checkpoint"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    change_the_worker(tmp_path / "rebuilt", code_version="a commit to the documentation")
    assert "build_snapshot: was rebuilt before" in reproduce() and unfinished.exists()
    change_the_worker(tmp_path / "rebuilt", project_digest="f" * 64)
    said = reproduce()
    assert "was made by other code or packages, or on another machine" in said
    assert "build_snapshot: done in" in said and not unfinished.exists()
    assert said.splitlines()[-1] == "1 equal"
    assert "everything is rebuilt" not in reproduce()


def test_a_row_that_came_late_makes_no_difference_and_one_that_claims_to_be_known_is_named(
    reproduce: Reproduce, tmp_path: Path
) -> None:
    late = acted(1, 10, "repin", "18 05:00", "25 00:00")
    add_actions(tmp_path / "home" / "event_log", late)
    added = f"- data: {LATE_FILE} was added: "
    said = reproduce()
    assert said.splitlines()[-1] == "1 equal"
    [line] = [each for each in said.splitlines() if added in each]
    assert line.endswith("num_rows: nothing then, 1 now; num_known: nothing then, 0 now")
    assert "without effect on what was rebuilt" in said
    early = acted(1, 10, "repin", "18 05:00", "18 05:01")
    add_actions(tmp_path / "home" / "event_log", early, late)
    said = reproduce(into="anew")
    assert said.startswith("65: ")
    [line] = [each for each in said.splitlines() if added in each]
    assert line.endswith("num_rows: nothing then, 2 now; num_known: nothing then, 1 now")


def test_a_log_that_was_moved_is_read_where_it_lies_by_now(
    reproduce: Reproduce, tmp_path: Path
) -> None:
    former, place = tmp_path / "home" / "event_log", tmp_path / "moved"
    shutil.copytree(former, place, copy_function=shutil.copyfile)
    shutil.rmtree(former)
    with pytest.raises(DataContractError, match="no event log at"):
        reproduce()
    said = reproduce(more=f"--event-log {place}")
    assert said.splitlines()[-1] == "1 equal"
    lines = [line for line in said.splitlines() if "data: " in line]
    assert lines and all(": modified_at: " in line and ";" not in line for line in lines[:20])


def reseal(run: ResolvedRun, stage: str = "build_snapshot", **changes: object) -> None:
    uri = manifest_uri(run.run_uri, stage)
    record = storage.read_model(uri, StageRecord)
    storage.write_model(uri, record.model_copy(update=changes).sealed())


def test_other_packages_code_and_processor_are_named(
    run: ResolvedRun, reproduce: Reproduce
) -> None:
    record = storage.read_model(manifest_uri(run.run_uri, "build_snapshot"), StageRecord)
    assert record.made_with is not None
    packages = record.made_with.packages | {"torch": "1.0"}
    other = {"packages": packages, "project_digest": "f" * 64, "processor": "Z80"}
    reseal(run, made_with=record.made_with.model_copy(update=other))
    said = reproduce()
    assert "without effect on what was rebuilt" in said
    assert "- packages.torch: 1.0 then, 2." in said
    assert "- project_digest: ffffffffffff then, " in said
    assert f"- processor: Z80 then, {record.made_with.processor} now (on " in said


@pytest.mark.parametrize(
    ("part", "field", "value"), [("artifact", "digest", "0" * 64), ("made_with", "num_cores", 999)]
)
def test_an_edited_manifest_is_refused(
    run: ResolvedRun, reproduce: Reproduce, part: str, field: str, value: object
) -> None:
    path = storage.local_path(manifest_uri(run.run_uri, "build_snapshot"))
    edited = json.loads(path.read_text())
    edited[part][field] = value
    path.write_text(json.dumps(edited))
    with pytest.raises(DataContractError, match="its seal does not fit") as caught:
        reproduce()
    # The record is what everything is compared with, so nobody is told to make it anew.
    assert "homefeed stage" not in str(caught.value) and "delete" not in str(caught.value)
    assert "nothing is to be written over: put a sound copy" in str(caught.value)


def test_a_record_of_another_version_is_refused_before_anything_is_rebuilt(
    run: ResolvedRun, reproduce: Reproduce, tmp_path: Path
) -> None:
    record = storage.read_model(manifest_uri(run.run_uri, "build_snapshot"), StageRecord)
    reseal(run, artifact={name: each for name, each in record.artifact.items() if name != "shards"})
    with pytest.raises(DataContractError, match="a Snapshot of another version") as caught:
        reproduce()
    assert "nothing is to be written over" in str(caught.value)
    assert not (tmp_path / "rebuilt").exists()


def test_what_nothing_explains_is_said(
    run: ResolvedRun, reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_recipe_changes", lambda past: [])  # the tiny one is another
    record = storage.read_model(manifest_uri(run.run_uri, "build_snapshot"), StageRecord)
    reseal(run, artifact=record.artifact | {"digest": "0" * 64})
    said = reproduce()
    assert "data, code, packages, processor and recipe are as the record says" in said
    assert said.splitlines()[-1] == "1 differs"


@pytest.mark.parametrize(
    ("name", "until", "into", "message"),
    [
        ("2017-01-20--nowhere", "build_snapshot", "rebuilt", "no manifest of resolve_run"),
        ("", "alert", "rebuilt", "--until is 'alert'; expected one of build_snapshot"),
        ("", "build_snapshot", "full", "holds other files; expected an empty folder"),
        ("", "build_snapshot", "home/workspace/x", "lies in file://.* nothing is to be touched"),
    ],
)
def test_what_cannot_be_rebuilt_or_not_there_is_refused(
    reproduce: Reproduce, tmp_path: Path, name: str, until: str, into: str, message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a file").touch()
    with pytest.raises(ConfigurationError, match=message):
        reproduce(until, into, name)


def test_a_folder_of_another_reproduction_is_refused(
    run: ResolvedRun, reproduce: Reproduce, tmp_path: Path
) -> None:
    reproduce()
    other = save_run(make_run(tmp_path / "home", tiny_config(), TINY_AS_OF, run_id="other"))
    run_stage("build_snapshot", other.run_uri)
    with pytest.raises(ConfigurationError, match="holds the reproduction of run test-2017-01-20"):
        reproduce(name=other.run_uri)
