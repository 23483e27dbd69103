"""The lease on a local disk: the number outlives its holders, whatever ends them."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.files import holder_of


def test_the_number_grows_with_every_holder_also_after_a_kill(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "run")
    code = (
        "import os; from pipelines import storage\n"
        f"with storage.exclusive_lock({uri!r}, 'x') as lease:\n"
        "    print(lease.number, flush=True); os.kill(os.getpid(), 9)\n"
    )
    with storage.exclusive_lock(uri, "the run") as first:
        first.renew()
        first.require_held()
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    with storage.exclusive_lock(uri, "the run") as third:
        assert holder_of(tmp_path / "run.lock") == str(os.getpid())
    assert (first.number, killed.stdout, third.number) == (1, b"2\n", 3)


def test_who_only_looks_keeps_nobody_from_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look ends while the other one pauses, who was told to wait for nobody."""
    uri = storage.to_uri(tmp_path / "run")
    with storage.exclusive_lock(uri, "the run"):
        pass
    with (tmp_path / "run.lock").open() as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: looked_at.close())
        with storage.exclusive_lock(uri, "the run") as lease:
            assert looked_at.closed and lease.number == 2


@pytest.mark.parametrize("left", ["", "12", "12\n", "12\nseven\n", "\x00\x00"])
def test_a_lock_file_without_a_number_counts_from_one(tmp_path: Path, left: str) -> None:
    (tmp_path / "run.lock").write_text(left)
    with storage.exclusive_lock(storage.to_uri(tmp_path / "run"), "the run") as lease:
        assert lease.number == 1


def test_what_is_left_of_a_longer_line_is_not_read(tmp_path: Path) -> None:
    """A kill between writing and cutting off leaves the end of what was there before."""
    (tmp_path / "run.lock").write_text("7\n100\n9\n")
    with storage.exclusive_lock(storage.to_uri(tmp_path / "run"), "the run") as lease:
        assert lease.number == 101
    assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n101\n"


def test_a_number_that_cannot_be_written_gives_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage.to_uri(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda *_: _full())
        with pytest.raises(TransientStorageError, match="the disk is full"):
            with storage.exclusive_lock(uri, "the run"):
                pytest.fail("the lock was given")
    with storage.exclusive_lock(uri, "the run") as lease:
        assert lease.number == 1


def _full() -> None:
    raise OSError(28, "No space left on device")
