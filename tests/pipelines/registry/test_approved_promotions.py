"""Where the recipe wants a person's approval, a cycle promotes with it and not without."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judgement import Approval, Judgement, Promotion, approval_uri
from pipelines.recipes import smoke
from pipelines.registry import history, promotion, registry, tracking
from pipelines.stages.runner import read_artifact, run_stage
from support.registered import NO_ANCHOR, NOW, challenger_of, judgement_of, register_bundle
from support.runs import make_run, save_artifact, save_run

pytestmark = pytest.mark.services
Cycle = tuple[MlflowClient, ResolvedRun, ModelRef]
Judged = tuple[MlflowClient, ResolvedRun, Judgement]
AT = datetime(2026, 2, 28, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Cycle:
    """A first cycle whose recipe wants an approval, and the model that it would promote."""
    folder = tmp_path_factory.mktemp("approved")
    name = f"ranker_{folder.name}"
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna",)))
    config = smoke().model_copy(update={"promotion": asked})
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(folder, config, **places)
    client = tracking.connect(tracking_uri)
    return client, run, register_bundle(client, run, folder)


def promote(run: ResolvedRun, model: ModelRef) -> Promotion:
    judgement = judgement_of(run, model)
    return promotion.move_if_permitted(run, challenger_of(model), NO_ANCHOR, judgement, NOW)


def answer(
    run: ResolvedRun, judgement: Judgement, given: str, by: str = "anna", **more: str
) -> str:
    """Write an answer down as Airflow's task does, and return its sentence."""
    digest = more.get("ruling_digest", judgement.ruling_digest)
    label = judgement.comparison.challenger_model.label
    found = Approval(answer=given, by=by, at=AT, model=label, ruling_digest=digest)
    storage.write_model(approval_uri(run.run_uri), found)
    return found.sentence


def test_without_an_answer_about_this_verdict_nothing_is_promoted(cycle: Cycle) -> None:
    client, run, model = cycle
    judgement = judgement_of(run, model)
    with pytest.raises(PromotionRefusedError, match="none is on record; .* approve_promotion"):
        promote(run, model)
    answer(run, judgement, "approved", ruling_digest="another")
    with pytest.raises(PromotionRefusedError, match="on record is about another verdict"):
        promote(run, model)
    assert registry.read_champion(client, run.registered_model) is None


@pytest.mark.parametrize(
    ("given", "by", "said"),
    [
        ("rejected", "anna", "anna rejected the promotion of {} at 2026-02-28 09:30 UTC."),
        ("no answer", "", "Nobody approved {} in time, which was until 2026-02-28 09:30 UTC."),
    ],
)
def test_a_promotion_that_nobody_approved_leaves_the_champion(
    cycle: Cycle, given: str, by: str, said: str
) -> None:
    client, run, model = cycle
    sentence = answer(run, judgement_of(run, model), given, by)
    done = promote(run, model)
    assert not done.is_promoted and done.reason == sentence == said.format(model.label)
    assert done.approval is not None and done.approval.answer == given
    assert registry.read_champion(client, run.registered_model) is None


def test_who_approved_and_when_is_kept_with_the_promotion(cycle: Cycle) -> None:
    client, run, model = cycle
    sentence = answer(run, judgement_of(run, model), "approved")
    done = promote(run, model)
    assert done.is_promoted and registry.read_champion(client, run.registered_model) == model
    assert done.approval is not None and (done.approval.by, done.approval.at) == ("anna", AT)
    [(_, entry)] = history.read(run.workspace_uri, run.registered_model)
    assert entry.reason.endswith(sentence) and done.reason == entry.reason


@pytest.fixture
def judged(cycle: Cycle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """A first cycle in its run folder, judged, and its judgement, which waits for an approval."""
    client, asking, _ = cycle
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    name = f"ranker_{uuid.uuid4().hex[:8]}"
    places = {"tracking_uri": asking.tracking_uri, "registered_model": name, "experiment": name}
    run = save_run(make_run(tmp_path, asking.config, **places))
    model = register_bundle(client, run, tmp_path)
    judgement = judgement_of(run, model)
    save_artifact(run, "train_challenger", challenger_of(model))
    save_artifact(run, "train_anchor", NO_ANCHOR)
    save_artifact(run, "compare_with_champion", judgement)
    return client, run, judgement


def publish(run: ResolvedRun) -> Promotion:
    run_stage("promote_challenger", run.run_uri)
    return read_artifact(run.run_uri, "promote_challenger", Promotion)


@pytest.mark.parametrize("first", ["no answer", "rejected"])
def test_an_approval_that_comes_after_all_promotes_though_the_stage_was_done(
    judged: Judged, first: str
) -> None:
    client, run, judgement = judged
    answer(run, judgement, first, by="" if first == "no answer" else "ben")
    before = publish(run)
    assert not before.is_promoted and publish(run) == before
    sentence = answer(run, judgement, "approved")
    done = publish(run)
    assert done.is_promoted and done.reason.endswith(sentence)
    assert registry.read_champion(client, run.registered_model) == judgement.promoted_model
    assert len(history.read(run.workspace_uri, run.registered_model)) == 1


def test_an_approval_of_another_verdict_promotes_nothing_after_all_either(judged: Judged) -> None:
    client, run, judgement = judged
    answer(run, judgement, "no answer", by="")
    publish(run)
    answer(run, judgement, "approved", ruling_digest="another")
    with pytest.raises(PromotionRefusedError, match="on record is about another verdict"):
        publish(run)
    assert registry.read_champion(client, run.registered_model) is None


def test_what_was_promoted_is_not_promoted_again_whatever_is_answered_later(
    judged: Judged,
) -> None:
    client, run, judgement = judged
    answer(run, judgement, "approved")
    done = publish(run)
    assert done.is_promoted
    answer(run, judgement, "rejected", by="ben")
    assert publish(run) == done
    deletion.remove(approval_uri(run.run_uri))
    assert publish(run) == done


def test_without_the_answer_that_was_published_the_stage_stays_done(judged: Judged) -> None:
    _, run, judgement = judged
    answer(run, judgement, "no answer", by="")
    done = publish(run)
    deletion.remove(approval_uri(run.run_uri))
    assert publish(run) == done


def test_a_recipe_that_wants_none_is_promoted_as_ever(cycle: Cycle) -> None:
    _, run, model = cycle
    plain = run.model_copy(update={"config": smoke()})
    assert promotion._approval_for(plain, judgement_of(plain, model)) is None
