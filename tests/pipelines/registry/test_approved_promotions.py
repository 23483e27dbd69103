"""Where the recipe wants a person's approval, a cycle promotes with it and not without."""

from datetime import UTC, datetime

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judged.approval import Approval, approval_uri
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.recipes import smoke
from pipelines.registry import history, promotion, registry, tracking
from support.registered import NO_ANCHOR, NOW, challenger_of, judgement_of, register_bundle
from support.runs import make_run

pytestmark = pytest.mark.services
Cycle = tuple[MlflowClient, ResolvedRun, ModelRef]
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


def test_a_recipe_that_wants_none_is_promoted_as_ever(cycle: Cycle) -> None:
    _, run, model = cycle
    plain = run.model_copy(update={"config": smoke()})
    assert promotion._approval_for(plain, judgement_of(plain, model)) is None
    assert "approval" not in Promotion(
        decision="REJECT",
        is_promoted=False,
        champion_before=None,
        champion_after=None,
        reason="x",
        history_uri=None,
    ).model_dump(mode="json")
