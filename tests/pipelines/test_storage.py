"""Files at a URI: values there and back, what an error means, and copies."""

import errno
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RunInProgressError,
    TransientStorageError,
    as_ours,
)
from support.holders import Holder
from support.object_store import SCHEME, make_object_store

VALUE = FileDigest(path="a", sha256="b", num_bytes=3)


def test_a_value_survives_the_round_trip_and_an_altered_one_is_named(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "a folder" / "value.json")
    storage.write_model(uri, VALUE)
    assert storage.read_model(uri, FileDigest) == VALUE and storage.exists(uri)
    assert storage.list_names(storage.to_uri(tmp_path / "a folder")) == ["value.json"]
    storage.write_bytes(uri, b'{"path": "a"}')
    with pytest.raises(DataContractError, match=r"value\.json is not a valid FileDigest"):
        storage.read_model(uri, FileDigest)


@pytest.mark.parametrize(
    ("codes", "kind", "told"),
    [
        ("EACCES EPERM EROFS", ConfigurationError, "no permission.*HOMEFEED_WORKSPACE"),
        ("ENOENT ENOTDIR EISDIR ENAMETOOLONG ELOOP", ConfigurationError, "correct the path"),
        ("ENOSPC EDQUOT", TransientStorageError, "disk is full"),
        ("ECONNRESET ETIMEDOUT EIO ESTALE", TransientStorageError, "then retry"),
    ],
)
def test_a_failed_write_leaves_the_old_content_and_says_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: str, kind: type, told: str
) -> None:
    uri = storage.to_uri(tmp_path / "value.json")
    storage.write_bytes(uri, b"old")
    for name in codes.split():
        code = getattr(errno, name)

        def fail(descriptor: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched, pytest.raises(kind, match=f"{uri}: .*{told}"):
            patched.setattr(os, "fsync", fail)
            storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_names(storage.to_uri(tmp_path)) == ["value.json"]


def test_a_missing_file_and_an_unknown_scheme_are_errors_of_a_place(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError) as caught:
        storage.read_bytes(uri)
    ours = as_ours(caught.value)
    assert isinstance(ours, ConfigurationError) and ours.exit_code == 78
    assert f"working on {uri}: " in str(ours) and "put back what was deleted" in str(ours)
    with pytest.raises(ConfigurationError, match="expected file://"):
        storage.exists("gopher://somewhere/x")


def killed(code: str, **environment: str) -> None:
    """Run code in a process that kills itself by `die()`."""
    head = """
import os, pathlib, pytest
from pipelines import storage
from support.holders import Holder
from support.object_store import make_object_store
die = lambda: os.kill(os.getpid(), 9)
"""
    ended = subprocess.run(
        [sys.executable, "-c", head + code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr


def test_a_killed_process_s_copy_of_a_folder_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, temporary = tmp_path / "store", tmp_path / "temporary"
    (store / "snapshot").mkdir(parents=True)
    (store / "snapshot" / "data.arrow").write_bytes(b"rows")
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    code = f"""
make_object_store(pathlib.Path({str(store)!r}), pytest.MonkeyPatch())
with storage.local_copy("{SCHEME}snapshot") as folder:
    die()
"""
    killed(code, TMPDIR=str(temporary))
    assert len([*temporary.rglob("data.arrow")]) == 1, "the killed process left its copy"
    make_object_store(store, monkeypatch)
    with storage.local_copy(f"{SCHEME}snapshot") as folder:
        assert (folder / "data.arrow").read_bytes() == b"rows"
        assert [*temporary.rglob("data.arrow")] == [folder / "data.arrow"]
    assert [path.name for path in temporary.rglob("*")] == [f"homefeed-scratch-{os.getuid()}"]


def test_a_place_is_looked_at_without_being_taken(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "run")
    assert storage.is_abandoned(uri)
    assert not (tmp_path / "run.lock").exists()
    with storage.exclusive_lock(uri, "the run"):
        assert not storage.is_abandoned(uri)
        with pytest.raises(RunInProgressError, match="another process holds"):
            with storage.exclusive_lock(uri, "the run"):
                pytest.fail("it was had twice")
    assert storage.is_abandoned(uri)
    with storage.exclusive_lock(uri, "the run"):
        pass  # Who looked has let go of it.


def test_on_a_store_nothing_is_held_and_what_is_young_is_not_abandoned(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{s3_uri}/.scratch-1"
    assert storage.is_abandoned(uri)
    storage.write_bytes(f"{uri}/shard/file", b"x")
    assert not storage.is_abandoned(uri) and not storage.is_abandoned(f"{uri}/shard/file")
    monkeypatch.setattr(storage, "ABANDONED_AFTER", timedelta(seconds=-5))
    assert storage.is_abandoned(uri)
    with storage.exclusive_lock(uri, "one"), storage.exclusive_lock(uri, "two"):
        assert storage.list_names(s3_uri) == [".scratch-1"]


DIES_AT_ONCE = """
make = pathlib.Path.mkdir
def mkdir(self, **named):
    die() if self.name.startswith(".scratch-") else make(self, **named)
pathlib.Path.mkdir = mkdir
"""
"""Between the scratch folder's lock and the folder."""


@pytest.mark.parametrize("before", ["", DIES_AT_ONCE])
def test_a_killed_holder_frees_its_lock_and_its_scratch(tmp_path: Path, before: str) -> None:
    uri, place = storage.to_uri(tmp_path / "run"), tmp_path / "run"
    with_both = f"with storage.exclusive_lock({uri!r}, 'x'), storage.scratch_folder({uri!r}):"
    killed(f"{before}\n{with_both}\n    die()\n")
    assert list(place.glob(".scratch-*")), "the killed process left its scratch, or its lock"
    with storage.exclusive_lock(uri, "x"), storage.scratch_folder(uri) as scratch:
        assert [path for path in place.glob(".scratch-*") if path.is_dir()] == [scratch]
    assert list(place.glob(".scratch-*")) == []


LIVE = """
with storage.scratch_folder({uri!r}) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_live_scratch_of_another_process_is_left_alone(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path)
    with Holder(LIVE.format(uri=uri)) as theirs:
        folder = Path(theirs.says())
        with storage.scratch_folder(uri):
            assert folder.is_dir()
    with storage.scratch_folder(uri):
        assert not folder.exists()
