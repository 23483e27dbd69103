"""Where the record is not sound, or MLflow is silent, nothing is deleted at all."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from pipelines import storage
from pipelines.contracts.errors import (
    DataContractError,
    HomefeedError,
    RecordDisagreesError,
    TrackingUnavailableError,
)
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.contracts.time import Window
from pipelines.recipes import smoke
from pipelines.registry import evidence
from pipelines.registry.accepted import AcceptedSnapshot
from pipelines.retention.record import read_record
from support.retention_world import NAME, OldWorld, name_of, snapshot_of
from support.untouched import look_of


def silence(world: OldWorld) -> None:
    world.registry.is_down = True


def move_alias(world: OldWorld) -> None:
    world.registry.alias = "1"


def drop_alias(world: OldWorld) -> None:
    world.registry.alias = None


def damage(world: OldWorld) -> None:
    (world.workspace / "history" / NAME / "00000002.json").write_text("{}")


def damage_newest(world: OldWorld) -> None:
    (world.workspace / "history" / NAME / "00000005.json").write_text("{}")


def damage_mark(world: OldWorld) -> None:
    storage.write_bytes(f"{world.workspace_uri}/accepted_snapshots/smoke/x--y.json", b"{}")


def keep_elsewhere(world: OldWorld) -> None:
    world.registry.set_registered_model_tag(NAME, "homefeed_workspace", "file:///other")


CASES: list[tuple[Callable[[OldWorld], None], type[HomefeedError]]] = [
    (silence, TrackingUnavailableError),
    (move_alias, RecordDisagreesError),
    (drop_alias, RecordDisagreesError),
    (damage, DataContractError),
    (damage_newest, DataContractError),
    (damage_mark, DataContractError),
    (keep_elsewhere, RecordDisagreesError),
]


@pytest.mark.parametrize("spoil, error", CASES, ids=[case[0].__name__ for case in CASES])
def test_nothing_is_deleted(
    world: OldWorld, spoil: Callable[[OldWorld], None], error: type[HomefeedError]
) -> None:
    spoil(world)
    before = look_of(world.workspace)
    with pytest.raises(error):
        world.delete()
    assert look_of(world.workspace) == before
    world.registry.is_down = False
    assert world.registry.deleted == []


def test_another_workspace_s_registry_deletes_nothing(world: OldWorld) -> None:
    world.registry.alias = None
    (world.workspace / "history").rename(world.folder / "lost")
    world.registry.alias = "6"
    with pytest.raises(RecordDisagreesError):
        world.delete()
    assert len(world.names("runs")) == 7


def test_no_workspace_is_an_error_and_none_is_made(world: OldWorld) -> None:
    with pytest.raises(HomefeedError, match="there is no workspace") as caught:
        world.plan(workspace=f"{world.workspace_uri}-of-nobody")
    assert caught.value.kind == ""
    assert not storage.exists(f"{world.workspace_uri}-of-nobody")


def test_the_newest_accepted_snapshot_is_kept_and_older_marks_keep_none(world: OldWorld) -> None:
    for number in ("1", "2"):
        uri = f"{world.workspace_uri}/snapshots/{snapshot_of(number)}"
        day = world.runs[number].as_of
        mark = AcceptedSnapshot(as_of=day, snapshot_uri=uri, recipe="smoke")
        place = f"{world.workspace_uri}/accepted_snapshots/smoke/{day:%Y-%m-%d}--{number * 12}.json"
        storage.write_model(place, mark)
    record = read_record(world.registry, world.workspace_uri, NAME)  # type: ignore[arg-type]
    assert record.references == {snapshot_of("2"): "smoke"}


def test_evidence_that_the_next_cycle_counts_keeps_its_run(world: OldWorld) -> None:
    """Of two judged cycles one was judged before the champion moved last, the other since."""
    moved_at = world.made_at("6")
    for number, days in (("1", -1), ("2", 1)):
        judged_at = moved_at + timedelta(days=days)
        cycle = evidence.JudgedCycle(
            run_id=name_of(number),
            run_uri=world.runs[number].run_uri,
            registered_model=NAME,
            as_of=world.runs[number].as_of,
            holdout=Window(start=moved_at, end=moved_at),
            judged_at=judged_at,
            first_judged_at=judged_at,
            challenger_recipe=smoke().recipe_digest,
            decision=Decision.INCONCLUSIVE,
            promoted=Promoted.NONE,
            may_promote=True,
        )
        folder = f"{world.workspace_uri}/judged/{NAME}"
        storage.write_model(f"{folder}/{cycle.run_id}--00000000.json", cycle)
    told = world.delete()
    assert f"run {name_of('1')}" in told and f"run {name_of('2')}" not in told
    assert world.names("runs")[0] == name_of("2")
    assert len(list((world.workspace / "judged" / NAME).iterdir())) == 2
