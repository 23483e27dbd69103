"""A deletion beside cycles, promotions and builders, and what a kill leaves of it."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import Standing
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RunInProgressError,
    TrackingUnavailableError,
)
from pipelines.contracts.run_layout import manifest_uri, working_uri
from pipelines.registry import moves
from pipelines.registry.accepted_code import PINS
from pipelines.registry.history import Entry, History, Recipes, create, recipe_of
from pipelines.registry.reconcile import State
from pipelines.retention import collect, inventory
from pipelines.retention.plan import Record, make_plan
from pipelines.settings import Settings
from pipelines.stages.runner import read_record, run_stage
from support.desk import variant
from support.points import Acts, Killed, kill_at, points_of
from support.retention_world import (
    NAME,
    OldWorld,
    name_of,
    old_world,
    save_snapshot,
    snapshot_of,
    write,
)
from support.runs import make_run, save_artifact, save_run
from support.untouched import look_of

RUN_1, RUN_2 = f"run {name_of('1')}", f"run {name_of('2')}"
SOME_OF_EACH = {"keep_days": 450, "rollback_models": 1}
"""An age at which two runs go whole."""
SNAPSHOT_1 = f"snapshot {snapshot_of('1')}"
ACTS: Acts = ((Path, "rename"), (deletion, "remove"), (shutil, "rmtree"), (os, "unlink"))


def test_what_may_go_goes_and_all_the_rest_is_as_it_was(world: OldWorld) -> None:
    before = files_of(world)
    told = world.delete()
    assert set(told.values()) == {""}
    alerts = [f"alert {name_of(n)}.regression.0000000{n}" for n in "12345"]
    assert list(told) == ["model 2", RUN_1, RUN_2, SNAPSHOT_1, *alerts]
    gone = {*(f"runs/{name_of(n)}" for n in "12"), f"snapshots/{snapshot_of('1')}"}
    gone |= {f"outbox/{name_of(n)}.regression.0000000{n}" for n in "12345"}
    left = {name: at for name, at in before.items() if not name.startswith(tuple(gone))}
    assert files_of(world) == left
    assert world.registry.deleted == ["m-2"]
    assert world.delete() == {}


def files_of(world: OldWorld) -> dict[str, tuple[int, str]]:
    """Files with time and content; no lock files."""
    found = look_of(world.workspace)
    return {name: seen for name, seen in found.items() if seen[1] and not name.endswith(".lock")}


def name_since(world: OldWorld) -> None:
    """A builder has found the first snapshot published, and named it."""
    uri = world.runs["7"].run_uri
    record = read_record(uri, "build_snapshot")
    artifact = {"uri": f"{world.workspace_uri}/snapshots/{snapshot_of('1')}"}
    named = record.model_copy(update={"artifact": artifact})
    storage.write_model(manifest_uri(uri, "build_snapshot"), named)


def save_code(world: OldWorld, folder: str, name: str, pins: str) -> Path:
    """Write code, or an environment, of the age of the first cycle."""
    place = world.workspace / folder / name
    write(place / "lib" / "module.py", 5)
    (place / PINS).write_text(pins)
    world.age(place, "1")
    return place


def test_code_and_environments_that_nothing_names_go_whole_and_the_rest_stays(
    world: OldWorld,
) -> None:
    recipe = recipe_of(world.runs["1"], variant(7), "a" * 64)
    moves.accept_recipe(world.where, recipe, world.now, "we want it")
    with_code = {"code_digest": "b" * 64, "standing": Standing(anchor_code_digest="c" * 64)}
    save_run(run := world.runs["7"].model_copy(update=with_code))
    elsewhere = History(world.workspace_uri, "another_model")
    theirs = Recipes(accepted=recipe.model_copy(update={"code_digest": "d" * 64}))
    entry = Entry(kind="by_hand", moved_at=world.now, reason="so", recipes=theirs)
    create(elsewhere, entry)
    codes = {each: save_code(world, "accepted_code", each * 64, each) for each in "abcde"}
    made = {of: save_code(world, "environments", of * 16, of) for of in "ae"}
    foreign = save_code(world, "environments", "mine", "e")
    record, plan = world.plan()
    kept = {held.name: why for held, why in plan if held.kind in ("code", "environment")}
    assert kept["b" * 64] == kept["c" * 64] == f"run {name_of('7')} names it"
    assert kept["a" * 16] == "code with its pins is kept: it is the accepted code"
    assert {name for name, why in kept.items() if not why} == {"e" * 64, "e" * 16}
    told = world.carry_out(record, plan)
    assert told[f"code {'e' * 64}"] == told[f"environment {'e' * 16}"] == ""
    assert [each for each in codes if not codes[each].exists()] == ["e"]
    assert made["a"].exists() and not made["e"].exists() and foreign.exists()
    assert run.workspace_uri == world.workspace_uri


def test_code_that_a_run_names_since_the_plan_was_made_is_kept_with_its_environment(
    world: OldWorld,
) -> None:
    places = [
        save_code(world, *at, "pins")
        for at in (("accepted_code", "e" * 64), ("environments", "e" * 16))
    ]
    before = [look_of(place) for place in places]
    plan = world.plan()
    save_run(world.runs["7"].model_copy(update={"code_digest": "e" * 64}))
    told = world.carry_out(*plan)
    named = f"run {name_of('7')} names it"
    assert (told[f"code {'e' * 64}"], told[f"environment {'e' * 16}"]) == (named, named)
    assert [{name: seen[1] for name, seen in look_of(place).items()} for place in places] == [
        {name: seen[1] for name, seen in look.items()} for look in before
    ]


def begin(number: str, stage: str) -> Callable[[OldWorld], None]:
    """Let an attempt say that it works."""
    name = "20261129T000000000000-0123abcd"
    return lambda world: storage.write_new(
        working_uri(world.runs[number].run_uri, stage, name), b"x"
    )


@pytest.mark.parametrize(
    ("act", "kept"),
    [
        (begin("1", "alert"), {RUN_1: "somebody works there: alert", SNAPSHOT_1: "names it"}),
        (
            lambda world: write(world.workspace / "runs" / name_of("1") / "alert" / "x.json", 3),
            {RUN_1: "something was written there since the", SNAPSHOT_1: "names it"},
        ),
        (begin("7", "build_snapshot"), {SNAPSHOT_1: "build_snapshot of run"}),
        (name_since, {SNAPSHOT_1: f"run {name_of('7')} names it"}),
        (
            lambda world: world.registry.aliases.update(shadow="2"),
            {"model 2": "an alias was given to it since the plan was made"},
        ),
        (
            lambda world: world.registry.add_theirs("2"),
            {"model 2": f"it is registered as {NAME} v2, theirs v1 since the plan was made"},
        ),
    ],
)
def test_what_is_needed_since_the_plan_was_made_is_kept_whole(
    world: OldWorld, act: Callable[[OldWorld], None], kept: dict[str, str]
) -> None:
    plan = world.plan()
    act(world)
    before = files_of(world)
    told = world.carry_out(*plan)
    assert {name for name, why in told.items() if why} == kept.keys()
    assert all(why in told[name] for name, why in kept.items())
    assert (world.registry.deleted == []) == ("model 2" in kept)
    folders = {RUN_1: f"runs/{name_of('1')}/", SNAPSHOT_1: f"snapshots/{snapshot_of('1')}/"}
    ours = tuple(folders[name] for name in kept if name in folders)
    stay = {name for name in before if name.startswith(ours)}
    assert stay <= files_of(world).keys() and bool(stay) == bool(ours)


def test_a_thing_is_whole_where_nobody_can_tell_who_needs_it(
    world: OldWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan()
    before = files_of(world)
    monkeypatch.setattr(collect, "find_runs", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.carry_out(*plan)
    assert set(files_of(world)) == set(before)


def accept(world: OldWorld) -> None:
    recipe = recipe_of(world.runs["1"], variant(7))
    moves.accept_recipe(world.where, recipe, world.now, "we want it")


@pytest.mark.parametrize("act", [lambda w: w.rollback("1"), lambda w: w.force("2"), accept])
def test_a_move_between_plan_and_deletion_stops_it(
    world: OldWorld, act: Callable[[OldWorld], None]
) -> None:
    plan = world.plan()
    act(world)
    with pytest.raises(RunInProgressError, match="nothing more is deleted"):
        world.carry_out(*plan)
    assert len(world.names("runs")) == 7 and world.registry.deleted == []


def test_the_champion_cannot_be_moved_at_the_moment_of_a_deletion(
    world: OldWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.registry.history.LOCK_WAIT_S", 0.0)
    plan = world.plan()
    remove, refused = deletion.remove, []

    def act_and_remove(uri: str) -> None:
        if uri.endswith("manifest.json") and uri not in refused and storage.exists(uri):
            with pytest.raises(RunInProgressError):
                world.rollback("1")
            refused.append(uri)
        remove(uri)

    monkeypatch.setattr(deletion, "remove", act_and_remove)
    world.carry_out(*plan)
    assert [uri.split("/")[-3:-1] for uri in refused] == [
        [name_of("1"), "resolve_run"],
        [name_of("2"), "resolve_run"],
        ["snapshots", snapshot_of("1")],
    ]


@pytest.mark.parametrize("act", [lambda w: w.rollback("2"), lambda w: w.repair(to="2")])
def test_what_is_marked_as_deleted_becomes_champion_by_nobody(
    world: OldWorld, act: Callable[[OldWorld], None]
) -> None:
    """A promotion and a forced move look at the model as a rollback does."""
    world.delete()
    told = f"{NAME} v2 cannot become champion: its logged model m-2 is marked as deleted"
    with pytest.raises(DataContractError, match=f"{told}.* expected one that is there.*version N"):
        act(world)
    assert world.registry.alias == "6"
    world.rollback("1")
    assert world.registry.alias == "1"
    with pytest.raises(ConfigurationError, match="has no manifest of resolve_run"):
        run_stage("alert", world.runs["1"].run_uri)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_after_a_lost_answer_of_mlflow_the_next_deletion_ends_it(
    world: OldWorld, lost: str
) -> None:
    world.registry.lose = [lost]
    with pytest.raises(TrackingUnavailableError, match="m-2 is marked as deleted is unknown"):
        world.delete()
    assert len(world.names("runs")) == 7
    assert ("model 2" in world.delete()) is (lost == "request")
    assert world.registry.deleted == ["m-2"]


def test_two_deletions_of_a_workspace_take_turns(world: OldWorld) -> None:
    plan = world.plan()
    with storage.exclusive_lock(f"{world.workspace_uri}/gc", "another"):
        with pytest.raises(RunInProgressError, match="a deletion in"):
            world.carry_out(*plan)
    world.delete()
    # A plan that is carried out too late finds nothing, and harms nothing.
    before = files_of(world)
    world.carry_out(*plan)
    assert files_of(world) == before


def test_after_a_kill_at_any_moment_no_part_is_taken_for_a_whole_and_the_next_one_ends_it(
    made: OldWorld,
) -> None:
    with old_world(made.folder, made) as world:
        whole = folders_of(world)
        points = points_of(world, lambda: world.delete(**SOME_OF_EACH), ACTS)
        ended = files_of(world)
    assert len(points) >= 20
    # After every act on a folder as a whole, and after a few of the many on single files.
    after = [n for n, name in enumerate(points) if n == 0 or name.startswith("after")]
    chosen = [n for n in after if "unlink" not in points[n] or n % 25 == 0]
    for place in chosen:
        with old_world(made.folder, made) as world:
            act = partial(world.delete, **SOME_OF_EACH)
            assert kill_at(world, act, place, ACTS) == "killed", points[place]
            for name, files in folders_of(world).items():
                left = whole[name] - files
                assert all("/training/" in each for each in left), (points[place], name)
                is_all_gone = not any("/training/" in each for each in files)
                assert left == set() or is_all_gone, (points[place], name)
            world.delete(**SOME_OF_EACH)
            assert files_of(world) == ended, points[place]
            assert world.registry.deleted == ["m-2"]
            scratch = list(world.workspace.rglob(".scratch-*"))
            assert scratch == [], points[place]


def folders_of(world: OldWorld) -> dict[str, set[str]]:
    """The files of every run, snapshot and alert that would be taken for one."""
    found = {}
    for kind, manifest in (("runs", "resolve_run/manifest.json"), ("snapshots", "manifest.json")):
        for folder in (world.workspace / kind).iterdir():
            if (folder / manifest).exists() and not folder.name.startswith("."):
                files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
                names = {str(path.relative_to(folder)) for path in files}
                found[f"{kind}/{folder.name}"] = {each for each in names if ".scratch-" not in each}
    for receipt in (world.workspace / "outbox").glob("*.json"):
        texts = [receipt.with_suffix(".txt")]
        found[f"outbox/{receipt.name}"] = {path.name for path in texts if path.exists()}
    return found


def test_on_an_object_store_a_manifest_goes_first_and_what_a_kill_has_left_goes_later(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(History(s3_uri, NAME), None, None)
    monkeypatch.setattr(collect, "read_state", lambda *_: state)
    record, settings = Record(state, frozenset(), {}), Settings(registered_model=NAME)

    def delete_all(days: float = 400) -> dict[str, str]:
        now = datetime.now(UTC) + timedelta(days=days)
        plan = make_plan(inventory.take_inventory(s3_uri), record, settings, now)
        done = collect.delete(None, record, plan)
        return {f"{held.kind} {held.name}": why for held, why in done}

    def kill_after(num_removed: int) -> None:
        acts = [deletion.remove] * num_removed

        def remove_or_die(each: str) -> None:
            if not acts:
                raise Killed
            acts.pop()(each)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(deletion, "remove", remove_or_die)
            delete_all()

    run = save_run(make_run(tmp_path, workspace_uri=s3_uri, run_id="cycle-1"))
    save_snapshot(run, "1" * 16)
    save_artifact(run, "alert", run)
    storage.write_bytes(f"{run.run_uri}/check_snapshot/output-1/page.html", b"x")
    storage.write_bytes(f"{s3_uri}/history/{NAME}/x.json", b"{}")
    for ending in ("json", "txt"):
        storage.write_bytes(f"{s3_uri}/outbox/a.regression.0123abcd.{ending}", b"{}")
    assert delete_all(10) == {}
    kill_after(1)
    assert not storage.exists(manifest_uri(run.run_uri, "resolve_run"))
    assert storage.exists(manifest_uri(run.run_uri, "alert"))
    kill_after(6)  # What is left of the run, and the snapshot's manifest.
    assert inventory.find_runs(s3_uri) == []
    assert storage.list_names(f"{s3_uri}/snapshots/{'1' * 16}") == ["shard-00000"]
    assert delete_all() == {f"snapshot {'1' * 16}": "", "alert a.regression.0123abcd": ""}
    assert inventory.take_inventory(s3_uri) == [] == storage.list_names(run.run_uri)
    assert storage.exists(f"{s3_uri}/history/{NAME}/x.json")
