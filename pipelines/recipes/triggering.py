"""What a run of Airflow's may name as its recipe: whoever may trigger one has no shell there.

A function is imported and called by the worker, so a run may name functions of packages alone that
the deployment has allowed (`HOMEFEED_RECIPE_PACKAGES`), of its own recipe's package, and files,
whose reading runs nothing. On the command line everything is allowed. Tested in
tests/pipelines/recipes/test_triggering.py.
"""

import re
from collections.abc import Sequence

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes.built_in import RECIPES
from pipelines.recipes.references import FUNCTION, SUFFIXES


def choices(default: str) -> list[str]:
    """Return the references that a form offers: those of this project and the deployment's own."""
    return sorted({*RECIPES, default})


def pattern(default: str, packages: Sequence[str]) -> str:
    """Return a regular expression for whatever may be a reference.

    A form so refuses a name with a typing error, and a function of another package, when it is
    sent. Whether there is a recipe of that reference is found by `make_recipe`.

    Args:
        default: The deployment's own recipe.
        packages: Whose functions may be named besides that recipe's.
    """
    suffixes = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    fitting = [*map(re.escape, choices(default)), f".+(?:{suffixes})"]
    if allowed := _allowed(default, packages):
        inside = "|".join(map(re.escape, allowed))
        fitting.append(rf"(?:{inside})(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
    return f"^(?:{'|'.join(fitting)})$"


def require_triggerable(reference: str, default: str, packages: Sequence[str]) -> None:
    """Refuse a reference that would run a function of another package.

    Raises:
        ConfigurationError: the function's package is not among the allowed ones.
    """
    if reference != default and FUNCTION.fullmatch(reference):
        _require_allowed(f"recipe {reference}", reference, _allowed(default, packages))


def require_triggerable_features(config: RunConfig, default: str, packages: Sequence[str]) -> None:
    """Refuse a recipe whose features would run functions of another package, before any does.

    Raises:
        ConfigurationError: the package of one is not among the allowed ones.
    """
    for feature in config.features.numeric if config.reference != default else ():
        if feature.is_own:
            what = f"recipe {config.reference}: the feature {feature.name}"
            _require_allowed(what, feature.name, _allowed(default, packages))


def _allowed(default: str, packages: Sequence[str]) -> list[str]:
    own = FUNCTION.fullmatch(default)
    return sorted({*packages, *([own[1].partition(".")[0]] if own else [])})


def _require_allowed(what: str, function: str, allowed: Sequence[str]) -> None:
    module = function.partition(":")[0]
    package = module.partition(".")[0]
    if not any(f"{module}.".startswith(f"{each}.") for each in allowed):
        raise ConfigurationError(
            f"{what} would run a function of the package {package}; expected one of "
            f"{', '.join(allowed) or 'no package'} in a run of Airflow's, because whoever may "
            f"trigger one would else run anything that is installed there; add {package} to "
            f"HOMEFEED_RECIPE_PACKAGES where Airflow runs, or begin the cycle on the command line, "
            f"which allows every package"
        )
