"""Where the recipe wants a person's approval, a cycle promotes with it and not without."""

from datetime import UTC, datetime

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judgement import Approval, Judgement, Promotion, approval_uri
from pipelines.recipes import smoke
from pipelines.registry import promotion
from pipelines.stages.runner import read_artifact, run_stage
from support.desk import Desk
from support.registered import NO_ANCHOR, challenger_of, judgement_of
from support.runs import save_artifact, save_run

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
        self.run: ResolvedRun = save_run(
            desk.cycle(0, smoke().model_copy(update={"promotion": asked}))
        )
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
    judged.answer("approved", ruling_digest="another")
    with pytest.raises(PromotionRefusedError, match="on record is about another verdict"):
        judged.promote()
    judged.answer("no answer")
    judged.promote()
    judged.answer("approved", ruling_digest="another")  # after all, and of another verdict
    with pytest.raises(PromotionRefusedError, match="on record is about another verdict"):
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
    [(_, entry)] = judged.desk.history.entries
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


def test_a_recipe_that_wants_none_is_promoted_as_ever(judged: Judged) -> None:
    plain = judged.run.model_copy(update={"config": smoke()})
    assert promotion._approval_for(plain, judgement_of(plain, judged.model)) is None
