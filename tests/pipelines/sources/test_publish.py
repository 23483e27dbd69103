"""Publishing an event log: whole or not at all, once, over nothing else, for every adapter."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.errors import (
    ConfigurationError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.sources.adapter import SourceAdapter
from pipelines.sources.completejourney import adapter as completejourney
from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
from pipelines.sources.publish import Upload, ingest
from pipelines.sources.world.adapter import WorldAdapter
from pipelines.sources.world.parameters import make_parameters
from pipelines.storage import exclusive_lock, to_uri
from support.object_store import SCHEME, cut_off_uploads, make_object_store
from support.text_adapter import NewerTextAdapter, TextAdapter

STORE_ID = 367
"""The shop with the most purchases in the first weeks."""


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(params=["local", "object store"])
def place(request, tmp_path: Path, monkeypatch) -> tuple[str, Path]:
    """Return the URI of an event log that is not there yet, and its folder."""
    (tmp_path / "store").mkdir()
    make_object_store(tmp_path / "store", monkeypatch)
    folder = tmp_path / "store" / "log"
    if request.param == "local":
        return to_uri(folder), folder
    folder.mkdir()  # an object store has no folders to make
    return f"{SCHEME}log", folder


def test_what_was_made_is_not_made_again(place) -> None:
    uri, folder = place
    adapter = TextAdapter()
    made = ingest(adapter, uri)
    before = contents(folder)
    assert set(before) == {"pins/text-1.txt", "text.json"}
    assert ingest(adapter, uri) == made
    assert (adapter.num_written, contents(folder)) == (1, before)


def test_a_log_of_an_older_adapter_is_made_anew(place) -> None:
    uri, folder = place
    ingest(TextAdapter(), uri)
    assert ingest(NewerTextAdapter(), uri).adapter_version == "text-2"
    assert set(contents(folder)) == {"pins/text-2.txt", "text.json"}


class Killed(BaseException):
    """What ends a process in a test that goes on."""


def kill_before(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end before that change to the storage, counted from 0."""
    left = [number]

    def counted(act: Callable[..., None]) -> Callable[..., None]:
        def kill_or_act(*args: object) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            act(*args)

        return kill_or_act

    for name in ("write_model", "remove", "publish_folder"):
        monkeypatch.setattr(storage, name, counted(getattr(storage, name)))


@pytest.mark.parametrize("is_there", [False, True])
def test_an_ingest_that_is_killed_anywhere_is_ended_by_the_next(
    place, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    uri, folder = place
    found = []
    while not found or found[-1] is Killed:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if is_there:
            ingest(TextAdapter(), uri)
        adapter = NewerTextAdapter()
        with monkeypatch.context() as patched:
            kill_before(patched, len(found))
            try:
                ingest(adapter, uri)
                found.append(None)
            except Killed:
                found.append(Killed)
        was_whole = "text.json" in contents(folder) and b"text-2" in contents(folder)["text.json"]
        made = ingest(adapter, uri)
        assert made.adapter_version == "text-2"
        assert set(contents(folder)) == {"pins/text-2.txt", "text.json"}
        assert adapter.num_written == (1 if was_whole else 2), f"killed before {len(found) - 1}"
    assert len(found) >= 3


def test_a_finished_log_of_another_adapter_is_not_taken_for_a_cut_off_upload(
    place, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, folder = place
    ingest(TextAdapter(), uri)
    storage.write_model(storage.join(uri, "ingesting.json"), Upload(marker="text.json"))
    other = TextAdapter()
    monkeypatch.setattr(other, "marker", "other.json")
    with pytest.raises(
        ConfigurationError, match=r"holds \['pins', 'text.json'\] and no other.json"
    ):
        ingest(other, uri)
    assert set(contents(folder)) == {"pins/text-1.txt", "text.json"}


def test_a_log_of_other_input_is_left_alone(place) -> None:
    uri, folder = place
    ingest(TextAdapter("a"), uri)
    before = contents(folder)
    for adapter in (TextAdapter("b"), NewerTextAdapter("b")):
        with pytest.raises(ConfigurationError, match="is of a"):
            ingest(adapter, uri)
    assert contents(folder) == before


def test_somebody_elses_folder_is_left_alone(place) -> None:
    uri, folder = place
    folder.mkdir(exist_ok=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds \['thesis.txt'\] and no text.json"):
        ingest(TextAdapter(), uri)
    assert contents(folder) == {"thesis.txt": b"mine"}


def test_two_ingests_never_write_to_the_same_folder(tmp_path: Path) -> None:
    uri = to_uri(tmp_path / "log")
    with exclusive_lock(uri, "the test"), pytest.raises(RunInProgressError, match="ingest to"):
        ingest(TextAdapter(), uri)
    assert not (tmp_path / "log").exists()


@pytest.fixture(scope="module")
def few_weeks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return folders of one shop's data, for the first 6 weeks and the first 3."""
    source = completejourney.data_folder()
    folders = {}
    for weeks in (6, 3):
        folders[weeks] = tmp_path_factory.mktemp(f"weeks-{weeks}")
        (folders[weeks] / "products.parquet").symlink_to(source / "products.parquet")
        for name in ("promotions", "transactions"):
            chosen = [("store_id", "=", STORE_ID), ("week", "<=", weeks)]
            rows = pq.read_table(source / f"{name}.parquet", filters=chosen)
            pq.write_table(rows, folders[weeks] / f"{name}.parquet")
    return folders


@pytest.fixture(params=["completejourney", "world"])
def adapters(request, few_weeks, monkeypatch) -> tuple[SourceAdapter, SourceAdapter]:
    """Return an adapter of much data, and one of less by the same code."""
    if request.param == "world":
        sizes = {"num_pins": 60, "start": "2024-01-01", "seed": 7}
        large = make_parameters(num_users=40, num_days=20, **sizes)
        small = make_parameters(num_users=40, num_days=10, **sizes)
        return WorldAdapter(large), WorldAdapter(small)
    folders = iter([few_weeks[6], few_weeks[3], few_weeks[3]])
    monkeypatch.setattr(completejourney, "data_folder", lambda: next(folders))
    return CompleteJourneyAdapter(), CompleteJourneyAdapter()


def test_an_upload_that_was_cut_off_leaves_nothing_behind(
    adapters, tmp_path: Path, monkeypatch
) -> None:
    large, small = adapters
    (tmp_path / "store" / "log").mkdir(parents=True)
    make_object_store(tmp_path / "store", monkeypatch)
    with monkeypatch.context() as broken:
        cut_off_uploads(broken)
        with pytest.raises(TransientStorageError, match="publishing to store://log: .*reset"):
            ingest(large, f"{SCHEME}log")
    cut_off = set(contents(tmp_path / "store" / "log"))
    assert "ingesting.json" in cut_off
    assert large.marker not in cut_off
    made = ingest(small, f"{SCHEME}log")
    assert ingest(small, str(tmp_path / "local")) == made
    uploaded = contents(tmp_path / "store" / "log")
    assert uploaded == contents(tmp_path / "local")
    assert cut_off - set(uploaded) > {"ingesting.json"}  # the first upload had had other files
