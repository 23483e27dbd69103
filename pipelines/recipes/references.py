"""What names a recipe, and how its value is found: the one door for every place that takes a name.

    completejourney               one of `pipelines.recipes.built_in`
    package.module:function       imported and called without arguments; it returns a RunConfig
    path or URI, .yaml .yml .toml read; `extends:` in it names one of ours, or another file

A cycle's recipe is made once, in `resolve_run`, and its value is saved with the run. No later stage
and no process of a training reads the file or imports the module again. Tested in
tests/pipelines/recipes/test_references.py.
"""

import difflib
import posixpath
import re
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from pipelines.contracts.base import digest_of
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.places.credentials import require_plain
from pipelines.recipes.built_in import RECIPES
from pipelines.recipes.files import SUFFIXES, read_recipe
from pipelines.recipes.modules import call_recipe
from pipelines.recipes.own_functions import with_sources

_NAME = re.compile(r"[A-Za-z_]\w*")
FUNCTION = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_MOST_FILES = 20
"""Files that may extend one another; more are taken for a chain without an end."""
EXPECTED = (
    f"one of {', '.join(sorted(RECIPES))}, or package.module:function, or a path or URI that ends "
    f"with {', '.join(SUFFIXES)}"
)
"""What may be a reference, for people."""


def make_recipe(reference: str) -> RunConfig:
    """Return the value of a recipe, with `source` set where it comes from outside.

    Raises:
        ConfigurationError: there is no such recipe, or what is there gives no valid value; the
            message lists everything that is wrong with it.
        TransientStorageError: the storage that holds its file failed.
    """
    return with_sources(_make(canonical(reference), ()))


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
    from pipelines.storage import to_uri  # it imports pyarrow

    try:
        uri = to_uri(reference)
        is_place = bool(urlsplit(uri).path) and "\0" not in unquote(uri)
    except (ValueError, RuntimeError) as error:  # a host in half a bracket, or nobody's home
        raise _no_place(reference, str(error)) from None
    if not is_place:
        raise _no_place(reference, "it names no file")
    return uri


def key_of(reference: str) -> str:
    """Return a name for a recipe that is safe in a path and in an id of Airflow's.

    It is the recipe's own name where the recipe is one of this project. A reference to another one
    has ':' and '/', and two files may have one name, so a digest of the reference follows.
    """
    if _NAME.fullmatch(reference):
        return reference
    last = PurePosixPath(urlsplit(reference).path).stem if _is_file(reference) else reference
    readable = re.sub(r"\W+", "_", last.rpartition(":")[2]).strip("_")[:40]
    return f"{readable or 'recipe'}-{digest_of(reference)[:8]}"


def _is_file(reference: str) -> bool:
    return reference.lower().endswith(SUFFIXES)


def _no_place(reference: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"recipe {reference!r} is no path and no URI: {problem}; expected a file such as "
        f"/shared/careful.yaml or s3://bucket/careful.toml; correct the reference"
    )


def _make(reference: str, trail: tuple[str, ...]) -> RunConfig:
    if reference in trail or len(trail) > _MOST_FILES:
        raise ConfigurationError(
            f"recipe {trail[0]} extends itself: {' -> '.join((*trail, reference))}; expected a "
            f"chain that ends with a complete recipe; change one `extends`"
        )
    if reference in RECIPES:
        return RECIPES[reference]()
    if _is_file(reference):
        made = read_recipe(reference, partial(_make_base, reference, (*trail, reference)))
    elif found := FUNCTION.fullmatch(reference):
        made = call_recipe(found[1], found[2])
    else:
        raise _unknown(reference)
    return made.model_copy(update={"source": reference})


def _make_base(file_uri: str, trail: tuple[str, ...], base: str) -> RunConfig:
    """Return what a file extends; a path there is relative to the file's folder."""
    if _is_file(base) and "://" not in base and not base.startswith(("/", "~")):
        scheme, _, place = file_uri.partition("://")
        beside = quote(base) if scheme == "file" else base
        # Without `..`, so that a file that extends itself by way of another folder is noticed.
        base = f"{scheme}://{posixpath.normpath(f'{posixpath.dirname(place)}/{beside}')}"
    base = canonical(base)
    if FUNCTION.fullmatch(base):
        raise ConfigurationError(
            f"recipe {file_uri}: extends is {base!r}, a function; expected one of "
            f"{', '.join(sorted(RECIPES))}, or another file, because reading a file runs nothing; "
            f"save what `homefeed recipe show {base}` prints as a file, and extend that"
        )
    return _make(base, trail)


def _unknown(reference: str) -> ConfigurationError:
    hint = ""
    if near := difflib.get_close_matches(reference, RECIPES, n=1):
        hint = f"did you mean {near[0]!r}? "
    elif "." in reference and ":" not in reference:
        hint = "a module alone names no recipe: add ':' and its function. "
    return ConfigurationError(
        f"unknown recipe {reference!r}; {hint}expected {EXPECTED}; correct --recipe, "
        f"HOMEFEED_RECIPE or the trigger form's Recipe"
    )
