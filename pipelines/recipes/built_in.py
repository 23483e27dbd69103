"""The recipes of this project: functions that make one complete `RunConfig` each.

Not for recipes of other people, which need no change here (`pipelines.recipes.references`), nor for
where things run (`pipelines.settings`). Tested in tests/pipelines/cli/test_train.py,
tests/dags/test_homefeed_retrain.py and tests/production/recipes/test_production_recipe.py.
"""

from collections.abc import Callable

from pipelines.contracts.config import (
    CategoricalFeature,
    DataGateConfig,
    FeatureConfig,
    Head,
    Limit,
    ModelConfig,
    ModelGateConfig,
    NumericFeature,
    RelativeLimit,
    RunConfig,
    SnapshotConfig,
    TrainingConfig,
)

_STATE = CategoricalFeature(name="state", table="users", values=("core", "non_core", "new"))
_CALIBRATED = Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25)


def _heads(**weights: float) -> tuple[Head, ...]:
    """Return a head for each action type, by its weight; hides are not wanted."""
    return tuple(
        Head(name=name, action_type=name, utility_weight=weight, is_wanted=name != "hide")
        for name, weight in weights.items()
    )


def _numbers(*names: str) -> tuple[NumericFeature, ...]:
    return tuple(NumericFeature(name=name) for name in names)


def production() -> RunConfig:
    """Return the Homefeed recipe: Pinterest's heads, 100 actions, the paper's optimiser."""
    return RunConfig(
        recipe="production",
        features=FeatureConfig(
            action_types=("repin", "click", "long_click", "closeup", "hide"),
            heads=_heads(repin=1.0, click=0.2, long_click=0.4, closeup=0.1, hide=-2.0),
            categorical=(_STATE,),
        ),
        snapshot=SnapshotConfig(embedding_version="pinsage-1", num_shards=256),
        model=ModelConfig(mlp_dims=(512, 256)),
        training=TrainingConfig(batch_size=12000, num_epochs=1, precision="bf16-mixed"),
        data_gate=DataGateConfig(min_training_requests=100_000, min_holdout_requests=50_000),
        model_gate=ModelGateConfig(
            floors=(_CALIBRATED,),
            guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.02),),
            min_users=10_000,
        ),
    )


def completejourney() -> RunConfig:
    """Return the recipe of the retail sample (`sources/completejourney/adapter.py`): no hide."""
    return RunConfig(
        recipe="completejourney",
        features=FeatureConfig(
            action_types=("repin", "click", "long_click", "save"),
            heads=_heads(repin=1.0, long_click=0.0, save=0.0),
            categorical=(
                CategoricalFeature(
                    name="display_location",
                    table="impressions",
                    values=("0", "1", "2", "3", "4", "5", "6", "7", "9", "A"),
                ),
                CategoricalFeature(
                    name="mailer_location",
                    table="impressions",
                    values=("0", "A", "C", "D", "F", "H", "J", "L", "P", "X", "Z"),
                ),
                _STATE,
            ),
            numeric=_numbers("pin_popularity", "past_engagements"),
        ),
        snapshot=SnapshotConfig(embedding_version="cj-content-copurchase-1", num_shards=8),
        # With 50 actions instead of 100, a fortnight of this sample (100 k candidates) trains in
        # two minutes on two cores. The values were chosen at as_of 2017-05-15, which is not a day
        # that is reported.
        model=ModelConfig(
            max_actions=50,
            use_sequence_matches=True,
            dropout=0.0,
            num_cross_layers=1,
            mlp_dims=(64, 32),
            mlp_dropout=0.1,
        ),
        training=TrainingConfig(
            num_epochs=2, batch_size=512, learning_rate=0.002, weight_decay=0.01, warmup_steps=20
        ),
        data_gate=DataGateConfig(),
        model_gate=ModelGateConfig(
            floors=(_CALIBRATED, Limit(metric="repin_volume_at_3", minimum=1.0))
        ),
    )


def world() -> RunConfig:
    """Return the recipe of the simulated world with a known answer (`homefeed world run`)."""
    return RunConfig(
        recipe="world",
        features=FeatureConfig(
            action_types=("repin", "click", "hide"),
            heads=_heads(repin=1.0, click=0.0, hide=0.0),
            categorical=(_STATE,),
            numeric=_numbers("pin_popularity", "pin_popularity_1d", "pin_age"),
        ),
        snapshot=SnapshotConfig(embedding_version="world-1", num_shards=8, training_days=21),
        # The values were chosen on the world of another seed (docs/decisions.md). The random time
        # mask is off: it guards against a model that feeds on its own newest recommendations, and
        # in the world nothing is recommended by a model.
        model=ModelConfig(
            max_actions=32,
            use_action_ages=True,
            num_layers=1,
            feedforward_dim=128,
            dropout=0.0,
            first_k=5,
            time_window_mask_hours=0.0,
            num_cross_layers=1,
            mlp_dims=(64, 32),
        ),
        training=TrainingConfig(
            num_epochs=1,
            batch_size=512,
            learning_rate=0.002,
            weight_decay=0.01,
            warmup_steps=200,
            negative_keep_fraction=0.4,
        ),
        data_gate=DataGateConfig(),
        model_gate=ModelGateConfig(
            floors=(_CALIBRATED,),
            guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.1),),
        ),
    )


def smoke() -> RunConfig:
    """Return a recipe of seconds on a tiny planted world: for tests and a first look."""
    base, changed = completejourney(), {}
    for section, values in {
        "features": {"categorical": ()},
        "snapshot": {"num_shards": 2, "embedding_version": "planted-1"},
        "model": {"max_actions": 20, "mlp_dims": (32,)},
        "training": {"num_epochs": 1, "batch_size": 512},
        "data_gate": {"min_rows_for_shift": 200},
        "model_gate": {
            "min_users": 20,
            # 80 pins and some hundred requests are too few to tell every ranking from it.
            "first_champion_beats": "popularity",
            "floors": (Limit(metric="calibration_ratio.repin", minimum=0.3, maximum=3.0),),
        },
    }.items():
        changed[section] = getattr(base, section).model_copy(update=values)
    return base.model_copy(update={"recipe": "smoke", **changed})


RECIPES: dict[str, Callable[[], RunConfig]] = {
    make.__name__: make for make in (production, completejourney, world, smoke)
}
"""By name, as people give it."""
