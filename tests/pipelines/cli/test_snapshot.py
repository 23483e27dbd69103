"""`homefeed snapshot`, as typed."""

import shutil
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view import find
from pipelines.storage import local_path, to_uri
from support.commands import as_json, homefeed, lines
from support.damage import flip_a_byte
from support.runs import PLANTED_AS_OF, make_run
from support.worlds import write_planted_world


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typed")
    write_planted_world(folder / "event_log")
    for day in (PLANTED_AS_OF, PLANTED_AS_OF.replace(day=1)):
        write_snapshot(make_run(folder, as_of=day))
    return folder / "workspace"


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "workspace")
    monkeypatch.setenv("HOMEFEED_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def test_all_are_listed_and_one_is_shown_and_compared(workspace: Path) -> None:
    (workspace / "snapshots" / "unfinished").mkdir()
    *listed, last = lines("snapshot", "show")
    assert [line.split(",")[0][-10:] for line in listed] == ["2017-03-02", "2017-03-01"]
    assert last.startswith("2 snapshots in file://")
    read = as_json("snapshot", "show")
    newest, other = (each["uri"].rpartition("/")[2] for each in read)
    assert [line.split()[0] for line in listed] == [newest, other]
    by_name = lines("snapshot", "show", newest[:8])
    place = str(workspace / "snapshots" / newest)
    assert by_name == lines("snapshot", "show", place)
    assert find(place, "none://w").digest == read[0]["digest"], "its workspace was asked"
    assert any(f"snapshot: {newest} at file://" in line for line in by_name)
    facts = as_json("snapshot", "show", newest)
    assert facts["snapshot"]["digest"] == read[0]["digest"]


def test_what_is_no_snapshot_is_said_to_be_none(workspace: Path) -> None:
    for text, number in (("nothing", 0), ("", 2), ("", 1)):
        if number == 1:  # an empty variable names none, although there is no other
            shutil.rmtree(next(workspace.glob("snapshots/*/manifest.json")).parent)
        with pytest.raises(ConfigurationError, match=f"'{text}' names {number} snap.*; expected"):
            find(text, to_uri(workspace))


def test_all_are_verified_and_the_damaged_one_is_named(workspace: Path) -> None:
    assert lines("snapshot", "verify")[-1] == "2 snapshots verified"
    damaged, sound = (path.parent.name for path in workspace.glob("snapshots/*/manifest.json"))
    snapshot = find(damaged, to_uri(workspace))
    flip_a_byte(local_path(snapshot.uri) / "shard-00001" / "timeline.arrow")
    found = homefeed("snapshot", "verify")
    assert found.exception.exit_code == 65  # type: ignore[union-attr]
    assert "1 of 2 snapshots are not as they were published" in str(found.exception)
    assert "shard-00001/timeline.arrow was altered: its sha256" in found.output
    assert lines("snapshot", "verify", sound)
    read = as_json("snapshot", "verify")["snapshots"]
    problems = {each["uri"]: len(each["problems"]) for each in read}
    assert problems.pop(snapshot.uri) == 1 and [*problems.values()] == [0]
