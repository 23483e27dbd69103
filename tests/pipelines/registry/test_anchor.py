"""The record of accepted recipes: who moves it, what is on hold, and what cannot be read."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, Standing
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import manifest_uri
from pipelines.preconditions.record import require_record
from pipelines.recipes import smoke
from pipelines.registry import anchor, by_hand, history, promotion, registry, tracking
from pipelines.registry.standing import find_standing
from pipelines.settings import Settings
from support.registered import (
    NO_ANCHOR,
    challenger_of,
    judgement_of,
    register_bundle,
    write_former_entry,
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
    place, name = run.workspace_uri, run.registered_model
    return find_standing(client, place, serves, name, run.config, ())


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
    kinds = [entry.kind for entry in anchor.read(one.workspace_uri, one.registered_model)]
    assert kinds == ["promotion", "promotion"]


def test_a_champion_of_before_the_record_becomes_the_anchor_and_stays_it(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = registered(client, one, tmp_path)
    registry.point_champion_at(client, first)
    write_former_entry(one, first, NOW - timedelta(days=1))
    assert standing_of(client, one).anchor == one.config

    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    promote(client, two, tmp_path, becomes_anchor=False)
    assert standing_of(client, two).anchor == one.config
    [entry] = anchor.read(one.workspace_uri, one.registered_model)
    assert entry.kind == "adopted" and first.label in entry.reason


@pytest.mark.parametrize("damage", ["gone", "an option that is no more"])
def test_a_recipe_that_cannot_be_read_is_named_and_a_person_names_another(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, damage: str
) -> None:
    run = cycle(tmp_path, tracking_uri, 0, variant(1))
    registry.point_champion_at(client, registered(client, run, tmp_path))
    manifest = storage.local_path(manifest_uri(run.run_uri, "resolve_run"))
    if damage == "gone":
        manifest.unlink()
    else:
        record = json.loads(manifest.read_text())
        record["artifact"]["config"]["model"]["num_towers"] = 3
        manifest.write_text(json.dumps(record))
    found = standing_of(client, run)
    assert found.anchor is None
    assert "the accepted recipe is not known" in found.problem
    assert "`homefeed anchor set --recipe NAME --reason ...`" in found.problem

    named = anchor.recipe_of(run)
    now = datetime.now(UTC)
    anchor.set_by_hand(run.workspace_uri, run.registered_model, named, now, "It is known again.")
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
        anchor.release(*place, "eeee", back, "a slip")
    with pytest.raises(ConfigurationError, match="--reason is empty"):
        anchor.release(*place, digest[:8], back, " ")
    anchor.release(*place, digest[:8], back + timedelta(days=1), "the hides were a logging fault")
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


def test_killed_between_the_alias_and_the_record_a_promotion_is_completed(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cycle(tmp_path, tracking_uri, 0, variant(1))
    with monkeypatch.context() as patch:
        patch.setattr(anchor, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            promote(client, run, tmp_path, becomes_anchor=True)
    assert standing_of(client, run).anchor == run.config  # by the champion's own recipe
    model = registry.read_champion(client, run.registered_model)
    assert model is not None
    judgement = judged(run, model, becomes_anchor=True)
    promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judgement, NOW)
    assert standing_of(client, run).anchor == run.config
    assert len(history.read(run.workspace_uri, run.registered_model)) == 1


def test_a_rollback_that_was_killed_before_the_alias_moved_empties_the_pools_already(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    promote(client, two, tmp_path, True, NOW + timedelta(days=1))
    back = NOW + timedelta(days=2)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "point_champion_at", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            by_hand.rollback(client, settings_of(one), None, back, "hides went up")
    found = standing_of(client, two)
    assert (found.anchor, found.rolled_back_at) == (one.config, back)
    assert by_hand.rollback(client, settings_of(one), None, back, "hides went up").model == first


def test_a_rollback_that_is_ended_after_a_person_named_a_recipe_still_holds_the_other_one(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the time at which it was begun; what was recorded last is what holds."""
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    promote(client, two, tmp_path, False, NOW + timedelta(days=1))
    back = NOW + timedelta(days=2)
    with monkeypatch.context() as patch:
        patch.setattr(anchor, "after_rollback", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            by_hand.rollback(client, settings_of(one), None, back, "hides went up")
    place = (one.workspace_uri, one.registered_model)
    named = anchor.recipe_of(cycle(tmp_path, tracking_uri, 28, variant(7)))
    anchor.set_by_hand(*place, named, back + timedelta(hours=1), "agreed on")
    again = back + timedelta(hours=2)
    assert by_hand.rollback(client, settings_of(one), None, again, "hides went up").model == first
    kinds = [entry.kind for entry in anchor.read(*place)]
    assert kinds == ["promotion", "by_hand", "rollback"]
    assert "hides went up" in standing_of(client, two).hold


def test_a_clock_that_was_set_back_changes_no_order(tmp_path: Path, tracking_uri: str) -> None:
    run = cycle(tmp_path, tracking_uri, 0, variant(1))
    place = (run.workspace_uri, run.registered_model)
    for number, minutes in enumerate((0, -60, -30)):
        named = anchor.recipe_of(cycle(tmp_path, tracking_uri, number, variant(number + 1)))
        anchor.set_by_hand(*place, named, NOW + timedelta(minutes=minutes), f"choice {number}")
    reasons = [entry.reason for entry in anchor.read(*place)]
    assert reasons == ["choice 0", "choice 1", "choice 2"]
    assert [entry.set_at for entry in anchor.read(*place)][1] == NOW - timedelta(minutes=60)


@pytest.mark.parametrize("meanwhile", ["nothing", "a person names a recipe", "the alias is moved"])
def test_whoever_settles_a_promotion_records_the_recipe_that_it_accepts(
    tmp_path: Path,
    tracking_uri: str,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: str,
) -> None:
    """The cycle was killed after the alias had moved, and is not given again."""
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    standing = standing_of(client, one)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first, standing=standing)
    model = registered(client, two, tmp_path)
    judgement, later = judged(two, model, becomes_anchor=True), NOW + timedelta(days=1)
    place = (two.workspace_uri, two.registered_model)
    killed_in = (anchor, "append") if "person" in meanwhile else (history, "settle")
    with monkeypatch.context() as patch:
        patch.setattr(*killed_in, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            promotion.move_if_permitted(two, challenger_of(model), NO_ANCHOR, judgement, later)
    expected = {"nothing": two.config, "the alias is moved": one.config}
    if "person" in meanwhile:
        named = anchor.recipe_of(cycle(tmp_path, tracking_uri, 28, variant(7)))
        anchor.set_by_hand(*place, named, later + timedelta(hours=1), "agreed on")
    if "alias" in meanwhile:
        registry.point_champion_at(client, first)
    require_record(client, *place, later + timedelta(hours=2))
    assert history.load(*place).pending is None
    assert standing_of(client, two).anchor == expected.get(meanwhile, variant(7))


def test_what_a_person_accepts_during_a_cycle_is_not_overwritten(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    standing = standing_of(client, one)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first, standing=standing)
    chosen = anchor.recipe_of(cycle(tmp_path, tracking_uri, 28, variant(7)))
    later = NOW + timedelta(days=1)
    anchor.set_by_hand(one.workspace_uri, one.registered_model, chosen, later, "agreed on")
    promote(client, two, tmp_path, True, NOW + timedelta(days=2))
    assert standing_of(client, two).anchor == variant(7)


def test_storage_that_fails_for_a_minute_is_no_lost_recipe(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cycle(tmp_path, tracking_uri, 0, variant(1))
    model = registered(client, run, tmp_path)

    def fail(*_: object) -> None:
        raise TransientStorageError("the bucket does not answer")

    monkeypatch.setattr(storage, "read_model", fail)
    with pytest.raises(TransientStorageError):
        anchor.recipe_of_model(run.workspace_uri, model, registry.read_tags(client, model))


def test_a_rollback_does_not_wait_for_a_recipe_that_cannot_be_read(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    one = cycle(tmp_path, tracking_uri, 0, variant(1))
    first = promote(client, one, tmp_path, becomes_anchor=True)
    two = cycle(tmp_path, tracking_uri, 14, variant(2), champion=first)
    promote(client, two, tmp_path, becomes_anchor=False, now=NOW + timedelta(days=1))
    storage.local_path(manifest_uri(one.run_uri, "resolve_run")).unlink()

    entry = by_hand.rollback(client, settings_of(one), None, NOW + timedelta(days=2), "bad")
    assert entry.model == first == registry.read_champion(client, one.registered_model)
    assert "the accepted recipe is not known" in standing_of(client, two).problem


def test_a_fresh_anchor_that_serves_was_made_by_the_recipe_that_was_accepted(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """Its cycle's own recipe is another one, which must not become the anchor by a rollback."""
    accepted = variant(1)
    run = cycle(tmp_path, tracking_uri, 0, variant(2), standing=Standing(anchor=accepted))
    model = registered(client, run, tmp_path)
    registry.tag_version(client, model, {"homefeed_side": "anchor"})
    recipe = anchor.recipe_of_model(run.workspace_uri, model, registry.read_tags(client, model))
    assert recipe.parse() == accepted
