"""What a run of Airflow's may name: not just any function."""

import contextlib

import pytest

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import smoke
from pipelines.recipes.references import require_triggerable
from pipelines.settings import Settings

OURS = Settings(recipe="ours.ranking:careful")
WITH_OTHERS = Settings(recipe="smoke", recipe_packages=("theirs", "more.features"))
PLAIN = Settings(recipe="smoke")


@pytest.mark.parametrize(
    ("reference", "fits"),
    [
        *((each, [OURS, WITH_OTHERS, PLAIN]) for each in ("world", "/a/b.yaml", "s3://c/d.yml")),
        ("os:getcwd", []),
        ("theirs:make", [WITH_OTHERS]),
        ("theirs.deep.down:make", [WITH_OTHERS]),
        ("theirs_too:make", []),
        ("more.features:make", [WITH_OTHERS]),
        ("more.others:make", []),
        ("more:make", []),
        # The package of the deployment's own recipe.
        ("ours.ranking:careful", [OURS]),
        ("ours.deep.down:other", [OURS]),
    ],
)
def test_a_run_names_functions_of_allowed_packages_alone(
    reference: str, fits: list[Settings]
) -> None:
    for settings in (OURS, WITH_OTHERS, PLAIN):
        refuses = pytest.raises(ConfigurationError)
        with contextlib.nullcontext() if settings in fits else refuses:
            require_triggerable(reference, settings)


def test_a_file_s_own_features_are_held_to_the_same_packages() -> None:
    numeric = (NumericFeature(name="pin_popularity"), NumericFeature(name="theirs.made:number"))
    features = smoke().features.model_copy(update={"numeric": numeric})
    config = smoke().model_copy(update={"features": features, "source": "file:///a.yaml"})
    require_triggerable("file:///a.yaml", WITH_OTHERS, config)
    require_triggerable("file:///a.yaml", Settings(recipe="file:///a.yaml"), config)
    with pytest.raises(ConfigurationError) as caught:
        require_triggerable("file:///a.yaml", OURS, config)
    told = str(caught.value)
    assert "a.yaml would run theirs.made:number; expected a function of ours in a run of" in told
    assert "add its package to HOMEFEED_RECIPE_PACKAGES" in told and "command line" in told
