"""What the trigger form takes, and what a run of Airflow's may name: not just any function."""

import re

import pytest

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, smoke
from pipelines.recipes.triggering import (
    choices,
    pattern,
    require_triggerable,
    require_triggerable_features,
)

OURS = "ours.ranking:careful"
FUNCTIONS = {
    # reference: whether it fits (no packages, theirs and ours.features)
    "os:getcwd": (False, False),
    "theirs:make": (False, True),
    "theirs.deep.down:make": (False, True),
    "theirs_too:make": (False, False),
    "ours.features:make": (False, True),
    "ours.others:make": (False, False),
    "ours:make": (False, False),
}


def is_allowed(reference: str, default: str, packages: tuple[str, ...]) -> bool:
    try:
        require_triggerable(reference, default, packages)
        return True
    except ConfigurationError:
        return False


def test_a_form_offers_what_there_is_and_takes_what_may_be() -> None:
    assert choices(OURS) == sorted([*RECIPES, OURS])
    taken = [*RECIPES, OURS, "theirs:make", "/a/b.yaml", "s3://c/d e.toml", "x.yml"]
    assert all(re.search(pattern(OURS, ["theirs"]), each) for each in taken)
    refused = ["no_such_recipe", "a:b:c", "module:", ":f", "x.json", "", "smoke2", "os:getcwd"]
    assert not any(re.search(pattern(OURS, ["theirs"]), each) for each in refused)


@pytest.mark.parametrize("reference", FUNCTIONS)
@pytest.mark.parametrize("packages", [(), ("theirs", "ours.features")])
def test_a_run_names_functions_of_allowed_packages_alone(
    reference: str, packages: tuple[str, ...]
) -> None:
    fits = FUNCTIONS[reference][bool(packages)]
    assert is_allowed(reference, "smoke", packages) == fits
    assert bool(re.search(pattern("smoke", packages), reference)) == fits


@pytest.mark.parametrize("reference", [OURS, "ours:other", "ours.deep.down:other"])
def test_the_package_of_the_deployment_s_own_recipe_is_allowed(reference: str) -> None:
    assert is_allowed(reference, OURS, ())
    assert re.search(pattern(OURS, ()), reference)
    assert not is_allowed("os:getcwd", OURS, ())


def test_files_and_names_are_no_functions() -> None:
    for reference in (*RECIPES, "file:///a/b.yaml", "s3://bucket/a.toml"):
        assert is_allowed(reference, "smoke", ())


def test_the_refusal_says_what_may_be_named_and_how_to_allow_more() -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_triggerable("os.path:abspath", OURS, ("theirs",))
    told = str(caught.value)
    assert "recipe os.path:abspath would run a function of the package os; expected one of" in told
    assert "expected one of ours, theirs in a run of Airflow's" in told
    assert "add os to HOMEFEED_RECIPE_PACKAGES" in told and "command line" in told


def test_a_file_s_own_features_are_held_to_the_same_packages() -> None:
    numeric = (NumericFeature(name="pin_popularity"), NumericFeature(name="theirs.made:number"))
    features = smoke().features.model_copy(update={"numeric": numeric})
    config = smoke().model_copy(update={"features": features, "source": "file:///a.yaml"})
    require_triggerable_features(config, "smoke", ("theirs",))
    require_triggerable_features(config, "file:///a.yaml", ())  # the deployment's own
    with pytest.raises(
        ConfigurationError, match="a.yaml: the feature theirs.made:number would run"
    ):
        require_triggerable_features(config, "smoke", ("their",))
