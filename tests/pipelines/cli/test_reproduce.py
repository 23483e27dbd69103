"""What `homefeed reproduce` says of a snapshot whose log, code or record is not as it was.

What is compared, and how, is shown in tests/pipelines/reproduction.
"""

import contextlib
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
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.stages.runner import run_stage
from support import commands
from support.runs import make_run, save_run
from support.tiny_log import ACTIONS_15, TINY_AS_OF, rewrite, tiny_config, write_tiny_log
from support.untouched import look_of

WRITTEN = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()
Reproduce = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    """A run whose snapshot was built."""
    home = tmp_path / "home"
    write_tiny_log(home / "event_log")
    run = save_run(make_run(home, tiny_config(), TINY_AS_OF))
    run_stage("build_snapshot", run.run_uri)
    return run


@pytest.fixture
def reproduce(run: ResolvedRun, tmp_path: Path, capsys: pytest.CaptureFixture) -> Reproduce:
    """Rebuilds the run; gives what was said, and before it the error of what differs."""

    def rebuild(
        until: str = "build_snapshot", into: str = "rebuilt", name: str = "", more: str = ""
    ) -> str:
        error = ""
        try:
            commands.run(
                f"HOMEFEED_HOME={tmp_path / 'home'} homefeed reproduce {name or run.run_uri} "
                f"--until {until} --into {tmp_path / into} {more}"
            )
        except DataContractError as found:
            if found.kind != "differs":
                raise
            error = f"{found.exit_code}: {found}\n"
        return error + capsys.readouterr().out

    return rebuild


def alter(run: ResolvedRun) -> None:
    path = storage.local_path(run.event_log_uri) / ACTIONS_15
    kinds = pq.read_table(path, partitioning=None)["action_type"].to_pylist()
    rewrite(path.parents[2], ACTIONS_15, "action_type", pa.array(["save", *kinds[1:]]))
    os.utime(path, (WRITTEN, WRITTEN))


def test_what_is_not_as_it_was_is_named_with_what_it_did(
    run: ResolvedRun, reproduce: Reproduce
) -> None:
    alter(run)
    told = reproduce()
    said = (
        f"65: what was rebuilt of file://.*  files.shard-00000/examples.arrow.sha256: "
        f"[0-9a-f]{{12}} then, [0-9a-f]{{12}} now.*not as it was when the cycle ran:"
        f".*data: {ACTIONS_15}.modified_at: .*2026-02-03T04:05:06Z now\n"
        f"- data: {ACTIONS_15}.footer: "
    )
    assert re.search(said, told, re.DOTALL), told
    assert told.splitlines()[-1] == "1 differs"


def test_the_snapshot_alone_is_rebuilt_and_the_original_is_not_touched(
    run: ResolvedRun, reproduce: Reproduce, tmp_path: Path
) -> None:
    before = look_of(tmp_path / "home")
    said = reproduce()
    assert said.splitlines()[-1] == "1 equal"
    assert "build_snapshot: starting" in said and "build_snapshot: done in" in said
    again = reproduce(name=run.run_id)  # goes on in the folder
    assert again.splitlines()[-1] == "1 equal"
    read = reproduce(name=run.run_id, more="--json")
    [finding] = json.loads(read[read.index("{\n") :])["findings"]
    assert finding["state"] == "equal"
    assert look_of(tmp_path / "home") == before
    assert not (tmp_path / "rebuilt" / "registry").exists()
    said = reproduce(until="train_challenger")
    assert "not on record  train_challenger" in said
    assert said.splitlines()[-1] == "1 equal; 2 not on record"
    other = save_run(make_run(tmp_path / "home", tiny_config(), TINY_AS_OF, run_id="other"))
    run_stage("build_snapshot", other.run_uri)
    with pytest.raises(ConfigurationError, match="/rebuilt holds .*; expected an empty folder"):
        reproduce(name=other.run_uri)


def test_what_other_code_has_rebuilt_is_refused(reproduce: Reproduce, tmp_path: Path) -> None:
    reproduce()
    [path] = (tmp_path / "rebuilt").glob("workspace/runs/*/resolve_run/manifest.json")
    for changes, refused in (
        ({"code_version": "a commit to the documentation"}, False),
        ({"project_digest": "f" * 64}, True),
    ):
        record = StageRecord.from_record(path.read_bytes())
        made_with = record.made_with.model_copy(update=changes)
        path.write_bytes(record.model_copy(update={"made_with": made_with}).to_record())
        raises = pytest.raises(ConfigurationError, match="by this code and on this machine")
        with raises if refused else contextlib.nullcontext():
            assert reproduce().splitlines()[-1] == "1 equal"


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
    assert lines and all(".modified_at: " in line for line in lines[:20])


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("artifact", {"digest": "0" * 64}, "its seal does not fit"),
        ("made_with", {"num_cores": 999}, "its seal does not fit"),
        ("", {}, "a Snapshot of another version"),
    ],
)
def test_a_record_that_is_not_sound_is_refused_before_anything_is_rebuilt(
    run: ResolvedRun, reproduce: Reproduce, tmp_path: Path, part: str, change: dict, said: str
) -> None:
    path = storage.local_path(manifest_uri(run.run_uri, "build_snapshot"))
    edited = json.loads(path.read_text())
    if part:
        path.write_text(json.dumps(edited | {part: edited[part] | change}))
    else:
        record = StageRecord.from_record(path.read_bytes())
        artifact = {name: part for name, part in record.artifact.items() if name != "shards"}
        path.write_bytes(record.model_copy(update={"artifact": artifact}).to_record())
    with pytest.raises(DataContractError, match=said) as caught:
        reproduce()
    # The record is what everything is compared with, so nobody is told to make it anew.
    assert "homefeed stage" not in str(caught.value) and "delete" not in str(caught.value)
    assert "nothing is to be written over: put a sound copy" in str(caught.value)
    assert not (tmp_path / "rebuilt").exists()


@pytest.mark.parametrize(
    ("name", "until", "into", "message"),
    [
        ("2017-01-20--nowhere", "build_snapshot", "rebuilt", "the beginning of no names of runs"),
        ("", "alert", "rebuilt", "--until is 'alert'; expected one of build_snapshot"),
        ("", "build_snapshot", "full", "holds /.*/a file; expected an empty folder"),
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
