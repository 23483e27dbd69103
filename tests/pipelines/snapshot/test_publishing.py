"""Publishing: whole or not at all, once per content, whatever kills or races it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.errors import ConfigurationError, SnapshotDamagedError
from pipelines.contracts.snapshot_files import verify_files
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import join, local_path, read_model
from support.damage import flip_a_byte
from support.runs import make_run
from support.tiny_log import TINY_AS_OF, tiny_config

BUILD = """
import sys
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.snapshot import build
if __name__ == "__main__":
    run = ResolvedRun.model_validate_json(open(sys.argv[1]).read())
    build.usable_cores = lambda: 2
    print("ready", flush=True)
    try:
        print(build.write_snapshot(run).digest)
    except Exception as error:
        print(type(error).__name__, error)
        sys.exit(getattr(error, "exit_code", 70))
"""


@pytest.fixture
def run(tmp_path: Path, log: Path) -> ResolvedRun:
    run = make_run(tmp_path, tiny_config(num_shards=4), TINY_AS_OF)
    (tmp_path / "run.json").write_text(run.model_dump_json())
    (tmp_path / "build.py").write_text(BUILD)
    return run


def start(folder: Path) -> subprocess.Popen[str]:
    """Start a build in another process; return when its imports are done."""
    command = [sys.executable, str(folder / "build.py"), str(folder / "run.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def published(run: ResolvedRun) -> list[Path]:
    """Return the finished snapshots of a run's workspace."""
    found = local_path(join(run.workspace_uri, "snapshots")).glob("*/manifest.json")
    return [path.parent for path in found]


def test_the_same_content_is_published_once_and_a_harmed_folder_is_replaced(
    run: ResolvedRun,
) -> None:
    first = write_snapshot(run)
    folder = local_path(first.uri)
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert write_snapshot(run) == first == read_model(join(first.uri, "manifest.json"), Snapshot)
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    for harmed in ("pins.arrow", "manifest.json"):
        (folder / "pins.arrow").write_bytes(b"half")
        (folder / harmed).unlink()
        assert write_snapshot(run) == first
        verify_files(first, folder)


def test_every_byte_of_a_snapshot_counts(run: ResolvedRun, tmp_path: Path) -> None:
    snapshot = write_snapshot(run)
    for number, file in enumerate(snapshot.files):
        copy = shutil.copytree(local_path(snapshot.uri), tmp_path / f"copy-{number}")
        flip_a_byte(copy / file.path)
        with pytest.raises(SnapshotDamagedError, match=f"{file.path} was altered: its sha256"):
            verify_files(snapshot, copy)


def test_two_builders_at_once_both_succeed(run: ResolvedRun, tmp_path: Path) -> None:
    builders = [start(tmp_path) for _ in range(3)]
    outputs = [builder.communicate(timeout=60)[0].strip() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    assert len(set(outputs)) == 1
    assert len(published(run)) == 1
    verify_files(write_snapshot(run), published(run)[0])


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1])
def test_a_killed_build_leaves_nothing_half_published(
    run: ResolvedRun, tmp_path: Path, delay_s: float
) -> None:
    process = start(tmp_path)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    for folder in published(run):
        verify_files(read_model((folder / "manifest.json").as_uri(), Snapshot), folder)
    snapshot = write_snapshot(run)
    verify_files(snapshot, local_path(snapshot.uri))
    left = [p.name for p in local_path(snapshot.uri).parent.iterdir() if p.is_dir()]
    assert left == [snapshot.digest[:16]]


def test_a_read_only_workspace_says_what_to_change(run: ResolvedRun) -> None:
    """/sys refuses new folders to everybody, root included."""
    nowhere = run.model_copy(update={"workspace_uri": "file:///sys/homefeed"})
    with pytest.raises(ConfigurationError, match="no permission.*HOMEFEED_WORKSPACE"):
        write_snapshot(nowhere)


def test_a_full_workspace_is_said_to_be_full(run: ResolvedRun, tmp_path: Path) -> None:
    """A file system of a few pages, in a mount namespace of its own."""
    small = tmp_path / "workspace"
    small.mkdir()
    unshare = [shutil.which("unshare") or "/nowhere", "-rm", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=16k none {small}"
    with contextlib.suppress(OSError):
        if subprocess.run([*unshare, mount], capture_output=True, check=False).returncode == 0:
            unshare.append(f'{mount} && exec "$0" "$@"')
    if len(unshare) == 4:
        pytest.skip("needs the right to mount a file system in a namespace of its own")
    build = [sys.executable, str(tmp_path / "build.py"), str(tmp_path / "run.json")]
    done = subprocess.run(
        [*unshare, *build],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "TransientStorageError" in done.stdout, done.stdout + done.stderr
    assert "the disk is full" in done.stdout
    assert done.returncode == 75
