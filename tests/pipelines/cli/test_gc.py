"""`homefeed gc`, as typed."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import as_json, lines
from support.retention_world import NAME, OldWorld, name_of, old_world, snapshot_of
from support.untouched import look_of


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OldWorld]:
    monkeypatch.setenv("HOMEFEED_WORKSPACE", str(tmp_path / "world" / "workspace"))
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", NAME)
    with old_world(tmp_path / "world") as found:
        yield found


def beginning(shown: list[str], start: str) -> list[list[str]]:
    """Return the words that follow in the lines that begin with some."""
    first = start.split()
    words = [line.split() for line in shown]
    return [each[len(first) :] for each in words if each[: len(first)] == first]


def test_a_dry_run_says_what_would_go_and_what_is_kept_and_then_it_goes(world: OldWorld) -> None:
    before = look_of(world.folder)
    shown, read = lines("gc", "--dry-run"), as_json("gc", "--dry-run")
    assert look_of(world.folder) == before
    assert shown[0] == f"workspace: {world.workspace_uri}"
    going = [each[:2] for each in beginning(shown, "would go")]
    alerts = [["alert", f"{name_of(n)}.regression.0000000{n}"] for n in "12345"]
    runs = [["run", name_of("1")], ["run", name_of("2")]]
    assert going == [["model", "2"], *runs, ["snapshot", snapshot_of("1")], *alerts]
    [why] = beginning(shown, f"kept run {name_of('5')}")
    needed = "test_ranker v5 is predecessor 1 of the champion"
    assert " ".join(why[3:]) == f"days old because it trained what is needed: {needed}"
    rows = [each for each in read["items"] if each["because"] == ""]
    assert [[each["kind"], each["name"]] for each in rows] == going
    size = sum(each["num_bytes"] for each in rows) / 1000
    assert read["num_bytes"] == size * 1000 > 2000
    models = "models' space: `mlflow gc`, run on MLflow's server"
    assert shown[-1] == f"would free {size:.1f} kB; {models}"
    done = lines("gc")
    assert [each[:2] for each in beginning(done, "gone")] == going
    assert done[-1] == f"freed {size:.1f} kB; {models}"
    assert world.names("runs")[0] == name_of("3")
    again = lines("gc")
    assert again[-1].startswith("freed 0 bytes; ") and beginning(again, "gone") == []


def test_going_back_to_a_model_whose_run_is_deleted_puts_no_recipe_on_hold(world: OldWorld) -> None:
    """Nothing but the history is asked for its recipe, and no tag, whatever path it names."""
    world.registry.add(world.models["1"], "../..", world.made_at("1"))
    lines("gc")
    assert world.names("runs")[0] == name_of("3")
    lines("rollback", "--to-version", "1", "--reason", "hides rose")
    known = world.look().history
    assert known.last and known.last.model == world.models["1"] and known.recipes.held == ()
    assert known.recipes.accepted == known.moves[0].recipe is not None


def test_on_a_full_disk_room_is_made_without_a_lock_file(
    world: OldWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lock in world.workspace.rglob("*.lock"):
        lock.unlink()
    make = os.open

    def refuse(path: str, flags: int, *mode: int, **more: int) -> int:
        if flags & os.O_CREAT and not os.path.exists(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return make(path, flags, *mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert beginning(lines("gc"), "gone run")
    assert not list(world.workspace.rglob("*.lock"))
    assert "test_ranker v5" in lines("rollback")[1]
