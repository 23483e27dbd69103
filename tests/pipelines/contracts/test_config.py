"""A configuration that contradicts itself is refused, with the option, the value and the range."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.contracts.config import Limit, RelativeLimit, RunConfig
from pipelines.recipes import smoke

STATE = {"name": "state", "table": "users", "values": ["core"]}


def changed(section: str, **values: Any) -> dict[str, Any]:
    """Return the smoke recipe's JSON form with some values of one section replaced."""
    recipe = smoke().model_dump(mode="json")
    recipe[section] |= values
    return recipe


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("features", {"action_types": ["click"]}, "head 'repin' needs action type 'repin'"),
        ("features", {"categorical": [STATE, STATE]}, "features.categorical: names must be unique"),
        ("features", {"action_types": [str(n) for n in range(128)]}, "at most 127 items"),
        (
            "features",
            {"categorical": [STATE | {"values": [str(n) for n in range(32_768)]}]},
            "at most 32767 items",
        ),
        (
            "features",
            {"user_weights": [{"feature": "state", "value": "none", "weight": 2}]},
            "found state='none'; expected a categorical feature",
        ),
        (
            "features",
            {
                "categorical": [],
                "user_weights": [{"feature": "state", "value": "core", "weight": 2}],
            },
            "found state='core'; expected a categorical feature",
        ),
        (
            "snapshot",
            {"embargo_days": 0, "label_window_hours": 25},
            "embargo_days=0 is shorter than .*=25: .* set embargo_days to at least 2",
        ),
        ("snapshot", {"holdout_weeks": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_contradicts_itself_is_named(
    section: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(changed(section, **values))


def test_an_unwanted_head_needs_a_guardrail() -> None:
    recipe = changed("model_gate", guardrails=[])
    recipe["features"]["heads"][0]["is_wanted"] = False
    with pytest.raises(ValidationError, match=r"'hit_at_3.repin' needs a relative limit"):
        RunConfig.model_validate(recipe)


def test_a_limit_without_a_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="on 'ece' has neither minimum nor maximum"):
        Limit(metric="ece")
    with pytest.raises(ValidationError, match="on 'ece' has neither max_increase nor max_decr"):
        RelativeLimit(metric="ece")
    assert Limit(metric="ece", minimum=0.0).minimum == 0.0
    assert RelativeLimit(metric="ece", max_decrease=0.0).max_decrease == 0.0


def test_where_a_recipe_was_read_changes_neither_its_digest_nor_its_form() -> None:
    base = smoke()
    assert "source" not in base.model_dump(mode="json")
    outside = base.model_copy(update={"recipe": "mine", "source": "s3://bucket/mine.yaml"})
    assert outside.recipe_digest == base.recipe_digest
    assert RunConfig.model_validate_json(outside.model_dump_json()) == outside
    digest = base.recipe_digest[:12]
    assert (base.reference, base.recipe_ref.label) == ("smoke", f"smoke ({digest})")
    assert outside.recipe_ref.label == f"mine ({digest}, s3://bucket/mine.yaml)"
