"""`homefeed snapshot`, as typed."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError, SnapshotDamagedError
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot_view.finding import find
from pipelines.storage import local_path, to_uri
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


def homefeed(*words: str) -> Result:
    return CliRunner().invoke(app, ["snapshot", *words])


def names_of(workspace: Path) -> list[str]:
    return [path.parent.name for path in workspace.glob("snapshots/*/manifest.json")]


def test_all_are_listed_the_newest_first(workspace: Path) -> None:
    (workspace / "snapshots" / "unfinished").mkdir()
    shown = homefeed("show")
    assert shown.exit_code == 0, shown.output
    *lines, last = shown.output.splitlines()
    assert [line.split(",")[0][-10:] for line in lines] == ["2017-03-02", "2017-03-01"]
    assert {line.split()[0] for line in lines} == set(names_of(workspace))
    assert last.startswith("2 snapshots in file://")


def test_one_is_named_by_the_beginning_of_its_name_or_by_its_folder(workspace: Path) -> None:
    name = names_of(workspace)[0]
    by_name, by_place = (
        homefeed("show", name[:8]),
        homefeed("show", str(workspace / "snapshots" / name)),
    )
    assert by_name.exit_code == 0 and by_name.output == by_place.output
    assert f"snapshot {name} at file://" in by_name.output


def test_a_page_is_written_two_are_compared_and_json_holds_all_of_it(
    workspace: Path, tmp_path: Path
) -> None:
    listed = json.loads(homefeed("show", "--json").stdout)
    assert [each["as_of"][:10] for each in listed] == ["2017-03-02", "2017-03-01"]
    newest, other = (each["uri"].rpartition("/")[2] for each in listed)
    page = tmp_path / "pages" / "snapshot.html"
    shown = homefeed("show", newest, "--html", str(page))
    assert shown.output.splitlines()[-1] == f"page: {page}" and "<svg" in page.read_text()
    facts = json.loads(homefeed("show", newest, "--json").stdout)
    assert facts["snapshot"]["digest"] == listed[0]["digest"]
    shown = homefeed("diff", newest, other)
    assert "as of: 2017-03-0" in shown.output and "requests in both: " in shown.output
    both = json.loads(homefeed("diff", newest, other, "--json").stdout)
    assert both["one"]["snapshot"] == facts["snapshot"]
    assert both["other"]["snapshot"]["digest"] == listed[1]["digest"]


def test_what_is_no_snapshot_is_said_to_be_none(workspace: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no manifest\.json in .*; expected a built snap"):
        find("nothing", to_uri(workspace))
    shutil.copytree(workspace / "snapshots", workspace / "twice")
    for number, path in enumerate(sorted((workspace / "twice").glob("*/"))):
        shutil.move(path, workspace / "snapshots" / f"same-{number}")
    with pytest.raises(ConfigurationError, match="'same-' begins the names of 2 snapshots"):
        find("same-", to_uri(workspace))


def test_all_are_verified_and_the_damaged_one_is_named(workspace: Path) -> None:
    sound = homefeed("verify")
    assert sound.exit_code == 0 and sound.output.endswith("2 snapshots verified\n")
    name = names_of(workspace)[0]
    snapshot = find(name, to_uri(workspace))
    flip_a_byte(local_path(snapshot.uri) / "shard-00001" / "timeline.arrow")
    found = homefeed("verify")
    assert isinstance(found.exception, SnapshotDamagedError)
    assert found.exception.exit_code == 65
    assert "1 of 2 snapshots are not as they were published" in str(found.exception)
    assert "shard-00001/timeline.arrow was altered: its sha256" in found.output
    assert homefeed("verify", names_of(workspace)[1]).exit_code == 0
    read = json.loads(homefeed("verify", "--json").stdout)["snapshots"]
    problems = {each["uri"]: len(each["problems"]) for each in read}
    assert len(problems) == 2 and problems[snapshot.uri] == 1
    assert sum(problems.values()) == 1
