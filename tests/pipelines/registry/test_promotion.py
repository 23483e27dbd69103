"""Promotion by a cycle: what its verdict may move, what a person must say, what refuses it."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import DataContractError, HomefeedError, PromotionRefusedError
from pipelines.contracts.judgement import Approval, Decision, Promotion
from pipelines.contracts.run_layout import approval_uri
from pipelines.recipes import smoke
from pipelines.registry import registry
from pipelines.stages.runner import read_artifact, run_stage
from support.desk import Desk, save_judged, variant
from support.registered import judgement_of
from support.runs import save_run


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE, "a backfill"])
def test_without_a_permission_nothing_moves(desk: Desk, decision: str) -> None:
    run = desk.cycle(0, may_promote=decision != "a backfill")
    model = desk.register(run)
    asked = decision if isinstance(decision, Decision) else Decision.PROMOTE
    done = desk.promote(run, judgement=judgement_of(run, model, asked), model=model)
    assert not done.is_promoted and f"The verdict is {asked}" in done.reason
    assert desk.champion is None and desk.history.entries == ()


def spoil_tags(desk: Desk, run: ResolvedRun, model: ModelRef) -> None:
    desk.client.set_model_version_tag(model.name, model.version, "bundle_digest", "f" * 64)


def spoil_file(name: str, folder: str) -> Callable[..., None]:
    """The tags still say what was judged."""

    def spoil(desk: Desk, run: ResolvedRun, model: ModelRef) -> None:
        (desk.folder / name).write_text("print('and one more line')\n")
        desk.client.log_artifact(model.mlflow_run_id, str(desk.folder / name), folder)

    return spoil


def roll_back_and_forth(desk: Desk, *_: object) -> None:
    desk.rollback("2", why="it was the log")
    desk.rollback("1", why="it was not")


DECIDED = PromotionRefusedError, "against entry 3 of .* another one has been made since"
REFUSED: dict[str, tuple[Callable[..., object], type[HomefeedError], str]] = {
    "another promotion": (lambda d, *_: d.promote(d.cycle(2, run_id="other")), *DECIDED),
    # Not even where the very champion that the verdict compares with is back.
    "a rollback": (roll_back_and_forth, *DECIDED),
    "another recipe": (lambda desk, *_: desk.accept(desk.cycle(3, variant(7))), *DECIDED),
    # The recipe that the rollback before the cycle had put on hold.
    "a release": (lambda desk, *_: desk.release(), *DECIDED),
    "tags altered": (spoil_tags, PromotionRefusedError, "found bundle ffffffff"),
    "files altered": (
        spoil_file("weights.safetensors", "model/artifacts/bundle"),
        *(DataContractError, "altered after registration"),
    ),
    # It is logged beside the bundle, and a serving process runs it.
    "code altered": (
        spoil_file("serving_model.py", "model"),
        *(DataContractError, "its model with its serving code in .* is"),
    ),
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


AT = datetime(2026, 2, 28, 9, 30, tzinfo=UTC)
REJECTED = "anna rejected the promotion of {} at 2026-02-28 09:30 UTC."
UNANSWERED = "Nobody approved {} in time, which was until 2026-02-28 09:30 UTC."
NO_ANSWER = "no answer about this verdict is on record; .* approve_promotion"
PROMOTED = "Because of a test: PROMOTE. anna approved"
ANSWERED: dict[str, tuple[tuple[str, str], ...]] = {
    # what is answered one after another, and after each what the stage gives, or refuses with
    "nothing": (("", NO_ANSWER),),
    "of another verdict": (
        *(("of another", NO_ANSWER), ("no answer", UNANSWERED), ("of another", NO_ANSWER)),
    ),
    # Until then the champion stays; an approval counts though the stage was done.
    "late": (("no answer", UNANSWERED), ("no answer", UNANSWERED), ("approved", PROMOTED)),
    "other than before": (("rejected", REJECTED), ("approved", PROMOTED)),
    # What was published stands, whatever is answered later or deleted.
    "too late": (("approved", PROMOTED), ("rejected", PROMOTED), ("deleted", PROMOTED)),
    "deleted": (("no answer", UNANSWERED), ("deleted", UNANSWERED)),
}


@pytest.mark.parametrize("what", ANSWERED)
def test_where_the_recipe_asks_a_person_s_answer_about_this_verdict_decides(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("HOMEFEED_HOME", str(desk.folder))
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna",)))
    run = desk.cycle(0, smoke().model_copy(update={"promotion": asked}))
    model = desk.register(run)
    judgement = save_judged(run, model)
    for given, expected in ANSWERED[what]:
        digest = "another" if given == "of another" else judgement.ruling_digest
        said = {"answer": given.replace("of another", "approved"), "at": AT, "model": model.label}
        said |= {"by": "" if given == "no answer" else "anna", "ruling_digest": digest}
        if given == "deleted":
            deletion.remove(approval_uri(run.run_uri))
        elif given:
            storage.write_model(approval_uri(run.run_uri), Approval(**said))
        if "on record" in expected:
            with pytest.raises(PromotionRefusedError, match=expected):
                run_stage("promote_challenger", run.run_uri)
            continue
        run_stage("promote_challenger", run.run_uri)
        done = read_artifact(run.run_uri, "promote_challenger", Promotion)
        assert done.reason.startswith(expected.format(model.label)) and done.approval is not None
        assert done.is_promoted == (expected is PROMOTED) == (desk.champion == model)
        if done.is_promoted:
            assert (done.approval.by, done.approval.at) == ("anna", AT)
            assert [entry.reason for entry in desk.history.moves] == [done.reason]
