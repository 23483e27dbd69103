"""What people decide: rollbacks, forced moves and recipes; repairs are in test_reconcile.py."""

import contextlib
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Standing
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    PromotionRefusedError,
    RecordDisagreesError,
    TrackingEntryMissingError,
    TransientStorageError,
)
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.registry import history, moves, registry
from pipelines.registry.history import recipe_of, recipe_of_model
from pipelines.settings import Settings
from support.damage import flip_a_byte
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


def test_rollback_and_who_was_serving(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    desk.promote(desk.cycle(1), days=14)
    assert desk.rollback(days=15).model == first == desk.champion

    def serving(days: float) -> str:
        return history.serving_at(desk.history, at(days)).model.version

    assert [serving(0), serving(13.9), serving(14), serving(15)] == ["1", "1", "2", "1"]
    again = desk.rollback("1", days=16, why="again")
    assert (again.moved_at, again.reason) == (at(15), "hides rose")
    assert len(desk.history.entries) == 3


def test_a_forced_promotion_is_recorded_and_can_be_taken_back(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    later = desk.cycle(1)
    model = desk.register(later)
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        desk.force(later, model, 1, "  ")
    entry = desk.force(later, model, 1, "the log was late")
    assert (entry.kind, entry.previous, entry.reason) == ("forced", first, "the log was late")
    assert desk.champion == model
    assert desk.force(later, model, 2, "again") == entry
    assert desk.kinds() == ["promotion", "forced"]
    desk.rollback()
    assert desk.champion == first


def test_a_version_that_is_down_already_is_not_taken_down_twice(desk: Desk) -> None:
    first, second = desk.promote_two()
    for days in range(9, 12):
        found = desk.rollback(days=days, away=second.version)
        assert (found.model, found.moved_at) == (first, at(9))
    with pytest.raises(ConfigurationError, match="serves, and not v9"):
        desk.rollback(away="9")


def test_a_version_without_its_files_or_that_does_not_score_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    first, second = desk.promote_two()
    with pytest.raises(TrackingEntryMissingError, match="no version '99' .* expected one of 1, 2"):
        desk.rollback("99")
    golden = registry.download_bundle(desk.client, first, tmp_path / "down") / "golden.safetensors"
    flip_a_byte(golden)
    desk.client.log_artifact(first.mlflow_run_id, str(golden), "model/artifacts/bundle")
    with pytest.raises(DataContractError, match=r"v1.* altered after registration.*rollback --to"):
        desk.rollback()
    desk.client.delete_model_version_tag(first.name, first.version, "model_digest")
    with pytest.raises(PromotionRefusedError, match="found bundle .* and model unknown"):
        desk.rollback()
    assert desk.champion == second and len(desk.history.entries) == 2


def test_a_version_whose_example_rows_score_otherwise_stays_down(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.bundle import files

    def refuse(folder: Path) -> None:
        raise DataContractError(f"{folder.name} scores otherwise")

    _, second = desk.promote_two()
    monkeypatch.setattr(files, "load_bundle", refuse)
    with pytest.raises(DataContractError, match="v1 cannot serve, so the champion stays: bundle"):
        desk.rollback()
    assert desk.champion == second


def test_what_serves_by_a_promotion_is_neither_gone_back_to_nor_forced(desk: Desk) -> None:
    _, second = desk.promote_two()
    for act in (
        lambda: desk.rollback("2"),
        lambda: desk.force(desk.cycle(1), second, 9, "we want it"),
    ):
        with pytest.raises(ConfigurationError, match="v2 is the champion already"):
            act()
    desk.point_at("1")
    with pytest.raises(RecordDisagreesError, match="v1 serves, .* v2 does.*homefeed history"):
        desk.rollback()


def test_a_person_s_move_that_lost_its_number_is_decided_anew(desk: Desk) -> None:
    """Another cycle promotes while the rollback looks at its target."""
    _, second = desk.promote_two()
    third = desk.cycle(2)
    with pytest.MonkeyPatch.context() as patch:
        create = history.create

        def come_first(*arguments: object) -> history.History:
            patch.undo()
            patch.setattr(history, "promotion_lock", lambda place: contextlib.nullcontext())
            desk.promote(third)
            return create(*arguments)  # type: ignore[arg-type]

        patch.setattr(history, "create", come_first)
        entry = desk.rollback()
    found = desk.history.of_run(third.run_uri)
    assert found is not None and (entry.previous, entry.model) == (found.model, second)


def test_a_folder_without_a_workspace_is_refused(desk: Desk, tmp_path: Path) -> None:
    settings = Settings(workspace=str(tmp_path / "typo"), tracking_uri=desk.client.tracking_uri)
    with pytest.raises(ConfigurationError, match=r"there is no workspace at file:///.*typo"):
        moves.rollback(desk.client, settings, None, at(9), "hides rose")
    assert not (tmp_path / "typo").exists()


def test_the_anchor_moves_only_where_the_verdict_says_so(desk: Desk) -> None:
    one = desk.cycle(0, variant(1))
    assert desk.standing(one) == Standing()
    desk.promote(one, becomes_anchor=True)
    found = desk.standing(one)
    assert (found.anchor, found.anchor_code_digest) == (one.config, CODE)
    assert found.champion_since == at(0)
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
        registry.tag_version(desk.client, model, {"homefeed_run_id": f"../runs/{run.run_id}"})
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
    moves.accept_recipe(*desk.where, recipe_of(run), at(1), "It is known again.")
    assert desk.standing(run).anchor == run.config


def test_a_rollback_moves_the_anchor_and_holds_what_was_taken_down(desk: Desk) -> None:
    (one, _), (two, second) = recipe_moves(desk, 1, 2)
    desk.rollback(why="hides went up")
    found, digest = desk.standing(two), two.config.recipe_digest
    assert (found.anchor, found.champion_since, found.rolled_back_at) == (one.config, at(9), at(9))
    assert "hides went up" in found.hold and "homefeed anchor release" in found.hold
    assert desk.standing(one).hold == ""
    for wanted, reason, message in (
        ("eeee", "a slip", "'eeee' is not on hold"),
        (digest[:8], " ", "--reason is empty"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            moves.release_recipe(*desk.where, wanted, at(10), reason)
    for _ in range(2):  # The same command given again writes nothing.
        assert moves.release_recipe(*desk.where, digest[:8], at(10), "it was the log").held == ()
        moves.accept_recipe(*desk.where, recipe_of(one), at(10), "agreed on")
    assert (desk.standing(two).hold, desk.standing(two).anchor) == ("", one.config)
    assert desk.kinds() == ["promotion", "promotion", "rollback", "release"]
    # Taken back, the rollback holds the other recipe alone, until that is forced.
    desk.rollback(second.version, days=10, why="it was not the recipe")
    assert (desk.standing(two).hold, desk.standing(two).anchor) == ("", two.config)
    assert "it was not the recipe" in desk.standing(one).hold
    desk.force(one, desk.register(one), 11, "we want it")
    assert desk.standing(one).hold == ""


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
