"""Promotion by a cycle: what its verdict may move, and what refuses it."""

import contextlib
from pathlib import Path

import pytest

from pipelines.contracts.errors import (
    DataContractError,
    PromotionRefusedError,
    TrackingUnavailableError,
)
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.registry import registry
from support.desk import Desk
from support.registered import judgement_of


def test_the_first_and_the_second_cycle(desk: Desk) -> None:
    run = desk.cycle(0)
    assert desk.champion is None
    first = desk.promote(run)
    assert first.is_promoted and desk.champion == first.champion_after
    second = desk.promote(desk.cycle(1), days=14)
    assert second.champion_before == first.champion_after
    assert desk.champion == second.champion_after
    entries = [entry for _, entry in desk.history.entries]
    assert [entry.model.version for entry in entries] == ["1", "2"]
    assert [entry.recipe for entry in entries] == [run.config.recipe_ref] * 2


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE, "a backfill"])
def test_without_a_permission_nothing_moves(desk: Desk, decision: str) -> None:
    run = desk.cycle(0, may_promote=decision != "a backfill")
    model = desk.register(run)
    asked = decision if isinstance(decision, Decision) else Decision.PROMOTE
    done = desk.promote(run, judgement=judgement_of(run, model, asked), model=model)
    assert not done.is_promoted and str(decision) in done.reason
    assert desk.champion is None and desk.history.placed == ()


def test_a_champion_that_moved_during_the_run_is_kept(desk: Desk) -> None:
    run = desk.cycle(0)
    other = desk.promote(desk.cycle(0, run_id="other"))
    with pytest.raises(
        PromotionRefusedError, match=r"against entry 0 of .* entry 1 is the newest .entry 1: promo"
    ):
        desk.promote(run)
    assert desk.champion == other.champion_after


def test_a_rollback_during_a_comparison_ends_its_promotion(desk: Desk) -> None:
    """Also one that brings back the very champion that the verdict compares with."""
    _, second = desk.promote_two()
    third = desk.cycle(2)
    desk.rollback()
    desk.rollback("2", why="it was the log")
    with pytest.raises(PromotionRefusedError, match="entry 3: rollback of .*; entry 4: rollback"):
        desk.promote(third)
    assert desk.champion == second


def test_an_older_as_of_and_a_verdict_about_another_model_are_refused(desk: Desk) -> None:
    newest = desk.promote(desk.cycle(1)).champion_after
    with pytest.raises(PromotionRefusedError, match="is not newer than the champion's"):
        desk.promote(desk.cycle(0))
    run = desk.cycle(2)
    one, two = desk.register(run), desk.register(run)
    with pytest.raises(PromotionRefusedError, match="in the verdict and .* in this run"):
        desk.promote(run, two, judgement=judgement_of(run, one))
    assert desk.champion == newest


def test_a_promotion_is_not_made_again_over_a_rollback(desk: Desk) -> None:
    first = desk.promote(desk.cycle(0)).champion_after
    later = desk.cycle(1)
    model = desk.register(later)
    desk.promote(later, model)
    desk.rollback()
    with pytest.raises(PromotionRefusedError, match="took its place at .* hides rose"):
        desk.promote(later, model)
    assert desk.champion == first
    desk.rollback(model.version, why="it was not it")
    assert desk.promote(later, model).is_promoted
    assert len(desk.history.placed) == 4


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_cycle_that_was_judged_anew_promotes_no_second_model(desk: Desk, is_killed: bool) -> None:
    run = desk.cycle(0)
    first = desk.register(run, is_small=True)
    with pytest.MonkeyPatch.context() as patch:
        if is_killed:
            patch.setattr(registry, "point_champion_at", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError) if is_killed else contextlib.nullcontext():
            desk.promote(run, first)
    second = desk.register(run, is_small=True)
    with pytest.raises(PromotionRefusedError, match="cycle promoted .* v1 at .* at most once"):
        desk.promote(run, second)
    assert desk.champion == first


@pytest.mark.parametrize("what", ["tags", "files", "code"])
def test_what_was_altered_after_the_verdict_is_not_promoted(
    desk: Desk, tmp_path: Path, what: str
) -> None:
    """Where only files were altered, the tags still say what was judged."""
    run = desk.cycle(0)
    model = desk.register(run, is_logged=what == "code")
    error, message = DataContractError, "altered after registration"
    if what == "tags":
        desk.client.set_model_version_tag(model.name, model.version, "bundle_digest", "f" * 64)
        error, message = PromotionRefusedError, "found bundle ffffffff"
    elif what == "files":
        spoiled = tmp_path / "weights.safetensors"
        spoiled.write_bytes(b"of something else")
        desk.client.log_artifact(model.mlflow_run_id, str(spoiled), "model/artifacts/bundle")
    else:  # It is logged beside the bundle, and a serving process runs it.
        altered = tmp_path / "serving_model.py"
        altered.write_text("print('and one more line')\n")
        logged = desk.client.get_model_version(model.name, model.version).source
        desk.client.log_model_artifact(logged.removeprefix("models:/"), str(altered))
        message = "the digest of its model with its serving code is"
    with pytest.raises(error, match=message):
        desk.promote(run, model)
    assert desk.champion is None and desk.history.placed == ()


def test_mlflow_down_at_promotion_moves_nothing(desk: Desk, unused_url: str) -> None:
    run = desk.cycle(0)
    model = desk.register(run)
    cut_off = run.model_copy(update={"tracking_uri": unused_url})
    with pytest.raises(TrackingUnavailableError, match="nothing was promoted"):
        desk.promote(cut_off, model)
    assert desk.champion is None and desk.history.placed == ()


def test_a_verdict_that_was_edited_is_refused(desk: Desk) -> None:
    """Somebody turned REJECT into PROMOTE in the manifest; the registry keeps what was ruled."""
    run = desk.cycle(0)
    model = desk.register(run)
    ruled = judgement_of(run, model, Decision.REJECT)
    registry.tag_version(desk.client, model, {registry.RULING: ruled.ruling_digest})
    again = f"`homefeed stage compare_with_champion --run {run.run_uri} --again`"
    with pytest.raises(PromotionRefusedError, match=f"the manifest was edited.*{again}"):
        desk.promote(run, model)
    assert desk.champion is None


def test_a_comparison_made_again_that_left_its_tag_and_no_manifest_stops_no_promotion(
    desk: Desk,
) -> None:
    """It found the same, but for the figures of the serving check, which are measured anew."""
    run = desk.cycle(0)
    model = desk.register(run)
    judged, again = (as_measured(judgement_of(run, model), p50_ms) for p50_ms in (4.0, 4.1))
    registry.tag_version(desk.client, model, {registry.RULING: again.ruling_digest})
    assert judged.verdict.reasons != again.verdict.reasons
    assert desk.promote(run, model, judgement=judged).is_promoted


def as_measured(judgement: Judgement, p50_ms: float) -> Judgement:
    serving = judgement.serving.model_copy(update={"latency_p50_ms": p50_ms})
    grounds = (*judgement.verdict.grounds, serving.figures)
    verdict = judgement.verdict.model_copy(update={"grounds": grounds})
    return judgement.model_copy(update={"serving": serving, "verdict": verdict})
