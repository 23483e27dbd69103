"""The record of accepted recipes: who moves it, what is on hold, and what cannot be read."""

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Standing
from pipelines.contracts.errors import (
    ConfigurationError,
    PromotionRefusedError,
    TransientStorageError,
)
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.registry import by_hand, registry
from pipelines.registry.history import recipe_of, recipe_of_model
from support.desk import CODE, Desk, at, variant
from support.runs import save_run


def recipe_moves(desk: Desk, *num_epochs: int) -> list[tuple[ResolvedRun, ModelRef]]:
    """Let a cycle of each recipe promote, a day after another, so that its recipe is accepted."""
    found = []
    for number, each in enumerate(num_epochs):
        run = save_run(desk.cycle(number, variant(each)))
        model = desk.register(run)
        for _ in range(2):  # as if the process had been killed before the manifest was written
            desk.promote(run, model, number, becomes_anchor=True)
        found.append((run, model))
    return found


def test_the_anchor_moves_only_where_the_verdict_says_so(desk: Desk) -> None:
    one = desk.cycle(0, variant(1))
    assert desk.standing(one) == Standing()
    desk.promote(one, becomes_anchor=True)
    found = desk.standing(one)
    assert (found.anchor, found.anchor_code_digest, found.champion_since) == (
        *(one.config, CODE),
        at(0),
    )
    desk.promote(desk.cycle(1, variant(2), standing=found), becomes_anchor=False, days=14)
    assert desk.standing(one).anchor == one.config  # a recipe may creep by small steps
    three = desk.cycle(2, variant(3), standing=found)
    desk.promote(three, becomes_anchor=True, days=28)
    assert desk.standing(one).anchor == three.config
    assert desk.kinds() == ["promotion"] * 3


@pytest.mark.parametrize("damage", ["gone", "an option that is no more", "edited", "elsewhere"])
def test_a_recipe_that_cannot_be_read_is_named_and_a_person_names_another(
    desk: Desk, damage: str
) -> None:
    """The alias was set by hand before there was a history, and a repair has recorded that."""
    run = save_run(desk.cycle(0))
    model = desk.register(run)
    desk.point_at(model.version)
    manifest = storage.local_path(manifest_uri(run.run_uri, "resolve_run"))
    if damage == "gone":
        manifest.unlink()
    elif damage == "elsewhere":
        tags = {"homefeed_run_id": f"../runs/{run.run_id}"}
        registry.tag_version(desk.client, model, tags)
    else:
        record = StageRecord.from_record(manifest.read_bytes())
        config = record.artifact["config"]
        option = {"num_towers": 3} if "option" in damage else {"num_layers": 7}
        changed = config | {"model": config["model"] | option}
        found = record.model_copy(update={"artifact": record.artifact | {"config": changed}})
        manifest.write_bytes((found.sealed() if "option" in damage else found).to_record())
    desk.mend()
    standing = desk.standing(run)
    assert standing.anchor is None
    assert "the accepted recipe is not known" in standing.problem
    assert "`homefeed anchor set --recipe NAME --reason ...`" in standing.problem
    by_hand.accept_recipe(*desk.where, recipe_of(run), at(1), "It is known again.")
    assert desk.standing(run).anchor == run.config


def test_a_rollback_moves_the_anchor_and_holds_what_was_taken_down(desk: Desk) -> None:
    (one, _), (two, _) = recipe_moves(desk, 1, 2)
    desk.rollback(why="hides went up")
    found, digest = desk.standing(two), two.config.recipe_digest
    assert found.anchor == one.config
    assert (found.champion_since, found.rolled_back_at) == (at(9), at(9))
    assert "hides went up" in found.hold and "homefeed anchor release" in found.hold
    assert desk.standing(one).hold == ""
    for wanted, reason, message in (
        ("eeee", "a slip", "'eeee' is not on hold"),
        (digest[:8], " ", "--reason is empty"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            by_hand.release_recipe(*desk.where, wanted, at(10), reason)
    for _ in range(2):  # The same command given again writes nothing.
        released = by_hand.release_recipe(*desk.where, digest[:8], at(10), "it was the log")
        assert released.held == ()
        by_hand.accept_recipe(*desk.where, recipe_of(one), at(10), "agreed on")
    assert (desk.standing(two).hold, desk.standing(two).anchor) == ("", one.config)
    assert desk.kinds() == ["promotion", "promotion", "rollback", "release"]


def test_a_rollback_that_is_taken_back_holds_the_other_recipe_alone(desk: Desk) -> None:
    (one, _), (two, second) = recipe_moves(desk, 1, 2)
    desk.rollback(why="hides went up")
    desk.rollback(second.version, days=10, why="it was not the recipe")
    assert (desk.standing(two).hold, desk.standing(two).anchor) == ("", two.config)
    assert "it was not the recipe" in desk.standing(one).hold
    desk.force(one, desk.register(one), 11, "we want it")
    assert desk.standing(one).hold == ""  # who forces a promotion has released the recipe


@pytest.mark.parametrize("change", ["accept", "release"])
def test_a_verdict_that_was_held_to_another_recipe_promotes_nothing(
    desk: Desk, change: str
) -> None:
    (_, first), (two, _) = recipe_moves(desk, 1, 2)
    desk.rollback()
    three = desk.cycle(2, variant(3))
    if change == "accept":
        chosen = recipe_of(desk.cycle(3, variant(7)))
        by_hand.accept_recipe(*desk.where, chosen, at(10), "agreed on")
    else:
        by_hand.release_recipe(*desk.where, two.config.recipe_digest, at(10), "agreed on")
    with pytest.raises(PromotionRefusedError, match="accepted recipes were changed .*'agreed on'"):
        desk.promote(three, becomes_anchor=True)
    assert desk.champion == first


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_a_rollback_to_a_model_whose_run_was_deleted_knows_its_recipe_by_the_history(
    desk: Desk, num_epochs: int
) -> None:
    """The recipe that serves again is not put on hold, though nothing of its cycle is left."""
    (one, first), (two, _) = recipe_moves(desk, 1, num_epochs)
    deletion.remove(one.run_uri)
    assert desk.rollback().model == first == desk.champion
    found = desk.standing(one)
    assert (found.anchor, found.problem, found.hold) == (variant(1), "", "")
    assert (desk.standing(two).hold != "") == (num_epochs == 2)


def test_a_recipe_is_read_from_the_cycle_that_a_version_names(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh anchor was made by the accepted recipe; its cycle's own is another one."""
    run = save_run(desk.cycle(0, variant(2), standing=Standing(anchor=variant(1))))
    model = desk.register(run)
    registry.tag_version(desk.client, model, {"homefeed_side": "anchor"})
    arguments = (run.workspace_uri, model, registry.read_tags(desk.client, model))
    assert recipe_of_model(*arguments).parse() == variant(1)

    def fail(*_: object) -> None:
        raise TransientStorageError("the bucket does not answer")

    monkeypatch.setattr(storage, "read_model", fail)
    with pytest.raises(TransientStorageError):  # It is no lost recipe.
        recipe_of_model(*arguments)
