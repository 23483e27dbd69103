"""Promotion by a cycle, against a real MLflow server."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import (
    DataContractError,
    PromotionRefusedError,
    TrackingUnavailableError,
)
from pipelines.contracts.judgement import Decision, Judgement, Promotion
from pipelines.registry import by_hand, history, promotion, registry, tracking
from pipelines.settings import Settings
from support.registered import (
    NO_ANCHOR,
    challenger_of,
    judgement_of,
    register_bundle,
)
from support.runs import make_run

pytestmark = pytest.mark.services
FIRST = datetime(2017, 6, 12, tzinfo=UTC)
SECOND = FIRST + timedelta(days=14)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return tracking.connect(tracking_uri)


def cycle(tmp_path: Path, tracking_uri: str, as_of: datetime, **overrides: object) -> ResolvedRun:
    name = f"ranker_{tmp_path.name}"
    return make_run(
        tmp_path,
        as_of=as_of,
        tracking_uri=tracking_uri,
        registered_model=name,
        experiment=name,
        **overrides,
    )


def promote(client: MlflowClient, run: ResolvedRun, folder: Path, now: datetime = NOW) -> Promotion:
    model = register_bundle(client, run, folder)
    return promotion.move_if_permitted(
        run, challenger_of(model), NO_ANCHOR, judgement_of(run, model), now
    )


def settings_of(run: ResolvedRun) -> Settings:
    return Settings(
        workspace=run.workspace_uri,
        tracking_uri=run.tracking_uri,
        registered_model=run.registered_model,
    )


def champion(client: MlflowClient, run: ResolvedRun) -> ModelRef | None:
    return registry.read_champion(client, run.registered_model)


def test_the_first_and_the_second_cycle(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    assert champion(client, run) is None
    first = promote(client, run, tmp_path)
    assert first.is_promoted
    assert champion(client, run) == first.champion_after
    later = cycle(tmp_path, tracking_uri, SECOND, champion=first.champion_after)
    second = promote(client, later, tmp_path, NOW + timedelta(days=14))
    assert second.champion_before == first.champion_after
    assert champion(client, run) == second.champion_after
    entries = [entry for _, entry in history.read(run.workspace_uri, run.registered_model)]
    assert [entry.model.version for entry in entries] == ["1", "2"]
    assert [entry.recipe for entry in entries] == [run.config.recipe_ref] * 2


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_without_promote_nothing_moves(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, decision: Decision
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    judgement = judgement_of(run, model, decision)
    done = promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judgement, NOW)
    assert not done.is_promoted
    assert str(decision) in done.reason
    assert champion(client, run) is None
    assert history.read(run.workspace_uri, run.registered_model) == []


def test_a_backfill_moves_nothing(tmp_path: Path, tracking_uri: str, client: MlflowClient) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST, may_promote=False)
    assert not promote(client, run, tmp_path).is_promoted
    assert champion(client, run) is None


def test_a_champion_that_moved_during_the_run_is_kept(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    other = promote(client, cycle(tmp_path, tracking_uri, FIRST, run_id="other"), tmp_path)
    found = "against entry 0 of .* entry 1 is the newest .entry 1: promotion of"
    with pytest.raises(PromotionRefusedError, match=found):
        promote(client, run, tmp_path)
    assert champion(client, run) == other.champion_after


def test_a_rollback_during_a_comparison_ends_its_promotion(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """Also one that brings back the very champion that the verdict compares with."""
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = promote(client, run, tmp_path).champion_after
    second = promote(client, cycle(tmp_path, tracking_uri, SECOND, champion=first), tmp_path)
    third = cycle(
        *(tmp_path, tracking_uri, SECOND + timedelta(days=14)),
        champion=second.champion_after,
        run_id="third",
    )
    by_hand.rollback(client, settings_of(run), None, NOW, "hides rose")
    by_hand.rollback(client, settings_of(run), "2", NOW, "it was the log")
    with pytest.raises(PromotionRefusedError, match="entry 3: rollback of .*; entry 4: rollback"):
        promote(client, third, tmp_path)
    assert champion(client, run) == second.champion_after


def test_an_older_as_of_is_never_promoted(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    newest = promote(client, cycle(tmp_path, tracking_uri, SECOND), tmp_path).champion_after
    run = cycle(tmp_path, tracking_uri, FIRST, champion=newest, run_id="older")
    with pytest.raises(PromotionRefusedError, match="is not newer than the champion's"):
        promote(client, run, tmp_path)
    assert champion(client, run) == newest


def test_a_verdict_about_another_model_is_refused(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    one = register_bundle(client, run, tmp_path)
    two = register_bundle(client, run, tmp_path)
    with pytest.raises(PromotionRefusedError, match="the verdict is about"):
        promotion.move_if_permitted(run, challenger_of(two), NO_ANCHOR, judgement_of(run, one), NOW)
    assert champion(client, run) is None


def test_registering_twice_makes_one_version(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    version = client.get_model_version(model.name, model.version)
    again = registry.register(client, run, model.mlflow_run_id, version.source, dict(version.tags))
    assert again == model
    alias = client.get_model_version_by_alias(run.registered_model, "challenger")
    assert str(alias.version) == model.version


def test_a_promotion_is_not_made_again_over_a_rollback(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = promote(client, run, tmp_path).champion_after
    later = cycle(tmp_path, tracking_uri, SECOND, champion=first)
    model = register_bundle(client, later, tmp_path)
    arguments = (later, challenger_of(model), NO_ANCHOR, judgement_of(later, model))
    promotion.move_if_permitted(*arguments, NOW)
    settings = settings_of(run)
    by_hand.rollback(client, settings, None, NOW + timedelta(days=1), "hides rose")
    with pytest.raises(PromotionRefusedError, match="took its place at .* hides rose"):
        promotion.move_if_permitted(*arguments, NOW + timedelta(days=2))
    assert champion(client, run) == first

    by_hand.rollback(client, settings, model.version, NOW + timedelta(days=3), "it was not it")
    assert promotion.move_if_permitted(*arguments, NOW + timedelta(days=4)).is_promoted
    assert len(history.read(run.workspace_uri, run.registered_model)) == 4


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_cycle_that_was_judged_anew_promotes_no_second_model(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, is_killed: bool
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = register_bundle(client, run, tmp_path, is_small=True)
    with pytest.MonkeyPatch.context() as patch:
        if is_killed:
            patch.setattr(registry, "point_champion_at", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError) if is_killed else contextlib.nullcontext():
            promotion.move_if_permitted(
                run, challenger_of(first), NO_ANCHOR, judgement_of(run, first), NOW
            )
    second = register_bundle(client, run, tmp_path, is_small=True)
    with pytest.raises(PromotionRefusedError, match="cycle promoted .* v1 at .* at most once"):
        promotion.move_if_permitted(
            run, challenger_of(second), NO_ANCHOR, judgement_of(run, second), NOW
        )
    assert champion(client, run) == first


def test_a_version_that_was_altered_after_the_verdict_is_refused(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    client.set_model_version_tag(model.name, model.version, "bundle_digest", "f" * 64)
    with pytest.raises(PromotionRefusedError, match="found bundle ffffffff"):
        promotion.move_if_permitted(
            run, challenger_of(model), NO_ANCHOR, judgement_of(run, model), NOW
        )
    assert champion(client, run) is None


def test_a_bundle_comes_back_as_it_was_registered(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    found = registry.download_bundle(client, model, tmp_path / "down")
    assert (found / "bundle.json").exists()
    altered = model.model_copy(update={"bundle_digest": "0" * 64})
    with pytest.raises(DataContractError, match="altered after registration"):
        registry.download_bundle(client, altered, tmp_path / "down2")


def test_a_bundle_that_was_altered_after_the_verdict_is_not_promoted(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """Its tags still say what was judged, and only its files tell."""
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    spoiled = tmp_path / "weights.safetensors"
    spoiled.write_bytes(b"of something else")
    client.log_artifact(model.mlflow_run_id, str(spoiled), "model/artifacts/bundle")
    with pytest.raises(DataContractError, match="altered after registration"):
        promotion.move_if_permitted(
            run, challenger_of(model), NO_ANCHOR, judgement_of(run, model), NOW
        )
    assert champion(client, run) is None
    assert history.read(run.workspace_uri, run.registered_model) == []


def test_code_that_was_altered_after_the_verdict_does_not_serve(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """The serving code is logged beside the bundle, and a serving process runs it."""
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path, is_logged=True)
    arguments = (run, challenger_of(model), NO_ANCHOR, judgement_of(run, model))
    altered = tmp_path / "serving_model.py"
    altered.write_text("print('and one more line')\n")
    logged = client.get_model_version(model.name, model.version).source
    client.log_model_artifact(logged.removeprefix("models:/"), str(altered))
    with pytest.raises(DataContractError, match="the digest of its model with its serving code is"):
        promotion.move_if_permitted(*arguments, NOW)
    assert champion(client, run) is None


def test_a_former_champion_with_altered_tags_does_not_come_back(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    first = register_bundle(client, run, tmp_path, is_logged=True)
    arguments = (run, challenger_of(first), NO_ANCHOR, judgement_of(run, first))
    promotion.move_if_permitted(*arguments, NOW)
    promote(client, cycle(tmp_path, tracking_uri, SECOND, champion=first), tmp_path)
    client.delete_model_version_tag(first.name, first.version, "model_digest")
    with pytest.raises(DataContractError, match="found bundle .* and model unknown in its tags"):
        by_hand.rollback(client, settings_of(run), None, NOW + timedelta(days=3), "back")


def test_a_foreign_version_behind_the_alias_is_refused(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    client.create_registered_model(run.registered_model)
    mlflow_run_id = tracking.open_run(client, run, "challenger", "made by hand")
    source = client.get_run(mlflow_run_id).info.artifact_uri + "/model"
    client.create_model_version(run.registered_model, source=source, run_id=mlflow_run_id)
    client.set_registered_model_alias(run.registered_model, "champion", "1")
    with pytest.raises(DataContractError, match="has no tags"):
        champion(client, run)


def test_mlflow_down_at_promotion_moves_nothing(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, unused_url: str
) -> None:
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    cut_off = run.model_copy(update={"tracking_uri": unused_url})
    with pytest.raises(TrackingUnavailableError, match="nothing was promoted"):
        promotion.move_if_permitted(
            cut_off, challenger_of(model), NO_ANCHOR, judgement_of(run, model), NOW
        )
    assert champion(client, run) is None
    assert history.read(run.workspace_uri, run.registered_model) == []


def test_a_verdict_that_was_edited_is_refused(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """Somebody turned REJECT into PROMOTE in the manifest; the registry keeps what was ruled."""
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    ruled = judgement_of(run, model, Decision.REJECT)
    registry.tag_version(client, model, {registry.RULING: ruled.ruling_digest})
    edited = judgement_of(run, model, Decision.PROMOTE)
    again = f"`homefeed stage compare_with_champion --run {run.run_uri} --again`"
    with pytest.raises(PromotionRefusedError, match=f"the manifest was edited.*{again}"):
        promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, edited, NOW)
    assert champion(client, run) is None


def test_a_comparison_made_again_that_left_its_tag_and_no_manifest_stops_no_promotion(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """It found the same, but for the figures of the serving check, which are measured anew."""
    run = cycle(tmp_path, tracking_uri, FIRST)
    model = register_bundle(client, run, tmp_path)
    judged, again = (as_measured(judgement_of(run, model), p50_ms) for p50_ms in (4.0, 4.1))
    registry.tag_version(client, model, {registry.RULING: again.ruling_digest})
    assert judged.verdict.reasons != again.verdict.reasons
    done = promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judged, NOW)
    assert done.is_promoted


def as_measured(judgement: Judgement, p50_ms: float) -> Judgement:
    serving = judgement.serving.model_copy(update={"latency_p50_ms": p50_ms})
    grounds = (*judgement.verdict.grounds, serving.figures)
    verdict = judgement.verdict.model_copy(update={"grounds": grounds})
    return judgement.model_copy(update={"serving": serving, "verdict": verdict})
