"""What lies in a workspace is listed as it is, and what is not this project's is not."""

from datetime import timedelta

from pipelines import storage
from pipelines.contracts.run_layout import manifest_uri, stage_lease_uri
from pipelines.retention import inventory
from pipelines.retention.plan import FoundRun
from support.retention_world import OldWorld, name_of, snapshot_of, write


def find_run(world: OldWorld, number: str) -> FoundRun:
    """Return a run as the inventory lists it."""
    runs = inventory.find_runs(world.workspace_uri, {})
    return next(run for run in runs if run.name == name_of(number))


def test_a_run_says_what_it_names_and_how_old_it_is(world: OldWorld) -> None:
    run = find_run(world, "2")
    assert run.uri == world.runs["2"].run_uri and run.registered_model == "test_ranker"
    assert run.versions == {"2"}
    assert run.snapshots == {snapshot_of("2"), snapshot_of("1")}
    assert [each.name for each in run.trainings] == [f"{name_of('2')}/train_challenger"]
    assert [each.num_bytes for each in run.trainings] == [3010]
    assert abs(run.changed_at - world.made_at("2")) < timedelta(seconds=1)
    assert not (run.at_work or run.problem or run.foreign)


def test_one_file_that_is_written_makes_the_run_young(world: OldWorld) -> None:
    write(world.workspace / "runs" / name_of("2") / "alert" / "failure.json", 3)
    assert find_run(world, "2").changed_at > world.now - timedelta(minutes=5)


def test_a_lock_makes_nothing_young_and_its_holder_is_seen(world: OldWorld) -> None:
    uri = world.runs["2"].run_uri
    with storage.exclusive_lock(stage_lease_uri(uri, "alert"), "a test"):
        assert find_run(world, "2").at_work == ("alert",)
        assert find_run(world, "1").at_work == ()
    run = find_run(world, "2")
    assert run.at_work == ()
    assert run.changed_at < world.now - timedelta(days=500)


def test_a_manifest_that_cannot_be_read_is_a_problem(world: OldWorld) -> None:
    uri = world.runs["2"].run_uri
    storage.write_bytes(manifest_uri(uri, "train_anchor"), b"{")
    assert "train_anchor/manifest.json is not a valid" in find_run(world, "2").problem
    world.age(world.workspace / "runs" / name_of("2"), "2")
    told = world.delete()
    assert name_of("2") in world.names("runs")
    # It might have named any snapshot.
    assert world.names("snapshots") == [snapshot_of(str(n)) for n in range(1, 8)]
    assert f"run {name_of('1')}" in told


def test_what_is_not_ours_is_left_alone(world: OldWorld) -> None:
    names = ("runs/notes.txt", "snapshots/mine/a", "snapshots/b.txt", "outbox/to do.txt")
    for name in (*names, "judged/x.json", "elsewhere/y"):
        write(world.workspace / name, 3)
        world.age(world.workspace / name, "1")
    write(world.workspace / "runs" / name_of("1") / "my plots" / "a.png", 3)
    world.age(world.workspace / "runs" / name_of("1"), "1")
    world.delete()
    for name in (*names, "judged/x.json", "elsewhere/y", f"runs/{name_of('1')}/my plots/a.png"):
        assert (world.workspace / name).exists(), name


def test_a_link_is_removed_and_not_followed(world: OldWorld) -> None:
    outside = world.folder / "disk" / name_of("1")
    run = world.workspace / "runs" / name_of("1")
    outside.parent.mkdir()
    run.rename(outside)
    run.symlink_to(outside)
    world.delete()
    assert not run.is_symlink()
    assert (outside / "resolve_run" / "manifest.json").exists()
