"""Files at a URI: values there and back, what an error means, and copies."""

import errno
import os
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

VALUE = FileDigest(path="a", sha256="b", num_bytes=3)


def test_a_value_survives_the_round_trip_and_an_altered_one_is_named(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "a folder" / "value.json")
    storage.write_model(uri, VALUE)
    assert storage.read_model(uri, FileDigest) == VALUE and storage.exists(uri)
    assert storage.list_names(storage.to_uri(tmp_path / "a folder")) == ["value.json"]
    storage.write_bytes(uri, b'{"path": "a"}')
    with pytest.raises(DataContractError, match=r"value\.json is not a valid FileDigest"):
        storage.read_model(uri, FileDigest)


def test_a_value_that_need_not_be_there_is_none_and_a_damaged_one_is_no_absence(
    tmp_path: Path,
) -> None:
    uri = storage.to_uri(tmp_path / "value.json")
    assert storage.find_model(uri, FileDigest) is None
    storage.write_model(uri, VALUE)
    assert storage.find_model(uri, FileDigest) == VALUE
    storage.write_bytes(uri, b"{}")
    with pytest.raises(DataContractError, match=r"value\.json is not a valid FileDigest"):
        storage.find_model(uri, FileDigest)


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


def holding(what: str, before: str = "", **environment: str) -> Holder:
    """Return a process that has entered a folder and told its path, until it is killed."""
    stay = "    print(folder, flush=True)\n    sys.stdin.read()\n"
    return Holder(f"{before}\nwith {what} as folder:\n{stay}", **environment)


def test_a_killed_process_s_copy_of_a_folder_is_removed_by_the_next_one(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage.write_bytes(f"{s3_uri}/data.arrow", b"rows")
    with holding(f"storage.local_copy({s3_uri!r})", TMPDIR=str(tmp_path)) as theirs:
        left = Path(theirs.says()) / "data.arrow"
    assert [*tmp_path.rglob("data.arrow")] == [left], "the killed process left its copy"
    with storage.local_copy(s3_uri) as folder:
        assert (folder / "data.arrow").read_bytes() == b"rows"
        assert [*tmp_path.rglob("data.arrow")] == [folder / "data.arrow"]
    assert [path.name for path in tmp_path.rglob("*")] == [f"homefeed-scratch-{os.getuid()}"]


def test_a_place_is_had_once(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "run")
    with storage.exclusive_lock(uri, "the run"):
        with pytest.raises(RunInProgressError, match="another process holds"):
            with storage.exclusive_lock(uri, "the run"):
                pytest.fail("it was had twice")


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


HALF_MADE = """
import pathlib
make = pathlib.Path.mkdir
def mkdir(self, **named):
    if self.name.startswith(".scratch-"):
        print("its lock is there", flush=True)
        sys.stdin.read()
    make(self, **named)
pathlib.Path.mkdir = mkdir
"""
"""Stops between the scratch folder's lock and the folder."""


@pytest.mark.parametrize("before", ["", HALF_MADE])
def test_a_live_scratch_is_left_alone_and_a_killed_holder_frees_it_and_its_lock(
    tmp_path: Path, before: str
) -> None:
    uri, place = storage.to_uri(tmp_path / "run"), tmp_path / "run"
    with_both = f"storage.exclusive_lock({uri!r}, 'x'), storage.scratch_folder({uri!r})"
    with holding(with_both, before) as theirs:
        theirs.says()
        live = {*place.glob(".scratch-*")}
        with storage.scratch_folder(uri):
            assert live and live < {*place.glob(".scratch-*")}
    assert {*place.glob(".scratch-*")} == live, "the killed process left its scratch, or its lock"
    with storage.exclusive_lock(uri, "x"), storage.scratch_folder(uri) as scratch:
        assert [path for path in place.glob(".scratch-*") if path.is_dir()] == [scratch]
    assert list(place.glob(".scratch-*")) == []
