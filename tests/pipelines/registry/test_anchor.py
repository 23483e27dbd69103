"""The record of accepted recipes: who moves it, what is on hold, and what cannot be read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Standing
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    PromotionRefusedError,
    TransientStorageError,
)
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.recipes import smoke
from pipelines.registry import by_hand, history, promotion, registry, tracking
from pipelines.registry.by_hand import plan, repair
from pipelines.registry.recipes_on_record import recipe_of, recipe_of_model
from pipelines.registry.reconcile import look
from pipelines.registry.standing import find_standing
from pipelines.settings import Settings
from support.registered import (
    NO_ANCHOR,
    challenger_of,
    judgement_of,
    register_bundle,
)
from support.runs import make_run, save_run

pytestmark = pytest.mark.services
FIRST = datetime(2017, 6, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CODE = "c" * 64


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return tracking.connect(tracking_uri)


def variant(num_epochs: int) -> RunConfig:
    training = smoke().training.model_copy(update={"num_epochs": num_epochs})
    return smoke().model_copy(update={"training": training})


def cycle(
    tmp_path: Path, tracking_uri: str, day: int, config: RunConfig, **more: Any
) -> ResolvedRun:
    name = f"ranker_{tmp_path.name}"
    as_of = FIRST + timedelta(days=day)
    run = make_run(
        tmp_path,
        config,
        as_of,
        tracking_uri=tracking_uri,
        registered_model=name,
        experiment=name,
        code_digest=CODE,
        **more,
    )
    return save_run(run)


def registered(client: MlflowClient, run: ResolvedRun, folder: Path) -> ModelRef:
    """Return a registered model with the tags that `train_challenger` gives it."""
    model = register_bundle(client, run, folder)
    tags = {"homefeed_run_id": run.run_id, "homefeed_side": "challenger", "code_digest": CODE}
    registry.tag_version(client, model, tags)
    return model


def judged(run: ResolvedRun, model: ModelRef, becomes_anchor: bool) -> Judgement:
    judgement = judgement_of(run, model)
    verdict = judgement.verdict.model_copy(update={"becomes_anchor": becomes_anchor})
    return judgement.model_copy(update={"verdict": verdict})


def promote(
    client: MlflowClient, run: ResolvedRun, folder: Path, becomes_anchor: bool, now: datetime = NOW
) -> ModelRef:
    model = registered(client, run, folder)
    judgement = judged(run, model, becomes_anchor)
    for _ in range(2):  # as if the process had been killed before the manifest was written
        promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judgement, now)
    return model


def standing_of(client: MlflowClient, run: ResolvedRun) -> Standing:
    serves = registry.read_champion(client, run.registered_model)
    known = history.load(run.workspace_uri, run.registered_model)
    return find_standing(known, run.workspace_uri, serves, run.config, ())


def kinds(run: ResolvedRun) -> list[str]:
    known = history.load(run.workspace_uri, run.registered_model)
    return [placed.entry.event.kind for placed in known.placed]


def settings_of(run: ResolvedRun) -> Settings:
    return Settings(
        workspace=run.workspace_uri,
        registered_model=run.registered_model,
        tracking_uri=run.tracking_uri,
    )


def test_the_anchor_moves_only_where_the_verdict_says_so(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    assert standing_of(client, one) == Standing()
    first = promote(client, one, tmp_path, becomes_anchor=True)
    found = standing_of(client, one)
    assert (found.anchor, found.anchor_code_digest, found.champion_since) == (one.config, CODE, NOW)

    of_now = {"champion": first, "standing": found}
    two = cycle(tmp_path, tracking_uri, 14, variant(2), **of_now)
    second = promote(client, two, tmp_path, False, NOW + timedelta(days=14))
    assert standing_of(client, two).anchor == one.config  # a recipe may creep by small steps

    three = cycle(tmp_path, tracking_uri, 28, variant(3), champion=second, standing=found)
    promote(client, three, tmp_path, becomes_anchor=True, now=NOW + timedelta(days=28))
    assert standing_of(client, three).anchor == three.config
    assert kinds(one) == ["promotion"] * 3


@pytest.mark.parametrize("damage", ["gone", "an option that is no more", "edited", "elsewhere"])
def test_a_recipe_that_cannot_be_read_is_named_and_a_person_names_another(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, damage: str
) -> None:
    """The alias was set by hand before there was a history, and a repair has recorded that."""
    run = cycle(tmp_path, tracking_uri, 0, variant(1))
    model = registered(client, run, tmp_path)
    registry.point_champion_at(client, model)
    manifest = storage.local_path(manifest_uri(run.run_uri, "resolve_run"))
    if damage == "gone":
        manifest.unlink()
    elif damage == "elsewhere":
        registry.tag_version(client, model, {"homefeed_run_id": f"../runs/{run.run_id}"})
    else:
        record = StageRecord.from_record(manifest.read_bytes())
        config = record.artifact["config"]
        option = {"num_towers": 3} if "option" in damage else {"num_layers": 7}
        changed = config | {"model": config["model"] | option}
        found = record.model_copy(update={"artifact": record.artifact | {"config": changed}})
        manifest.write_bytes((found.sealed() if "option" in damage else found).to_record())
    where = (client, run.workspace_uri, run.registered_model)
    state = look(*where)
    repair(client, state, plan(client, state, False), NOW, "it serves")
    found = standing_of(client, run)
    assert found.anchor is None
    assert "the accepted recipe is not known" in found.problem
    assert "`homefeed anchor set --recipe NAME --reason ...`" in found.problem

    by_hand.accept_recipe(*where[1:], recipe_of(run), datetime.now(UTC), "It is known again.")
    assert standing_of(client, run).anchor == run.config


def test_a_rollback_moves_the_anchor_and_holds_what_was_taken_down(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    promote(client, two, tmp_path, becomes_anchor=True, now=NOW + timedelta(days=1))

    back = NOW + timedelta(days=2)
    by_hand.rollback(client, settings_of(one), None, back, "hides went up")
    found = standing_of(client, two)
    assert found.anchor == one.config
    assert (found.champion_since, found.rolled_back_at) == (back, back)
    assert "hides went up" in found.hold and "homefeed anchor release" in found.hold
    assert standing_of(client, one).hold == ""

    digest = two.config.recipe_digest
    place = (one.workspace_uri, one.registered_model)
    with pytest.raises(ConfigurationError, match="'eeee' is not on hold"):
        by_hand.release_recipe(*place, "eeee", back, "a slip")
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        by_hand.release_recipe(*place, digest[:8], back, " ")
    by_hand.release_recipe(
        *place, digest[:8], back + timedelta(days=1), "the hides were a logging fault"
    )
    assert standing_of(client, two).hold == ""
    assert standing_of(client, two).anchor == one.config


def test_a_rollback_that_is_taken_back_holds_the_other_recipe_alone(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    second = promote(client, two, tmp_path, True, NOW + timedelta(days=1))
    settings = settings_of(one)
    by_hand.rollback(client, settings, None, NOW + timedelta(days=2), "hides went up")
    by_hand.rollback(
        client, settings, second.version, NOW + timedelta(days=3), "it was not the recipe"
    )
    assert standing_of(client, two).hold == ""
    assert standing_of(client, two).anchor == two.config
    assert "it was not the recipe" in standing_of(client, one).hold

    model = registered(client, one, tmp_path)
    by_hand.force(client, one, challenger_of(model), NOW + timedelta(days=4), "we want it")
    assert standing_of(client, one).hold == ""  # who forces a promotion has released the recipe


@pytest.mark.parametrize("change", ["accept", "release"])
def test_a_verdict_that_was_held_to_another_recipe_promotes_nothing(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, change: str
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    second = promote(client, two, tmp_path, True, NOW + timedelta(days=1))
    by_hand.rollback(client, settings_of(one), None, NOW + timedelta(days=2), "hides went up")
    three = cycle(tmp_path, tracking_uri, 28, variant(3), champion=first)
    where = (one.workspace_uri, one.registered_model)
    if change == "accept":
        chosen = recipe_of(cycle(tmp_path, tracking_uri, 42, variant(7)))
        by_hand.accept_recipe(*where, chosen, NOW, "agreed on")
    else:
        by_hand.release_recipe(*where, two.config.recipe_digest, NOW, "agreed on")
    with pytest.raises(PromotionRefusedError, match="accepted recipes were changed .*'agreed on'"):
        promote(client, three, tmp_path, True, NOW + timedelta(days=3))
    assert registry.read_champion(client, one.registered_model) == first != second


def test_the_same_command_about_recipes_given_again_writes_nothing(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    promote(client, cycle(tmp_path, tracking_uri, 14, variant(2), champion=first), tmp_path, True)
    by_hand.rollback(client, settings_of(one), None, NOW, "hides went up")
    where, digest = (one.workspace_uri, one.registered_model), variant(2).recipe_digest
    for _ in range(2):
        assert by_hand.release_recipe(*where, digest, NOW, "it was the log").held == ()
    for _ in range(2):
        by_hand.accept_recipe(*where, recipe_of(one), NOW, "agreed on")
    assert kinds(one) == ["promotion", "promotion", "rollback", "release"]


def test_storage_that_fails_for_a_minute_is_no_lost_recipe(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cycle(tmp_path, tracking_uri, 0, variant(1))
    model = registered(client, run, tmp_path)

    def fail(*_: object) -> None:
        raise TransientStorageError("the bucket does not answer")

    monkeypatch.setattr(storage, "read_model", fail)
    with pytest.raises(TransientStorageError):
        recipe_of_model(run.workspace_uri, model, registry.read_tags(client, model))


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_a_rollback_to_a_model_whose_run_was_deleted_knows_its_recipe_by_the_history(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, num_epochs: int
) -> None:
    """The recipe that serves again is not put on hold, though nothing of its cycle is left."""
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(num_epochs), champion=first)
    promote(client, two, tmp_path, becomes_anchor=False, now=NOW + timedelta(days=1))
    deletion.remove(one.run_uri)

    entry = by_hand.rollback(client, settings_of(one), None, NOW + timedelta(days=2), "bad")
    assert entry.model == first == registry.read_champion(client, one.registered_model)
    found = standing_of(client, one)
    assert (found.anchor, found.problem, found.hold) == (variant(1), "", "")
    assert (standing_of(client, two).hold != "") == (num_epochs == 2)


def test_a_fresh_anchor_that_serves_was_made_by_the_recipe_that_was_accepted(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """Its cycle's own recipe is another one, which must not become the anchor by a rollback."""
    accepted = variant(1)
    run = cycle(tmp_path, tracking_uri, 0, variant(2), standing=Standing(anchor=accepted))
    model = registered(client, run, tmp_path)
    registry.tag_version(client, model, {"homefeed_side": "anchor"})
    recipe = recipe_of_model(run.workspace_uri, model, registry.read_tags(client, model))
    assert recipe.parse() == accepted
