"""`homefeed gc`, as typed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from pipelines.contracts.errors import TrackingUnavailableError
from support.retention_world import NAME, OldWorld, name_of, old_world, snapshot_of
from support.untouched import look_of


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OldWorld]:
    monkeypatch.setenv("HOMEFEED_WORKSPACE", str(tmp_path / "world" / "workspace"))
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", NAME)
    with old_world(tmp_path / "world") as found:
        yield found


def homefeed(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def lines_of(result: Result, kind: str) -> list[list[str]]:
    found = [line.split() for line in result.output.splitlines()]
    return [line for line in found if line[: len(kind.split())] == kind.split()]


def test_a_dry_run_says_what_would_go_and_what_is_kept_and_writes_nothing(world: OldWorld) -> None:
    before = look_of(world.folder)
    shown = homefeed("gc", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert look_of(world.folder) == before
    place, *_, total, models = shown.output.splitlines()
    assert place == f"workspace: {world.workspace_uri}"
    going = [line[2:4] for line in lines_of(shown, "would go")]
    alerts = [["alert", f"{name_of(n)}.regression.0000000{n}"] for n in "12345"]
    runs = [["run", name_of("1")], ["run", name_of("2")]]
    assert going == [["model", "2"], *runs, ["snapshot", snapshot_of("1")], *alerts]
    [why] = [" ".join(line[6:]) for line in lines_of(shown, f"kept run {name_of('5')}")]
    needed = "test_ranker v5 is predecessor 1 of the champion"
    assert why == f"days old because it trained what is needed: {needed}"
    read = json.loads(homefeed("gc", "--dry-run", "--json").stdout)
    ours = (row for row in read["items"] if row["because"] == "" and row["kind"] != "model")
    assert total == f"would free {sum(row['num_bytes'] for row in ours) / 1000:.1f} kB (8 things)"
    assert read["is_dry_run"] and read["num_bytes"] > 2000
    rows = [(each["kind"], each["name"]) for each in read["items"] if each["because"] == ""]
    assert rows == [tuple(words) for words in going]
    assert models == (
        "MLflow would mark 1 model as deleted; `mlflow gc`, run on its server, frees 1.0 kB"
    )


def test_it_deletes_what_the_dry_run_has_said(world: OldWorld) -> None:
    shown = homefeed("gc", "--dry-run")
    said = [line[2:] for line in lines_of(shown, "would go")]
    done = homefeed("gc")
    assert done.exit_code == 0, done.output
    assert [line[1:] for line in lines_of(done, "gone")] == said
    total = shown.output.splitlines()[-2]
    assert total.replace("would free", "freed") in done.output and "(8 things)" in total
    assert world.names("runs")[0] == name_of("3")
    again = homefeed("gc")
    assert again.output.splitlines()[-1] == "freed 0 B (0 things)"
    assert lines_of(again, "gone") == []


def test_the_age_is_a_setting(world: OldWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_KEEP_DAYS", "9999")
    # the work folder of a training that has ended, which nothing goes on from
    assert homefeed("gc").output.splitlines()[-1] == "freed 3.0 kB (1 thing)"
    assert len(world.names("runs")) == 7


def test_where_mlflow_is_silent_it_ends_with_an_error_before_anything(world: OldWorld) -> None:
    world.registry.is_down = True
    before = look_of(world.workspace)
    done = homefeed("gc")
    assert isinstance(done.exception, TrackingUnavailableError)
    assert done.output == "" and look_of(world.workspace) == before
