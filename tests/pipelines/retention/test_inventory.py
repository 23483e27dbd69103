"""What lies in a workspace is listed as it is; of an unsound record nothing is deleted."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from pipelines import storage
from pipelines.contracts.errors import (
    DataContractError,
    HomefeedError,
    RecordDisagreesError,
    TrackingUnavailableError,
)
from pipelines.contracts.run_layout import manifest_uri, stage_lock_uri, working_uri
from pipelines.registry.evidence import JudgedSnapshot
from pipelines.registry.registry import KEEPER
from pipelines.retention import inventory
from pipelines.retention.inventory import read_record
from pipelines.retention.plan import FoundRun
from support.evidence import publish_evidence
from support.retention_world import NAME, OldWorld, name_of, snapshot_of, write
from support.untouched import look_of


def find_run(world: OldWorld, number: str) -> FoundRun:
    """Return a run as the inventory lists it."""
    runs = inventory.find_runs(world.workspace_uri)
    return next(run for run in runs if run.name == name_of(number))


def test_a_run_says_what_it_names_and_how_old_it_is(world: OldWorld) -> None:
    run = find_run(world, "2")
    assert run.uri == world.runs["2"].run_uri and run.registered_model == "test_ranker"
    assert run.snapshots == {snapshot_of("2"), snapshot_of("1")}
    assert [each.name for each in run.trainings] == [f"{name_of('2')}/train_challenger"]
    assert [each.num_bytes for each in run.trainings] == [3010]
    assert abs(run.changed_at - world.made_at("2")) < timedelta(seconds=1)
    assert not (run.at_work or run.problem or run.foreign)


def test_a_lock_makes_nothing_young_and_who_works_is_seen_for_a_week(world: OldWorld) -> None:
    uri = world.runs["2"].run_uri
    with storage.exclusive_lock(stage_lock_uri(uri, "alert"), "a test"):
        assert find_run(world, "2").changed_at < world.now - timedelta(days=500)
    mark = working_uri(uri, "alert", "20261129T000000000000-0123abcd")
    storage.write_new(mark, b"x")
    assert (find_run(world, "2").at_work, find_run(world, "1").at_work) == (("alert",), ())
    week_ago = (datetime.now() - timedelta(days=8)).timestamp()
    os.utime(storage.local_path(mark), (week_ago, week_ago))
    assert find_run(world, "2").at_work == ()
    write(world.workspace / "runs" / name_of("2") / "alert" / "failure.json", 3)
    assert find_run(world, "2").changed_at > world.now - timedelta(minutes=5)


def test_a_manifest_that_cannot_be_read_is_a_problem(world: OldWorld) -> None:
    storage.write_bytes(manifest_uri(world.runs["2"].run_uri, "train_anchor"), b"{")
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


def test_a_link_is_left_alone(world: OldWorld) -> None:
    outside = world.folder / "disk" / name_of("1")
    run = world.workspace / "runs" / name_of("1")
    outside.parent.mkdir()
    run.rename(outside)
    run.symlink_to(outside)
    world.delete()
    assert run.is_symlink()
    assert (outside / "resolve_run" / "manifest.json").exists()


def write_over(name: str) -> Callable[[OldWorld], None]:
    return lambda world: storage.write_bytes(f"{world.workspace_uri}/{name}", b"{}")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda world: setattr(world.registry, "is_down", True), TrackingUnavailableError),
        (lambda world: setattr(world.registry, "alias", "1"), RecordDisagreesError),
        (lambda world: setattr(world.registry, "alias", None), RecordDisagreesError),
        (lambda w: (w.workspace / "history").rename(w.folder / "lost"), RecordDisagreesError),
        (
            lambda w: w.registry.set_registered_model_tag(NAME, KEEPER, "file:///other"),
            RecordDisagreesError,
        ),
        (write_over(f"history/{NAME}/00000002.json"), DataContractError),
        (write_over(f"history/{NAME}/00000005.json"), DataContractError),
        (write_over("accepted_snapshots/smoke/x--y.json"), DataContractError),
    ],
)
def test_of_a_record_that_is_not_sound_nothing_is_deleted(
    world: OldWorld, spoil: Callable[[OldWorld], None], error: type[HomefeedError]
) -> None:
    spoil(world)
    before = look_of(world.workspace)
    with pytest.raises(error):
        world.delete()
    assert look_of(world.workspace) == before
    world.registry.is_down = False
    assert world.registry.deleted == []


def test_no_workspace_is_an_error(world: OldWorld) -> None:
    with pytest.raises(HomefeedError, match="there is no workspace"):
        world.plan(workspace=f"{world.workspace_uri}-of-nobody")


def test_the_newest_accepted_snapshot_is_kept_and_older_marks_keep_none(world: OldWorld) -> None:
    for number in ("1", "2"):
        uri = f"{world.workspace_uri}/snapshots/{snapshot_of(number)}"
        day = world.runs[number].as_of
        mark = JudgedSnapshot(as_of=day, snapshot_uri=uri, recipe="smoke")
        place = f"{world.workspace_uri}/accepted_snapshots/smoke/{day:%Y-%m-%d}--{number * 12}.json"
        storage.write_model(place, mark)
    record = read_record(world.registry, world.workspace_uri, NAME)  # type: ignore[arg-type]
    assert record.references == {snapshot_of("2"): "smoke"}


def test_evidence_that_the_next_cycle_counts_keeps_its_run(world: OldWorld) -> None:
    """Of two judged cycles one was judged before the champion moved last, the other since."""
    moved_at = world.made_at("6")
    for number, days in (("1", -1), ("2", 1)):
        judged_at = moved_at + timedelta(days=days)
        publish_evidence(world.runs[number], run_id=name_of(number), judged_at=judged_at)
    told = world.delete()
    assert f"run {name_of('1')}" in told and f"run {name_of('2')}" not in told
    assert world.names("runs")[0] == name_of("2")
    assert len(list((world.workspace / "judged" / NAME).glob("*.json"))) == 2
