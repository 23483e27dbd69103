"""Files written whole, digests of content and name, and locks that a killed holder frees."""

import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.contracts import files
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.contracts.files import digest_files, digest_of_files, hold_lock, write_whole
from support.disk import events_on_disk
from support.holders import Holder

STOP = """
import os
from pathlib import Path
from pipelines.contracts import files
def stop(*_):
    print("at it", flush=True)
    sys.stdin.readline()
"""
HOLDS = "with files.hold_lock(Path({path!r}), 'the holder'): stop()"
WRITES = "os.fsync = stop; files.write_whole(Path({path!r}), b'content')"


def elsewhere(act: str, path: Path) -> Holder:
    """Return a process that holds a lock, or waits in half of a file, until it is told a line."""
    process = Holder(STOP + act.format(path=str(path)))
    assert process.says() == "at it"
    return process


def test_a_killed_holder_frees_its_lock_which_is_waited_for_as_long_as_was_said(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "x.lock"
    holder = elsewhere(HOLDS, lock)
    taken = rf"^a test is already running: another process holds {lock} .*; expected nobody"
    started = time.monotonic()
    with pytest.raises(RunInProgressError, match=taken), hold_lock(lock, "a test", wait_s=0.5):
        pytest.fail("two processes hold the same lock")
    assert 0.4 < time.monotonic() - started < 5
    threading.Timer(0.5, holder.kill).start()
    with pytest.raises(ZeroDivisionError), hold_lock(lock, "a test", wait_s=30):
        # With a preexec_fn, as training is started: the child runs Python before it is another.
        subprocess.run(["true"], preexec_fn=lambda: None, check=True)
        with pytest.raises(RunInProgressError), hold_lock(lock, "another"):
            pytest.fail("the child's start freed the lock")
        raise ZeroDivisionError
    with hold_lock(lock, "an error freed it"):
        pass


def test_digests_depend_on_content_and_name_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_text("abc")  # the example of FIPS 180-2
    one, two = (digest_files(tmp_path / name) for name in ("one", "two"))
    assert [(file.path, file.num_bytes) for file in one] == [("deep/x", 3)]
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert one[0].sha256 == sha256
    assert digest_of_files(one) == digest_of_files(two)
    (tmp_path / "two" / "deep" / "x").write_text("other")
    assert digest_of_files(one) != digest_of_files(digest_files(tmp_path / "two"))


@pytest.mark.parametrize("write", [files.write_whole, files.write_new])
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_we_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], object]
) -> None:
    disk = events_on_disk(monkeypatch)
    write(tmp_path / "new" / "manifest.json", b"{}")
    made, scratch, *rest = disk
    assert made == f"sync {tmp_path.name}"  # The new folder's own name.
    assert scratch.startswith("sync .manifest.json.")
    assert rest == ["name manifest.json", "sync new"]
    assert files.write_new(tmp_path / "new" / "manifest.json", b"other") is False
    assert (tmp_path / "new" / "manifest.json").read_bytes() == b"{}"


@pytest.mark.parametrize("write", [files.write_whole, files.write_new])
def test_who_writes_next_in_a_folder_removes_what_a_killed_writer_left(
    tmp_path: Path, write: Callable[[Path, bytes], object]
) -> None:
    elsewhere(WRITES, tmp_path / "old.json").kill()
    [left] = [path.name for path in tmp_path.iterdir()]
    assert left.startswith(".old.json.")
    write(tmp_path / "new.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]


def test_what_a_living_writer_has_not_finished_is_left_to_it(tmp_path: Path) -> None:
    with elsewhere(WRITES, tmp_path / "slow.json") as writer:
        write_whole(tmp_path / "quick.json", b"{}")
        assert len(list(tmp_path.iterdir())) == 2
        writer.tell()
        while writer.says():  # It waits at its folder too, and says no more when it has ended.
            writer.tell()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick.json", "slow.json"]
    assert (tmp_path / "slow.json").read_bytes() == b"content"


def test_a_private_folder_is_this_user_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = files.own_temporary_folder("work")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert files.own_temporary_folder("work") == folder
    folder.chmod(0o755)
    (tmp_path / folder.name.replace("work", "link")).symlink_to(tmp_path)
    for purpose, says in (("work", "mode drwxr-xr-x; expected .*mode drwx------"), ("link", "")):
        with pytest.raises(ConfigurationError, match=f"is not a private folder .*{says}"):
            files.own_temporary_folder(purpose)
