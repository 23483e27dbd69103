"""Promotion by a cycle: what its verdict may move, what a person must have said, what refuses it.

Of two workspaces that make one registered model at once, one is named by it and may promote.
"""

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import (
    DataContractError,
    HomefeedError,
    PromotionRefusedError,
    RecordDisagreesError,
    TrackingUnavailableError,
)
from pipelines.contracts.judgement import Approval, Decision, Judgement, Promotion
from pipelines.contracts.run_layout import approval_uri
from pipelines.recipes import smoke
from pipelines.registry import moves, registry
from pipelines.registry.history import recipe_of
from pipelines.stages.runner import read_artifact, run_stage
from support.desk import Desk, at, variant
from support.registered import NO_ANCHOR, challenger_of, judgement_of, promote_bundle
from support.runs import make_run, save_artifact, save_run


def test_the_first_and_the_second_cycle(desk: Desk) -> None:
    run = desk.cycle(0)
    assert desk.champion is None
    first = desk.promote(run)
    second = desk.promote(desk.cycle(1), days=14)
    assert first.is_promoted and second.champion_before == first.champion_after
    assert desk.champion == second.champion_after
    assert [entry.model.version for entry in desk.history.moves] == ["1", "2"]
    assert [entry.recipe.parse() for entry in desk.history.moves] == [run.config] * 2
    assert second.history_uri == desk.history.uri_of(2) and storage.exists(second.history_uri)


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE, "a backfill"])
def test_without_a_permission_nothing_moves(desk: Desk, decision: str) -> None:
    run = desk.cycle(0, may_promote=decision != "a backfill")
    model = desk.register(run)
    asked = decision if isinstance(decision, Decision) else Decision.PROMOTE
    done = desk.promote(run, judgement=judgement_of(run, model, asked), model=model)
    assert not done.is_promoted and str(decision) in done.reason
    assert desk.champion is None and desk.history.entries == ()


def spoil_tags(desk: Desk, run: ResolvedRun, model: ModelRef) -> None:
    desk.client.set_model_version_tag(model.name, model.version, "bundle_digest", "f" * 64)


def spoil_files(desk: Desk, run: ResolvedRun, model: ModelRef) -> None:
    """The tags still say what was judged."""
    spoiled = desk.folder / "weights.safetensors"
    spoiled.write_text("of something else")
    desk.client.log_artifact(model.mlflow_run_id, str(spoiled), "model/artifacts/bundle")


def roll_back_and_forth(desk: Desk, *_: object) -> None:
    desk.rollback("2", why="it was the log")
    desk.rollback("1", why="it was not")


def release(desk: Desk, *_: object) -> None:
    digest = desk.history.recipes.held[0].recipe.digest
    moves.release_recipe(*desk.where, digest, at(10), "agreed on")


def accept(desk: Desk, *_: object) -> None:
    moves.accept_recipe(*desk.where, recipe_of(desk.cycle(3, variant(7))), at(10), "agreed on")


DECIDED = "against entry 3 of .* is the newest .{}"
REFUSED: dict[str, tuple[Callable[..., object], type[HomefeedError], str]] = {
    "another promotion": (
        lambda desk, *_: desk.promote(desk.cycle(2, run_id="other")),
        *(PromotionRefusedError, DECIDED.format("promotion, ")),
    ),
    # Not even where the very champion that the verdict compares with is back.
    "a rollback": (roll_back_and_forth, PromotionRefusedError, DECIDED.format("rollback, ")),
    "another recipe": (accept, PromotionRefusedError, DECIDED.format("by_hand, 'agreed on'")),
    "a release": (release, PromotionRefusedError, DECIDED.format("release, 'agreed on'")),
    "tags altered": (spoil_tags, PromotionRefusedError, "found bundle ffffffff"),
    "files altered": (spoil_files, DataContractError, "altered after registration"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_happened_since_the_cycle_began_refuses_its_promotion(desk: Desk, what: str) -> None:
    for number in range(2):
        desk.promote(save_run(desk.cycle(number, variant(number + 1))), becomes_anchor=True)
    desk.rollback()  # A recipe is on hold.
    run = desk.cycle(2, variant(3))
    model = desk.register(run)
    happen, error, message = REFUSED[what]
    happen(desk, run, model)
    champion, entries = desk.champion, desk.history.entries
    with pytest.raises(error, match=message):
        desk.promote(run, model, becomes_anchor=True)
    assert (desk.champion, desk.history.entries) == (champion, entries)


def test_serving_code_that_was_altered_is_not_promoted(desk: Desk) -> None:
    """It is logged beside the bundle, and a serving process runs it."""
    run = desk.cycle(0)
    model = desk.register(run, is_logged=True)
    altered = desk.folder / "serving_model.py"
    altered.write_text("print('and one more line')\n")
    logged = desk.client.get_model_version(model.name, model.version).source
    desk.client.log_model_artifact(logged.removeprefix("models:/"), str(altered))
    with pytest.raises(DataContractError, match="its model with its serving code in .* is"):
        desk.promote(run, model)
    assert desk.champion is None and desk.history.entries == ()


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
    with pytest.raises(
        PromotionRefusedError, match="the rollback of .* v1 .hides rose.* at most once"
    ):
        desk.promote(later, model)
    assert desk.champion == first
    desk.rollback(model.version, why="it was not it")
    assert desk.promote(later, model).is_promoted
    assert len(desk.history.entries) == 4


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


def test_mlflow_down_at_promotion_moves_nothing(desk: Desk, unused_url: str) -> None:
    run = desk.cycle(0)
    model = desk.register(run)
    cut_off = run.model_copy(update={"tracking_uri": unused_url})
    with pytest.raises(TrackingUnavailableError, match="nothing was promoted"):
        desk.promote(cut_off, model)
    assert desk.champion is None and desk.history.entries == ()


def test_of_two_workspaces_that_make_a_model_at_once_one_is_named(
    desk: Desk, tmp_path: Path
) -> None:
    name, client = f"kept_{tmp_path.name}", desk.client
    places = [storage.to_uri(tmp_path / each) for each in ("one", "two")]
    make = registry.ensure_registered_model
    threads = [threading.Thread(target=make, args=(client, name, place)) for place in places]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    keeper = registry.read_keeper(client, name)
    assert keeper in places
    make(client, name, places[0])
    assert registry.read_keeper(client, name) == keeper
    for place in places:
        where = {"workspace_uri": place, "tracking_uri": client.tracking_uri}
        run = make_run(tmp_path, registered_model=name, **where)
        kept = pytest.raises(RecordDisagreesError, match=f"is kept by workspace {keeper}")
        with contextlib.nullcontext() if place == keeper else kept:
            promote_bundle(client, run, tmp_path)


AT = datetime(2026, 2, 28, 9, 30, tzinfo=UTC)
ANSWERS = {
    "rejected": "anna rejected the promotion of {} at 2026-02-28 09:30 UTC.",
    "no answer": "Nobody approved {} in time, which was until 2026-02-28 09:30 UTC.",
}


class Judged:
    """A first cycle whose recipe wants an approval, in its run folder, judged."""

    def __init__(self, desk: Desk) -> None:
        asked = PromotionConfig(approval=ApprovalConfig(by=("anna",)))
        self.desk = desk
        config = smoke().model_copy(update={"promotion": asked})
        self.run: ResolvedRun = save_run(desk.cycle(0, config))
        self.model = desk.register(self.run)
        self.judgement: Judgement = judgement_of(self.run, self.model)
        save_artifact(self.run, "train_challenger", challenger_of(self.model))
        save_artifact(self.run, "train_anchor", NO_ANCHOR)
        save_artifact(self.run, "compare_with_champion", self.judgement)

    def answer(self, given: str, by: str = "anna", ruling_digest: str = "") -> str:
        """Write an answer down as Airflow's task does, and return its sentence."""
        digest = ruling_digest or self.judgement.ruling_digest
        by = "" if given == "no answer" else by
        found = Approval(answer=given, by=by, at=AT, model=self.model.label, ruling_digest=digest)
        storage.write_model(approval_uri(self.run.run_uri), found)
        return found.sentence

    def promote(self) -> Promotion:
        run_stage("promote_challenger", self.run.run_uri)
        return read_artifact(self.run.run_uri, "promote_challenger", Promotion)


@pytest.fixture
def judged(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Judged:
    monkeypatch.setenv("HOMEFEED_HOME", str(desk.folder))
    return Judged(desk)


def test_without_an_answer_about_this_verdict_nothing_is_promoted(judged: Judged) -> None:
    with pytest.raises(PromotionRefusedError, match=r"none is on record; .* approve_promotion"):
        judged.promote()
    for _ in range(2):
        judged.answer("approved", ruling_digest="another")
        with pytest.raises(PromotionRefusedError, match="on record is about another verdict"):
            judged.promote()
        judged.answer("no answer")
        judged.promote()
    assert judged.desk.champion is None


@pytest.mark.parametrize("first", ANSWERS)
def test_an_approval_that_comes_after_all_promotes_though_the_stage_was_done(
    judged: Judged, first: str
) -> None:
    """Until then the champion stays; who approved and when is kept with the promotion."""
    sentence = judged.answer(first)
    before = judged.promote()
    assert not before.is_promoted and judged.promote() == before
    assert before.reason == sentence == ANSWERS[first].format(judged.model.label)
    assert before.approval is not None and before.approval.answer == first
    assert judged.desk.champion is None
    sentence = judged.answer("approved")
    done = judged.promote()
    assert done.is_promoted and judged.desk.champion == judged.model
    assert done.approval is not None and (done.approval.by, done.approval.at) == ("anna", AT)
    [entry] = judged.desk.history.moves
    assert entry.reason.endswith(sentence) and done.reason == entry.reason


@pytest.mark.parametrize("first", ["approved", "no answer"])
def test_what_was_published_stands_whatever_is_answered_later_or_deleted(
    judged: Judged, first: str
) -> None:
    judged.answer(first)
    done = judged.promote()
    assert done.is_promoted == (first == "approved")
    if done.is_promoted:
        judged.answer("rejected", by="ben")
        assert judged.promote() == done
    deletion.remove(approval_uri(judged.run.run_uri))
    assert judged.promote() == done
