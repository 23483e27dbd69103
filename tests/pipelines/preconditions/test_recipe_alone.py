"""A gate that asks for a metric which no head gives would never promote anything: it is refused."""

from typing import Any

import pytest

from pipelines.contracts.config import Limit, RelativeLimit, RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.preconditions.recipe_alone import recipe_problems, require_sound
from pipelines.recipes import RECIPES, smoke


def with_gate(**options: Any) -> RunConfig:
    gate = smoke().model_gate.model_copy(update=options)
    return smoke().model_copy(update={"model_gate": gate})


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_our_own_recipes_are_sound(name: str) -> None:
    assert recipe_problems(RECIPES[name]()) == []


@pytest.mark.parametrize("metric", ["hit_at_3.save", "log_loss.repin", "auc.save", "ece.repin"])
def test_what_a_comparison_gives_may_have_a_limit(metric: str) -> None:
    assert recipe_problems(with_gate(floors=(Limit(metric=metric, minimum=0),))) == []


def test_a_target_metric_of_no_head_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="recipe smoke cannot come to a verdict: ") as told:
        require_sound(with_gate(target_metric="hide_volume_at_3"))
    assert "model_gate.target_metric is 'hide_volume_at_3', expected one of ['hit_at_3" in str(
        told.value
    )


def test_all_limits_without_a_metric_are_listed_with_the_nearest() -> None:
    config = with_gate(
        floors=(Limit(metric="calibration_ratio.repn", minimum=1),),
        guardrails=(RelativeLimit(metric="save_volume_at_3", max_decrease=0.1),),
    )
    with pytest.raises(ConfigurationError) as caught:
        require_sound(config)
    _, floor, rail = str(caught.value).splitlines()
    assert "model_gate.floors has a limit on 'calibration_ratio.repn'" in floor
    assert "did you mean 'calibration_ratio.repin'?" in floor
    # Of a head that is not the target's no volume is computed.
    assert "model_gate.guardrails has a limit on 'save_volume_at_3'" in rail
    assert "expected one of repin_volume_at_3, hit_at_3.repin, log_loss.repin" in rail


def test_a_recipe_that_is_refused_can_still_be_read_from_an_old_run() -> None:
    config = with_gate(target_metric="hide_volume_at_3")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
