"""What names a recipe, and how its value is found: the one door for every place that takes a name.

    completejourney               one of `pipelines.recipes.built_in`
    package.module:function       imported and called without arguments; it returns a RunConfig
    path or URI, .yaml or .yml    a file: complete, or what differs from what it extends

    extends: completejourney      a name of this project's, or another file
    recipe: careful               its name; the file's by default
    training:
      learning_rate: 0.001        sections are merged field by field, lists are taken whole

A cycle's recipe is made once, in `resolve_run`, and its value is saved with the run. No later stage
and no process of a training reads the file or imports the module again. A function runs in this
process with its rights, so a run of Airflow's, whose sender has no shell there, may name functions
of packages alone that the deployment has allowed (`HOMEFEED_RECIPE_PACKAGES`), and of its own
recipe's package. A file is data: reading it runs nothing of anybody's. So `extends` names no
function, and an own function in `features.numeric` is a name until a snapshot is built. Tested in
tests/pipelines/recipes/test_references.py and test_triggering.py.
"""

import difflib
import posixpath
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipelines.contracts.base import digest_of
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ASKED, ConfigurationError, HomefeedError
from pipelines.places.plain_uri import require_plain, to_uri
from pipelines.recipes.built_in import RECIPES
from pipelines.recipes.own_functions import as_they_are_now, load
from pipelines.recipes.text import parse, validated
from pipelines.settings import Settings

SUFFIXES = (".yaml", ".yml")
FUNCTION = re.compile(r"([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""A function's reference; the group is its package."""
EXPECTED = (
    f"one of {', '.join(sorted(RECIPES))}, or package.module:function, or a path or URI that ends "
    f"with {', '.join(SUFFIXES)}"
)
"""What may be a reference, for people."""


def make_recipe(reference: str) -> RunConfig:
    """Return the value of a recipe, with `source` set where it comes from outside.

    Raises:
        ConfigurationError: there is no such recipe, or what is there gives no valid value; the
            message has a line for each problem.
        TransientStorageError: the file cannot be read now.
    """
    made = _make(canonical(reference))
    numeric = as_they_are_now(made.features.numeric)
    features = made.features.model_copy(update={"numeric": numeric})
    return made.model_copy(update={"features": features})


def canonical(reference: str) -> str:
    """Return a reference as it is kept with a run: the path of a file becomes an absolute URI.

    So a command that is printed for a person works in every folder, and the same file is the same
    recipe. Other references stay as they are; that they are wrong is said by `make_recipe`.

    Raises:
        ConfigurationError: the reference is a URI with keys in it, which would be saved with every
            run; or it is no path and no URI, though it ends like a file.
    """
    require_plain(reference, "the recipe")
    if not _is_file(reference):
        return reference
    try:
        if "\0" not in unquote(urlsplit(uri := to_uri(reference)).path):
            return uri
    except (ValueError, RuntimeError):  # a host in half a bracket, or nobody's home
        pass
    raise ConfigurationError(
        f"recipe {reference!r} is no path and no URI of a file; expected one such as "
        f"/shared/careful.yaml or s3://bucket/careful.yaml; correct the reference"
    )


def key_of(reference: str) -> str:
    """Return a name for a recipe that is safe in a path and in an id of Airflow's.

    It is the recipe's own name where the recipe is one of this project. A reference to another one
    has ':' and '/', and two files may have one name, so a digest of the reference follows.
    """
    if reference in RECIPES:
        return reference
    last = PurePosixPath(reference.rpartition(":")[2]).stem
    readable = re.sub(r"\W+", "_", last).strip("_")[:40]
    return f"{readable or 'recipe'}-{digest_of(reference)[:8]}"


def _is_file(reference: str) -> bool:
    return reference.lower().endswith(SUFFIXES)


def require_triggerable(
    reference: str, settings: Settings, config: RunConfig | None = None
) -> None:
    """Refuse a recipe that would run a function of another package, before any does.

    Allowed are the packages of `HOMEFEED_RECIPE_PACKAGES` and that of the deployment's own recipe.

    Args:
        reference: The canonical reference of a recipe other than the deployment's own.
        settings: Which packages are allowed.
        config: Its value, whose features may be functions too; None: before it is made.

    Raises:
        ConfigurationError: a function's package is not among the allowed ones.
    """
    own = FUNCTION.fullmatch(settings.recipe)
    allowed = sorted({*settings.recipe_packages, *(own.groups() if own else ())})
    functions = [each.name for each in config.features.numeric if each.is_own] if config else []
    functions += [reference] if FUNCTION.fullmatch(reference) else []
    for function in functions if reference != canonical(settings.recipe) else ():
        module = function.partition(":")[0]
        if not any(f"{module}.".startswith(f"{each}.") for each in allowed):
            raise ConfigurationError(
                f"recipe {reference} would run {function}; expected a function of "
                f"{', '.join(allowed) or 'no package'} in a run of Airflow's, because whoever may "
                f"trigger one would else run anything that is installed there; add its package to "
                f"HOMEFEED_RECIPE_PACKAGES where Airflow runs, or begin the cycle on the command "
                f"line, which allows every package",
                kind=ASKED,
            )


def _make(reference: str, trail: tuple[str, ...] = ()) -> RunConfig:
    """Return the value of a canonical reference; `trail` has the files that extend it."""
    if reference in trail:
        raise ConfigurationError(
            f"recipe {trail[0]} extends itself: {' -> '.join((*trail, reference))}; expected a "
            f"chain that ends with a complete recipe; change one `extends`"
        )
    if reference in RECIPES:
        return RECIPES[reference]()
    if _is_file(reference):
        value = _read_recipe(reference, (*trail, reference))
    elif FUNCTION.fullmatch(reference) and not trail:
        value = _call_recipe(reference)
    else:
        near = difflib.get_close_matches(reference, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        if FUNCTION.fullmatch(reference):
            hint = f"{trail[-1]} extends no function, because reading a file runs nothing; "
        raise ConfigurationError(
            f"unknown recipe {reference!r}; {hint}expected {EXPECTED}; correct --recipe, "
            f"HOMEFEED_RECIPE or the trigger form's Recipe",
            kind=ASKED,
        )
    return validated(value, reference).model_copy(update={"source": reference})


def _read_recipe(uri: str, trail: tuple[str, ...]) -> dict[str, Any]:
    """Return what a file says, laid over what it extends.

    Raises:
        ConfigurationError: there is no such file, or it is no recipe's.
    """
    from pipelines import storage  # it imports pyarrow, and the DAG file imports this module

    try:
        value = parse(storage.read_bytes(uri), uri)
    except FileNotFoundError:
        raise ConfigurationError(
            f"recipe {uri}: there is no such file; expected one that the process which runs "
            f"`resolve_run` can read (in Airflow, the worker); correct the path, or put it there",
            kind=ASKED,
        ) from None
    base = value.pop("extends", "") if isinstance(value, dict) else None
    if not isinstance(base, str):
        raise ConfigurationError(
            f"recipe {uri} holds {value!r:.60}, and extends is {base!r}; expected fields such as "
            f"`extends: completejourney`, the name or reference of one recipe"
        )
    value = {"recipe": unquote(PurePosixPath(urlsplit(uri).path).stem)} | value
    if not base:
        return value
    if _is_file(base) and "://" not in base and not base.startswith(("/", "~")):
        # A path there is relative to the file's folder.
        scheme, _, place = uri.partition("://")
        beside = quote(base) if scheme == "file" else base
        # Without `..`, which no store knows, and so that a file that extends itself is noticed.
        base = f"{scheme}://{posixpath.normpath(f'{posixpath.dirname(place)}/{beside}')}"
    return _merged(_make(canonical(base), trail).model_dump(mode="json", exclude={"source"}), value)


def _merged(below: Any, over: Any) -> Any:
    """Return a value with another's laid over it; mappings are merged, lists are not."""
    if not (isinstance(below, dict) and isinstance(over, dict)):
        return over
    return below | {name: _merged(below.get(name), value) for name, value in over.items()}


def _call_recipe(reference: str) -> dict[str, Any]:
    """Return the JSON form of what a module's function returns, called without arguments.

    A recipe's value goes through this form, as it will when it is saved with the run. So what a
    function has put past the validators is refused, and no class of the module is left in it.

    Raises:
        ConfigurationError: the module or function is not here, or it returns no RunConfig.
    """
    function = load(reference, f"recipe {reference}")
    try:
        value = function()
        found = f"returned {value!r:.60} ({type(value).__name__})"
    except HomefeedError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        value, found = None, f"raised {type(error).__name__}: {error}"
    if not isinstance(value, RunConfig):
        raise ConfigurationError(
            f"recipe {reference} {found}; expected a function that is called without arguments and "
            f"returns a RunConfig (pipelines.contracts.config), as those of pipelines.recipes do; "
            f"correct the function"
        )
    return value.model_dump(mode="json", warnings=False, fallback=str, exclude={"source"})
