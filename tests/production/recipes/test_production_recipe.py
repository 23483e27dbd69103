"""The `production` recipe is run: a whole cycle on a world that writes what that recipe reads.

Heads, features, model, dropout and precision are the recipe's own. What is made smaller is what
needs a large log: the gates' numbers of requests and users, the shards, and the batch, with the
learning rate that belongs to it. How fast it must serve is left to machines that nobody shares.
"""

from datetime import UTC, datetime

import pytest

from pipelines.contracts.artifacts import (
    STAGES,
    Challenger,
    DataReport,
    ResolvedRun,
    RunRequest,
    Snapshot,
)
from pipelines.contracts.config import RunConfig
from pipelines.contracts.judgement import Decision, Judgement, Promotion
from pipelines.recipes import RECIPES, production
from pipelines.registry import tracking
from pipelines.settings import Settings
from pipelines.sources.publish import ingest
from pipelines.sources.world import draws
from pipelines.sources.world.parameters import make_parameters
from pipelines.stages.runner import read_artifact, run_stage, start_run
from pipelines.storage import local_path
from support.world_adapter import WorldAdapter

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]

NAME = "production"
AS_OF = datetime(2024, 1, 26, tzinfo=UTC)
EASY = {
    "SESSIONS_PER_WEEK": 0.5,
    "MIN_REQUESTS": 1,
    "MAX_REQUESTS": 3,
    "WARMTH_DEVIATION": 0.0,
    "REPIN_TASTE": 10.0,
    "USER_NOISE": 0.1,
    "PIN_NOISE": 0.3,
    "HIDE_BASE": -3.0,
    "CLICK_BASE": -2.4,
    "LONG_CLICK_BASE": 1.0,
}
"""Users come seldom, so sequences are short; they repin by taste, which few steps can learn; and no
action is so rare that the gate would not judge its head."""


SMALLER = {
    "snapshot": {"num_shards": 2},
    "training": {"batch_size": 64, "learning_rate": 0.002},
    "data_gate": {"min_training_requests": 100, "min_holdout_requests": 50},
    "model_gate": {"min_users": 30},
    "serving": {"max_processor_p99_ms": 60_000.0, "num_calls": 50},
}
"""The sizes of a small log; all else is the recipe's own."""


def small_production() -> RunConfig:
    recipe = production()
    parts = {name: getattr(recipe, name).model_copy(update=new) for name, new in SMALLER.items()}
    return recipe.model_copy(update=parts)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> ResolvedRun:
    """A first cycle, through all of its stages."""
    home = tmp_path_factory.mktemp(NAME)
    world = make_parameters(
        num_users=200, num_pins=300, num_days=25, start="2024-01-01", seed=7, like="production"
    )
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in EASY.items():
            patch.setattr(draws, constant, value)
        ingest(WorldAdapter(world), str(home / "event_log"))
    settings = Settings(
        home=str(home), tracking_uri=tracking_uri, registered_model=NAME, experiment=NAME
    )
    asked = {"recipe": NAME, "as_of": AS_OF, "now": datetime(2026, 1, 1, tzinfo=UTC)}
    request = RunRequest(**asked, may_promote=True, num_devices=1, trigger="test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, NAME, small_production)
        run = start_run(request, settings)
        for name in STAGES[1:7]:
            run_stage(name, run.run_uri)
    return run


def test_every_action_of_the_recipe_is_a_label(cycle: ResolvedRun) -> None:
    snapshot = read_artifact(cycle.run_uri, "build_snapshot", Snapshot)
    assert read_artifact(cycle.run_uri, "check_snapshot", DataReport).is_accepted
    assert snapshot.embedding_version == "pinsage-1"
    assert snapshot.features == production().features
    whole = production()
    assert (whole.model.dropout, whole.training.precision) == (0.1, "bf16-mixed")


def test_it_is_trained_under_dropout_and_bfloat16_and_judged_by_all_heads(
    cycle: ResolvedRun,
) -> None:
    assert read_artifact(cycle.run_uri, "train_challenger", Challenger).num_steps > 50
    judgement = read_artifact(cycle.run_uri, "compare_with_champion", Judgement)
    said = " ".join(judgement.verdict.reasons)
    assert judgement.verdict.decision is Decision.PROMOTE and "hit_at_3.hide" in said, said
    assert "in calibration: repin, click, long_click, closeup, hide" in said
    assert "long_click" in local_path(judgement.report_uri).read_text()


def test_it_serves_as_it_was_trained(cycle: ResolvedRun, tracking_uri: str) -> None:
    """Without dropout and in float32, to the same scores."""
    judgement = read_artifact(cycle.run_uri, "compare_with_champion", Judgement)
    assert judgement.serving.problems == ()
    model = read_artifact(cycle.run_uri, "train_challenger", Challenger).model
    assert read_artifact(cycle.run_uri, "promote_challenger", Promotion).champion_after == model
    client = tracking.connect(tracking_uri)
    assert client.get_model_version_by_alias(NAME, "champion").version == model.version
