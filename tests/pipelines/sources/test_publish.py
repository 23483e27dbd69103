"""A log at its place: whole or not at all, over nothing else, wherever its writer is killed."""

import errno
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from pipelines import deletion, storage
from pipelines.contracts import files
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.event_log import log_files, reader
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.record import list_below, read_record
from pipelines.places import conditional
from pipelines.sources.event_log_writer import EventLogWriter
from pipelines.sources.publish import SourceAdapter, ingest, write_table
from pipelines.storage import exclusive_lock, to_uri
from support.own_tables import (
    VERSION,
    acted_on,
    contents,
    give,
    give_log,
    pins,
    record_of,
    rows_of_log,
    shown_on,
    users,
    write_own_log,
)

SCHEME = "store://"


class TextAdapter(SourceAdapter):
    """Its event log is one small table of a text; counts how often it is written."""

    def __init__(self, source: str = "a", version: str = "text-1") -> None:
        self.made_of, self.num_written = {"adapter": "text", "source": source}, 0
        self.version = version  # type: ignore[misc]

    def write_tables(self, folder: Path) -> None:
        self.num_written += 1
        write_table(folder, "pins", pa.table({"text": [self.made_of["source"]]}), self.version)


@pytest.fixture(params=["local", "object store"])
def place(request, tmp_path: Path, monkeypatch) -> tuple[str, Path]:
    """Return the URI of an event log that is not there yet, and its folder.

    URIs of SCHEME lead to a folder as to an object store: no rename, file by file.
    """
    above, local, write = tmp_path / "store", storage.open_filesystem, conditional.write
    above.mkdir()
    store = fs.SubTreeFileSystem(str(above), fs.LocalFileSystem())

    def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
        return (store, uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else local(uri)

    def create(uri: str, content: bytes, over: conditional.Revision) -> Any:
        if not uri.startswith(SCHEME):
            return write(uri, content, over)
        is_new = files.write_new(above / uri.removeprefix(SCHEME), content)
        return conditional.Revision() if is_new else None

    for module in (storage, log_files, reader):
        monkeypatch.setattr(module, "open_filesystem", open_filesystem)
    monkeypatch.setattr(conditional, "write", create)
    if request.param == "local":
        return to_uri(above / "log"), above / "log"
    (above / "log").mkdir()  # an object store has no folders to make
    return f"{SCHEME}log", above / "log"


def test_what_was_made_is_not_made_again(place) -> None:
    uri, folder = place
    adapter = TextAdapter()
    made = ingest(adapter, uri)
    before = contents(folder)
    assert made.files == {next(name for name in before if name.startswith("pins/part-")): 1}
    assert ingest(adapter, uri) == made
    assert (adapter.num_written, contents(folder)) == (1, before)


def add_days(location: str | Path) -> None:
    """Replace 3 January, and add 4 January with a new pin and users of another day."""
    shown, new = [shown_on(3, num_requests=1), shown_on(4)], {"users": users(8), "pins": pins(3, 4)}
    give(location, replace_days=True, impressions=shown, actions=acted_on(3)[:1], **new)


def kill_before_change(number: int, work: Callable[[], Any]) -> bool:
    """Do some work in a child process; return whether the child was killed.

    Args:
        number: the renames, deletions and changes to a store that the child may make, counted from
            0; it kills itself before that one.
        work: what the child does.
    """
    child = multiprocessing.get_context("fork").Process(target=_perform, args=(number, work))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def _perform(number: int, work: Callable[[], Any]) -> None:
    left = [number]

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def kill_or_act(*args: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return act(*args, **options)

        return kill_or_act

    # The child is a process of its own, so that nobody else sees these.
    os.rename, os.replace = counted(os.rename), counted(os.replace)
    for module, name in (
        (deletion, "remove"),
        (storage, "write_bytes"),
        (storage, "publish_folder"),
    ):
        setattr(module, name, counted(getattr(module, name)))
    work()


def counted_in_log(folder: Path) -> dict[str, bytes]:
    """Return the tables' files that belong to a log, by their folders and in the record's order."""
    record, found = read_record(to_uri(folder)), contents(folder)
    names = record.files if record else ()
    return {f"{Path(name).parent}/{n}": found[name] for n, name in enumerate(names)}


KILLED: dict[str, tuple[Callable[[str], Any], ...]] = {
    "a first ingest": (lambda uri: None, partial(ingest, TextAdapter()), give),
    "an ingest over an older log": (
        partial(ingest, TextAdapter()),
        partial(ingest, TextAdapter(version="text-2")),
        give,
    ),
    "a new log": (lambda uri: None, lambda uri: write_own_log(uri, 2), give),
    "an increment": (lambda uri: write_own_log(uri, 2, 3), add_days, give),
}
"""By act: what was there before, the act, and what puts the place in order where it was done."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "act"),
    [(place, act) for place in ("local", "object store") for act in KILLED],
    indirect=["place"],
)
def test_a_log_is_as_before_or_as_after_wherever_its_writer_is_killed(
    place, tmp_path: Path, act: str
) -> None:
    uri, folder = place
    is_store = uri.startswith(SCHEME)
    prepare, work, settle = KILLED[act]
    if "ingest" in act:
        settle = work
    states = []
    for where in ("before", "after"):
        prepare(str(tmp_path / where))
        states.append(counted_in_log(tmp_path / where))
        if where == "after":
            work(str(tmp_path / where))
            states[-1] = counted_in_log(tmp_path / where)
    before, after = states
    found = []
    for number in count():
        shutil.rmtree(folder, ignore_errors=True)
        if is_store:
            folder.mkdir()
        if (tmp_path / "before").is_dir():
            shutil.copytree(tmp_path / "before", folder, dirs_exist_ok=True)
        was_killed = kill_before_change(number, partial(work, uri))
        state = counted_in_log(folder)
        is_done = state == after
        assert state in (before, after), number
        found.append(is_done)
        (settle if is_done else work)(uri)
        assert counted_in_log(folder) == after, f"killed before change {number}"
        if not is_store:
            named = {*record_of(folder).files, *record_of(folder).dropped}
            assert set(list_below(to_uri(folder), ".parquet")) == named
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["log"]
        if not was_killed:
            break
    # As before up to one change, and as after from there on.
    assert found == sorted(found) and found[-1] and len(found) >= 3


def test_a_log_of_other_input_is_left_alone(place) -> None:
    uri, folder = place
    ingest(TextAdapter("a"), uri)
    before = contents(folder)
    for adapter in (TextAdapter("b"), TextAdapter("b", "text-2")):
        with pytest.raises(ConfigurationError, match="made of .*'a'.*; expected .*'b'"):
            ingest(adapter, uri)
    assert contents(folder) == before


def test_somebody_elses_folder_is_left_alone(place) -> None:
    uri, folder = place
    folder.mkdir(exist_ok=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds \['thesis.txt'\] and no record"):
        ingest(TextAdapter(), uri)
    assert contents(folder) == {"thesis.txt": b"mine"}


def test_two_ingests_never_write_to_the_same_folder(tmp_path: Path) -> None:
    uri = to_uri(tmp_path / "log")
    with exclusive_lock(uri, "the test"), pytest.raises(RunInProgressError, match="ingest to"):
        ingest(TextAdapter(), uri)
    assert not (tmp_path / "log").exists()


def content(location: str | Path) -> dict[str, list]:
    return {table: rows_of_log(location, table) for table in EVENT_LOG_TABLES}


def test_an_increment_is_added_to_a_log_on_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_log(tmp_path / "disk" / "log", 2, 3)
    shutil.copytree(tmp_path / "disk" / "log", tmp_path / "expected")
    add_days(tmp_path / "expected")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "log").symlink_to(tmp_path / "disk" / "log")
    rename = os.rename

    def within_one_file_system(source: Path, target: Path) -> None:
        if ("disk" in Path(source).parts) != ("disk" in Path(target).parts):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", within_one_file_system)
    add_days(tmp_path / "here" / "log")
    assert content(tmp_path / "disk" / "log") == content(tmp_path / "expected")
    assert (tmp_path / "here" / "log").is_symlink()
    assert [path.name for path in (tmp_path / "here").iterdir() if path.is_dir()] == ["log"]


def cut_off_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the upload of a folder break off after half of its files, in order of names."""
    genuine = fs.copy_files

    def copy_half(source: str, target: str, *between: fs.FileSystem) -> None:
        paths = sorted(path for path in Path(source).rglob("*") if path.is_file())
        for path in paths[: len(paths) // 2]:
            genuine(str(path), f"{target}/{path.relative_to(source)}", *between)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(fs, "copy_files", copy_half)


def test_an_unfinished_log_on_a_store_is_refused_and_written_anew(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{s3_uri}/log"
    with monkeypatch.context() as broken, pytest.raises(TransientStorageError, match="reset"):
        cut_off_uploads(broken)
        write_own_log(location, 2)
    with pytest.raises(DataContractError, match=r"is not finished: a first .* run again what"):
        open_event_log(location)
    write_own_log(location, 3)
    shown = {row["request_id"] for row in rows_of_log(location, "impressions")}
    assert shown == {"3-0", "3-1", "3-2"}


def test_an_increment_that_is_cut_off_on_a_store_is_not_read(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{s3_uri}/log"
    write_own_log(location, 2, 3)
    before = content(location)
    with monkeypatch.context() as broken, pytest.raises(TransientStorageError, match="reset"):
        cut_off_uploads(broken)
        add_days(location)
    assert set(list_below(location, ".parquet")) > set(record_of(location).files)
    assert content(location) == before
    add_days(location)
    write_own_log(tmp_path / "local", 2, 3)
    add_days(tmp_path / "local")
    assert content(location) == content(tmp_path / "local")
    # What another writer may be about to name goes when it is old.
    assert set(list_below(location, ".parquet")) > set(record_of(location).files)
    monkeypatch.setattr(storage, "ABANDONED_AFTER", timedelta(seconds=-5))
    give_log(location, impressions=shown_on(7), actions=acted_on(7))
    named = {*record_of(location).files, *record_of(location).dropped}
    assert set(list_below(location, ".parquet")) == named


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda path, log: path.rename(path.with_name("part-000002-999999.parquet")),
            r"lacks actions/day=2024-01-02/part-\d+-\d+.parquet \(1 such",
        ),
        (
            lambda path, log: shutil.copy(path, path.with_name("mine.parquet")),
            r"has actions/day=2024-01-02/mine.parquet \(1 such",
        ),
        (
            lambda path, log: (log / "record" / "00000002.json").write_text("{}"),
            "00000002.json is not a valid EventLogRecord",
        ),
    ],
)
def test_files_that_are_not_those_of_the_record_are_named(
    tmp_path: Path, change: Callable[[Path, Path], Any], says: str
) -> None:
    write_own_log(tmp_path / "log", 2)
    [path] = (tmp_path / "log" / "actions").rglob("*.parquet")
    change(path, tmp_path / "log")
    with pytest.raises(DataContractError, match=says):
        open_event_log(to_uri(tmp_path / "log"))


def test_an_adapters_log_is_not_added_to(tmp_path: Path) -> None:
    ingest(TextAdapter(), str(tmp_path / "log"))
    with pytest.raises(ConfigurationError, match="is the event log of the adapter text-1"):
        give(tmp_path / "log")


def test_a_writer_that_comes_second_on_a_store_leaves_the_first_one_s_log_whole(
    s3_uri: str,
) -> None:
    location = f"{s3_uri}/log"
    with pytest.raises(RunInProgressError), EventLogWriter(location, VERSION) as late:
        late.pins(pins())
        late.impressions(shown_on(3))
        late.actions(acted_on(3))
        write_own_log(location, 2)
    shown = {row["request_id"] for row in rows_of_log(location, "impressions")}
    assert shown == {"2-0", "2-1", "2-2"}
