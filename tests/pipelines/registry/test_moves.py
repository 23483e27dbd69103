"""What people decide: rollbacks, forced moves and recipes; repairs are in test_reconcile.py."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Standing
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    PromotionRefusedError,
    RecordDisagreesError,
    TrackingEntryMissingError,
)
from pipelines.registry import evidence, history, moves, registry
from pipelines.registry.history import Recipes, recipe_of
from pipelines.settings import Settings
from support.damage import flip_a_byte
from support.desk import CODE, Desk, at, record_move, variant
from support.evidence import publish_evidence
from training.bundle import files


def recipe_moves(desk: Desk, *num_epochs: int) -> list[tuple[ResolvedRun, ModelRef]]:
    """Let a cycle of each recipe promote, a day after another, so that its recipe is accepted."""
    found = []
    for number, each in enumerate(num_epochs):
        run = desk.cycle(number, variant(each))
        model = desk.register(run)
        for _ in range(2):  # as if the process had been killed before the manifest was written
            desk.promote(run, model, number, becomes_anchor=True)
        found.append((run, model))
    return found


def spoil_files(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    model = desk.history.moves[0].model
    golden = registry.download_bundle(desk.client, model, desk.folder) / "golden.safetensors"
    flip_a_byte(golden)
    desk.client.log_artifact(model.mlflow_run_id, str(golden), "model/artifacts/bundle")


def score_otherwise(_: Desk, patch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise DataContractError(f"{folder.name} scores otherwise")

    patch.setattr(files, "load_bundle", refuse)


def nothing(*_: object) -> None:
    """Nothing happened."""


def drop_tag(desk: Desk, _: object) -> None:
    desk.client.delete_model_version_tag(desk.name, "1", "model_digest")


def force_champion(desk: Desk) -> None:
    desk.force(desk.cycle(1), desk.champion, 9, "we want it")


BACK = Desk.rollback
NOT_BACK: dict[str, tuple[Callable[..., object], Callable[[Desk], object], type, str]] = {
    # what happened after two promotions, what is asked for, and the refusal
    "gone": (nothing, lambda d: d.rollback("99"), TrackingEntryMissingError, "no version '99'"),
    "other files": (spoil_files, BACK, DataContractError, "v1.* altered after.*rollback --to"),
    "other tags": (drop_tag, BACK, PromotionRefusedError, "found bundle .* and model unknown"),
    "other scores": (score_otherwise, BACK, DataContractError, "v1 cannot serve, so .*otherwise"),
    "serves": (nothing, lambda d: d.rollback("2"), ConfigurationError, "v2 is the champion alre"),
    "forced": (nothing, force_champion, ConfigurationError, "v2 is the champion already"),
    "another": (nothing, lambda d: d.rollback(away="9"), ConfigurationError, "serves, and not v9"),
    "a hand": (lambda d, _: d.point_at("1"), BACK, RecordDisagreesError, "v1 serves, .* v2 does"),
    "no reason": (nothing, lambda d: d.rollback(why=" "), ConfigurationError, "reason is empty"),
}


@pytest.mark.parametrize("what", NOT_BACK)
def test_what_cannot_be_gone_back_to_moves_nothing(
    two: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    happen, act, error, message = NOT_BACK[what]
    assert issubclass(error, HomefeedError)
    happen(two, monkeypatch)
    serves = two.state.serves
    with pytest.raises(error, match=message):
        act(two)
    assert two.state.serves == serves and len(two.history.entries) == 2


def test_rollback_and_who_was_serving(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    desk.promote(desk.cycle(1), days=14)
    assert desk.rollback(days=15).model == first == desk.champion

    def serving(days: float) -> str:
        return history.serving_at(desk.history, at(days)).model.version

    assert [serving(0), serving(13.9), serving(14), serving(15)] == ["1", "1", "2", "1"]
    for asked in ({"to": "1"}, {"away": "2"}, {}):  # It is down already.
        again = desk.rollback(days=16, why="again", **asked)
        assert (again.moved_at, again.reason) == (at(15), "hides rose")
    assert len(desk.history.entries) == 3


def test_a_forced_promotion_is_recorded_and_can_be_taken_back(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    later = desk.cycle(1)
    model = desk.register(later)
    entry = desk.force(later, model, 1, "the log was late")
    assert (entry.kind, entry.previous, entry.reason) == ("forced", first, "the log was late")
    assert desk.champion == model
    assert desk.force(later, model, 2, "again") == entry
    assert desk.kinds() == ["promotion", "forced"]
    desk.rollback()
    assert desk.champion == first


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
    assert [each.recipe.parse() for each in desk.history.moves] == [variant(n) for n in (1, 2, 3)]


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
            desk.release(wanted, reason)
    for _ in range(2):  # The same command given again writes nothing.
        assert desk.release(digest[:8]).held == ()
        desk.accept(one)
    assert (desk.standing(two).hold, desk.standing(two).anchor) == ("", one.config)
    assert desk.kinds() == ["promotion", "promotion", "rollback", "release"]
    # Taken back, the rollback holds the other recipe alone, until that is forced.
    desk.rollback(second.version, days=10, why="it was not the recipe")
    assert (desk.standing(two).hold, desk.standing(two).anchor) == ("", two.config)
    assert "it was not the recipe" in desk.standing(one).hold
    desk.force(one, desk.register(one), 11, "we want it")
    assert desk.standing(one).hold == ""


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_the_history_alone_knows_the_recipe_of_what_serves_again(
    desk: Desk, num_epochs: int
) -> None:
    """No cycle's folder is asked; the same recipe is not put on hold."""
    (one, first), (two, _) = recipe_moves(desk, 1, num_epochs)
    assert desk.rollback().model == first == desk.champion
    found = desk.standing(one)
    assert (found.anchor, found.problem, found.hold) == (variant(1), "", "")
    assert (desk.standing(two).hold != "") == (num_epochs == 2)
    assert desk.history.moves[-1].recipe == recipe_of(one)


def test_a_clock_years_ahead_hides_no_later_evidence_from_a_cycle(desk: Desk) -> None:
    """What was judged since the champion came counts as from the move before, not in ten years."""
    desk.promote_two()
    run = desk.cycle(2)
    desk.promote(run, days=3650)
    assert desk.standing(run).champion_since == at(1)
    later = desk.cycle(3)
    desk.rollback(days=3651)
    assert desk.standing(later).rolled_back_at == at(1)


@pytest.mark.parametrize(("entry", "is_after"), [(2, False), (3, True)])
@pytest.mark.parametrize("days", [-3650, 3650])
def test_evidence_counts_by_the_history_s_numbers_and_not_by_its_writer_s_clock(
    desk: Desk, entry: int, is_after: bool, days: int
) -> None:
    desk.promote_two()
    desk.rollback(days=3)
    run = desk.cycle(2)
    bundle = desk.champion.bundle_digest
    uri = publish_evidence(run, judged_at=at(days), entry=entry, champion_bundle=bundle)
    pinned = evidence.pin(run.workspace_uri, run.registered_model, but="")
    assert [file.uri for file in pinned] == [uri]
    found = evidence.find_standing(desk.history, desk.champion, run.config, pinned)
    assert bool(found.unpromoted) == is_after
    standing = found.model_copy(update={"anchor": None, "anchor_code_digest": ""})
    run = run.model_copy(update={"standing": standing, "champion": desk.champion})
    for pair in ("theta", "delta"):
        assert bool(evidence.earlier_changes(run, evidence.read(pinned), pair)) == is_after


def test_a_recipe_that_is_not_known_or_cannot_be_read_waits_for_a_person(desk: Desk) -> None:
    """The alias was set by hand before there was a history, and a repair has recorded that."""
    run = desk.cycle(0)
    desk.point_at(desk.register(run).version)
    desk.mend()
    config = run.config.model_dump(mode="json")
    old = recipe_of(run).model_copy(update={"config": config | {"num_towers": 3}})
    for recipe in (None, old):
        if recipe is not None:
            entry = history.Entry(moved_at=at(1), kind="by_hand", reason="of other code")
            record_move(*desk.where[:1], entry, desk.name, Recipes(accepted=recipe))
        standing = desk.standing(run)
        assert standing.anchor is None and "the accepted recipe is not known" in standing.problem
        assert "`homefeed anchor set --recipe NAME --reason ...`" in standing.problem
    desk.accept(run)
    assert desk.standing(run).anchor == run.config
