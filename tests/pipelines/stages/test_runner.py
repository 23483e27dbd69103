"""The runner: a stage happens once, again when it must, and survives kills, races and damage.

What holds on a local disk holds in a bucket of a real S3 server.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.alerts.compose import Ended, alert_about_failure
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.base import Artifact
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RunInProgressError,
)
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri, stage_lock_uri
from pipelines.contracts.snapshot_files import verify_files
from pipelines.settings import Settings
from pipelines.stages import runner
from support import commands
from support.holders import Holder
from support.runs import make_run, save_run
from support.stage_bodies import Number
from support.tiny_log import TINY_AS_OF, tiny_config

NAME = "build_snapshot"


@pytest.fixture
def disk_uri(tmp_path: Path) -> str:
    """A run on the local disk, for what has nothing to do with where it lies."""
    return save_run(make_run(tmp_path)).run_uri


@pytest.fixture
def store_uri(tmp_path: Path, s3_uri: str) -> str:
    return save_run(make_run(tmp_path, workspace_uri=s3_uri)).run_uri


@pytest.fixture
def run_uri(tmp_path: Path, workspace_uri: str) -> str:
    return save_run(make_run(tmp_path, workspace_uri=workspace_uri)).run_uri


def names_in(run_uri: str) -> list[str]:
    """What the stage has left: first words of names, but for locks."""
    names = storage.list_names(storage.join(run_uri, NAME))
    return [name.partition("-")[0] for name in names if not name.endswith(".lock")]


def failure_of(run_uri: str) -> StageFailure:
    return storage.read_model(failure_uri(run_uri, NAME), StageFailure)


def value_of(run_uri: str) -> int:
    return runner.read_artifact(run_uri, NAME, Number).value


def test_a_stage_runs_once_and_again_when_it_is_told_to_or_its_input_changed(
    disk_uri: str, set_body: Callable
) -> None:
    values, seen = iter((1, 2, 3)), []
    set_body(NAME, lambda output_uri: Number(value=next(values)))

    def check(number: Number, output_uri: str) -> Number:
        seen.append(number.value)
        return Number(value=0)

    set_body("check_snapshot", check, NAME)
    first = runner.run_stage(NAME, disk_uri)
    assert runner.run_stage(NAME, disk_uri) == first and value_of(disk_uri) == 1
    for _ in range(2):
        runner.run_stage("check_snapshot", disk_uri)
    runner.run_stage(NAME, disk_uri, again=True)
    runner.run_stage("check_snapshot", disk_uri)
    deletion.remove(first)
    runner.run_stage(NAME, disk_uri)
    assert value_of(disk_uri) == 3 and seen == [1, 2]
    for name in ("resolve_run", "promote_challenger", "alert"):
        with pytest.raises(ConfigurationError, match=f"given for {name}; expected one of build_"):
            runner.run_stage(name, disk_uri, again=True)


def test_the_record_and_the_index_of_all_cycles_tell_what_a_stage_used(
    tmp_path: Path, disk_uri: str, set_body: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    known = runner.environment
    # A checkout may be updated while a training runs for hours.
    monkeypatch.setattr(runner, "environment", lambda: order.append("environment") or known())
    work = order.append
    set_body(NAME, lambda output_uri: work("stage") or Number(value=len(bytearray(2**20))))
    runner.run_stage(NAME, disk_uri)
    assert order == ["environment", "stage"]
    used = runner.read_record(disk_uri, NAME).usage
    assert used is not None and used.peak_memory_bytes > 2**20
    index = tmp_path / "workspace" / "cycles.html"
    assert not index.exists()  # there is nothing new to tell of a cycle that goes on
    set_body("check_snapshot", lambda number, output_uri: 1 / 0, NAME)
    with pytest.raises(ZeroDivisionError):
        runner.run_stage("check_snapshot", disk_uri)
    assert "check_snapshot broke: division by zero" in index.read_text()


def test_a_run_folder_is_known_by_a_link_to_it_and_a_missing_input_names_its_stage(
    tmp_path: Path, disk_uri: str, set_body: Callable
) -> None:
    with pytest.raises(ConfigurationError, match="no manifest of build_snapshot"):
        runner.run_stage("check_snapshot", disk_uri)
    set_body(NAME, lambda output_uri: Number(value=1))
    linked = tmp_path / "linked"
    linked.symlink_to(storage.local_path(disk_uri))
    runner.run_stage(NAME, str(linked))
    assert storage.exists(manifest_uri(disk_uri, NAME))


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code), "/data/rows")


@pytest.mark.parametrize(
    ("raised", "error_class", "exit_code"),
    [
        (DataContractError("bad rows"), "DataContractError", 65),
        (ZeroDivisionError("by zero"), "ZeroDivisionError", 70),
        (os_error(errno.ENOENT), "ConfigurationError", 78),
        (os_error(errno.EACCES), "ConfigurationError", 78),
        (os_error(errno.ENOSPC), "TransientStorageError", 75),
    ],
)
def test_a_failure_is_noted_as_one_of_ours_and_removed_by_success(
    disk_uri: str, set_body: Callable, raised: Exception, error_class: str, exit_code: int
) -> None:
    is_bad = True

    def body(output_uri: str) -> Artifact:
        storage.write_bytes(storage.join(output_uri, "file"), b"x")
        if is_bad:
            raise raised
        return Number(value=1)

    set_body(NAME, body)
    with pytest.raises(HomefeedError if exit_code != 70 else ZeroDivisionError) as caught:
        runner.run_stage(NAME, disk_uri)
    assert "/data/rows" in str(caught.value) or not isinstance(raised, OSError)
    found = failure_of(disk_uri)
    assert (found.error_class, found.exit_code) == (error_class, exit_code)
    assert names_in(disk_uri) == ["failure.json", "output"]
    is_bad = False
    runner.run_stage(NAME, disk_uri)
    assert names_in(disk_uri) == ["manifest.json", "output"], "the failed attempt's is gone"


DIES = """
import os, sys, tempfile
from pipelines import deletion, storage
from pipelines.contracts.base import Artifact
from pipelines.contracts.stage_table import TABLE, Stage
from pipelines.stages import build_snapshot, runner

class Number(Artifact):
    value: int

def die(*_):
    os.kill(os.getpid(), 9)

def body(output_uri: str) -> Number:
    storage.write_bytes(storage.join(output_uri, "file"), b"x")
    tempfile.mkstemp()
    if sys.argv[1] == "in the stage":
        die()
    deletion.remove = die
    return Number(value=1)

TABLE["build_snapshot"] = Stage("build_snapshot", {}, Number, ("output_uri",))
build_snapshot.build_snapshot = body
runner.run_stage("build_snapshot", sys.argv[2])
"""


def kill(when: str, run_uri: str, temporary: Path) -> None:
    temporary.mkdir(exist_ok=True)
    command, place = [sys.executable, "-c", DIES, when, run_uri], {"TMPDIR": str(temporary)}
    assert subprocess.run(command, env=os.environ | place, check=False).returncode == -9
    # What is made in the machine's own folder for temporary files is removed by nobody.
    assert not [each for each in temporary.iterdir() if "scratch" not in each.name]


def test_what_killed_attempts_left_is_removed_on_a_disk_and_no_reason_of_an_earlier_one_is_told(
    run_uri: str, set_body: Callable, tmp_path: Path
) -> None:
    def refuse(output_uri: str) -> Number:
        raise DataContractError("bad rows")

    set_body(NAME, refuse)
    with pytest.raises(DataContractError):
        runner.run_stage(NAME, run_uri)
    kill("in the stage", run_uri, tmp_path / "tmp")
    assert names_in(run_uri) == ["output", "working"]
    run = runner.read_artifact(run_uri, "resolve_run", ResolvedRun)
    assert "ended without saying why" in alert_about_failure(run, Settings(), Ended(NAME)).happened
    kill("after the manifest", run_uri, tmp_path / "tmp")
    left = ["manifest.json", "output", "output", "working", "working"]
    assert names_in(run_uri) == left
    set_body(NAME, lambda output_uri: pytest.fail("it is done already"))
    runner.run_stage(NAME, run_uri)
    # On a store another attempt may be at work.
    assert names_in(run_uri) == (left[:2] if storage.is_local(run_uri) else left)


def test_on_a_disk_attempts_wait_for_each_other_and_then_say_who_is_at_work(
    disk_uri: str, set_body: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_body(NAME, lambda output_uri: Number(value=1))
    hold = f"""
with storage.exclusive_lock({stage_lock_uri(disk_uri, NAME)!r}, "an attempt"):
    print("working", flush=True)
    sys.stdin.readline()
"""
    with Holder(hold) as theirs:
        assert theirs.says() == "working"
        with monkeypatch.context() as patched:
            patched.setattr(runner, "WAIT_S", 0.2)
            with pytest.raises(RunInProgressError, match="another process holds"):
                runner.run_stage(NAME, disk_uri)
        assert failure_of(disk_uri).exit_code == 75
        theirs.kill()
        runner.run_stage(NAME, disk_uri)
    assert not storage.exists(failure_uri(disk_uri, NAME))


def test_of_two_attempts_on_a_store_the_first_to_publish_counts_and_both_end_well(
    store_uri: str, set_body: Callable
) -> None:
    """The second one runs in the midst of the first, also where the first does a stage again."""
    run_uri, outputs = store_uri, []

    def body(output_uri: str) -> Number:
        outputs.append(output_uri)
        number = len(outputs)
        file_uri = storage.join(output_uri, "file")
        storage.write_bytes(file_uri, b"x")
        if number % 2:
            assert runner.run_stage(NAME, run_uri, again=True) == manifest_uri(run_uri, NAME)
        return Number(value=number, file_uri=file_uri)

    set_body(NAME, body)
    for inner, num_kept in ((2, 1), (4, 2)):
        assert runner.run_stage(NAME, run_uri, again=True) == manifest_uri(run_uri, NAME)
        assert value_of(run_uri) == inner
        # Who comes second removes what it made; what `--again` has replaced goes with the run.
        assert names_in(run_uri) == ["manifest.json", *["output"] * num_kept]
        assert [storage.exists(f"{uri}/file") for uri in outputs[-2:]] == [False, True]
        assert outputs[-1].endswith(runner.read_record(run_uri, NAME).attempt)


def test_what_is_published_while_it_is_asked_what_is_done_counts(
    store_uri: str, set_body: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_uri, values = store_uri, [1, 2]
    set_body(NAME, lambda output_uri: Number(value=values.pop(0)))
    is_done = runner._is_done

    def ask_and_be_late(*arguments: object) -> bool:
        found = is_done(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(runner, "_is_done", is_done)
        runner.run_stage(NAME, run_uri)
        return found

    monkeypatch.setattr(runner, "_is_done", ask_and_be_late)
    runner.run_stage(NAME, run_uri)
    assert values == [] and value_of(run_uri) == 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b'"value": 1', b'"value": 2', "edited"),
        (b'"schema_version": 3', b'"schema_version": 4', "schema_version is 4"),
        (b"{", b"", "Invalid JSON"),
    ],
)
def test_a_manifest_that_is_not_as_it_was_written_is_refused_and_mended_as_told(
    disk_uri: str, set_body: Callable, before: bytes, after: bytes, said: str
) -> None:
    set_body(NAME, lambda output_uri: Number(value=1))
    set_body("check_snapshot", lambda number, output_uri: Number(value=0), NAME)
    uri = runner.run_stage(NAME, disk_uri)
    storage.write_bytes(uri, storage.read_bytes(uri).replace(before, after))
    for stage in ("check_snapshot", NAME):
        with pytest.raises(DataContractError, match=f"(?s){said}.*--again") as caught:
            runner.run_stage(stage, disk_uri)
        assert uri in str(caught.value)
    commands.run(str(caught.value).split("`")[1])
    runner.run_stage("check_snapshot", disk_uri)
    set_body("promote_challenger", lambda output_uri: Number(value=0))
    promoted = runner.run_stage("promote_challenger", disk_uri)
    with pytest.raises(DataContractError, match="(?s)Promotion of another version.*delete it, if"):
        runner.run_stage("promote_challenger", disk_uri)
    storage.write_bytes(manifest_uri(disk_uri, "resolve_run"), b"{}")
    with pytest.raises(DataContractError, match="put a sound copy back, because what it promoted"):
        runner.run_stage(NAME, disk_uri)
    deletion.remove(promoted)
    with pytest.raises(DataContractError, match="delete it and repeat the command"):
        runner.run_stage(NAME, disk_uri)


@pytest.mark.parametrize("content", [None, b"too long"])
def test_a_stage_runs_again_when_its_file_is_gone_or_of_another_size(
    run_uri: str, set_body: Callable, content: bytes | None
) -> None:
    values = iter((1, 2))

    def body(output_uri: str) -> Number:
        file_uri = storage.join(output_uri, "file")
        storage.write_bytes(file_uri, b"x")
        return Number(value=next(values), file_uri=file_uri)

    set_body(NAME, body)
    for _ in range(2):
        runner.run_stage(NAME, run_uri)
    first = runner.read_artifact(run_uri, NAME, Number)
    deletion.remove(first.file_uri)
    if content is not None:
        storage.write_bytes(first.file_uri, content)
    runner.run_stage(NAME, run_uri)
    second = runner.read_artifact(run_uri, NAME, Number)
    assert (first.value, second.value) == (1, 2)
    assert storage.read_bytes(second.file_uri) == b"x"


OLD, NEW = "1ea249806b6e", "6736cd9a0b1c"


@pytest.mark.parametrize(
    ("image", "version", "code"),
    [(OLD, NEW, "0"), (OLD, OLD, "0"), ("", "unknown", "0"), (OLD, NEW, ""), (OLD, NEW, "own")],
)
def test_a_stage_in_an_image_of_other_code_than_the_dag_s_does_nothing_and_leaves_why(
    disk_uri: str, set_body: Callable, monkeypatch: pytest.MonkeyPatch, image, version, code
) -> None:
    """However the versions are called; where no DAG started the stage nothing is compared."""
    set_body(NAME, lambda output_uri: Number(value=1))
    digest = project_digest() if code == "own" else 64 * code
    for name, value in (("IMAGE_VERSION", image), ("DAG_VERSION", version), ("DAG_CODE", digest)):
        monkeypatch.setenv(f"HOMEFEED_{name}", value)
    if code != "0":
        runner.run_stage(NAME, disk_uri)
        return
    told = (
        f"version '{image or 'unknown'}'.*version '{version}'.*digest {64 * '0':.12}.*{version}, "
    )
    with pytest.raises(ConfigurationError, match=told) as caught:
        runner.run_stage(NAME, disk_uri)
    assert project_digest()[:12] in str(caught.value)
    assert not storage.exists(manifest_uri(disk_uri, NAME))
    assert failure_of(disk_uri).exit_code == 78


def test_a_run_folder_that_was_copied_is_refused_and_the_original_stays(
    run_uri: str, set_body: Callable
) -> None:
    set_body(NAME, lambda output_uri: Number(value=1))
    copied = f"{run_uri}-copied"
    content = storage.read_bytes(manifest_uri(run_uri, "resolve_run"))
    storage.write_bytes(manifest_uri(copied, "resolve_run"), content)
    with pytest.raises(ConfigurationError, match=f"resolved for {run_uri}; expected"):
        runner.run_stage(NAME, copied)
    assert names_in(run_uri) == []


def test_two_runs_that_build_the_same_snapshot_at_once_both_have_it_whole(
    s3_uri: str, log: Path, tmp_path: Path
) -> None:
    """The real stage by the real command, from two runs of one workspace."""
    config, begun = tiny_config(num_shards=2), []
    for run_id in ("one", "two"):
        run = save_run(make_run(tmp_path, config, TINY_AS_OF, workspace_uri=s3_uri, run_id=run_id))
        command = [sys.executable, "-m", "pipelines.cli", "stage", NAME, run.run_uri]
        environment = {**os.environ, "HOMEFEED_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        begun.append((run, subprocess.Popen(command, env=environment)))
    assert [process.wait(timeout=120) for _, process in begun] == [0, 0]
    one, two = (runner.read_artifact(run.run_uri, NAME, Snapshot) for run, _ in begun)
    assert one == two
    assert storage.find_missing(one.places()) == []
    with storage.local_copy(one.uri) as folder:
        verify_files(one, folder)
