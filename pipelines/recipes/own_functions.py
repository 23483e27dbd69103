"""Functions of other people that a recipe names: imported in one way, and told apart by source.

An own feature function that changes is another feature, though its name stays. So the digest of
its source file stands in the recipe, set where the recipe is read, and is part of the recipe's
identity. Not for calling them (`pipelines.snapshot.features.own`, `pipelines.recipes.references`).
Tested in tests/pipelines/recipes/test_own_functions.py.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts.base import sha256_of
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import ConfigurationError, OwnFunctionError


def import_function(
    name: str, what: str, refusal: type[ConfigurationError] = OwnFunctionError
) -> Callable[..., Any]:
    """Return a function by its import path, `package.module:function`.

    Args:
        name: The path.
        what: What to call the function in a message.
        refusal: The class of the error.

    Raises:
        ConfigurationError: of the class `refusal`; its module cannot be imported here, or has no
            such function.
    """
    path, _, function_name = name.partition(":")
    importlib.invalidate_caches()  # a module that was written a moment ago is found too
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{path}.".startswith(f"{absent}."):
            raise refusal(_not_here(what, str(error))) from error
        raise refusal(
            f"{what}: importing {path} raised {_told(error)}; expected a module that imports "
            f"without an error; correct the module, or install what it needs where it is imported"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "nothing" if function is None else f"{type(function).__name__} {function!r:.60}"
        there = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise refusal(
            f"{what}: the module {path} has {found} of the name {function_name!r}; expected one of "
            f"its functions, {', '.join(sorted(there)) or 'of which it has none'}; correct the name"
        )
    return function


def load(name: str) -> Callable[..., Any]:
    """Return an own feature function.

    Raises:
        OwnFunctionError: its module cannot be imported here, or has no such function.
    """
    return import_function(name, f"features.numeric: {name!r}")


def as_they_are_now(
    numeric: Sequence[NumericFeature], is_needed: bool = True
) -> tuple[NumericFeature, ...]:
    """Return the features, each own function with the digest of its source as it is now.

    Args:
        numeric: The features.
        is_needed: Whether a function that cannot be found here is refused; else it has no digest.

    Raises:
        OwnFunctionError: a function cannot be found here, or its module has no source file.
    """
    found = []
    for feature in numeric:
        digest = None
        try:
            digest = source_digest(feature.name) if feature.is_own else None
        except OwnFunctionError:
            if is_needed:
                raise
        found.append(feature.model_copy(update={"source_digest": digest}))
    return tuple(found)


def require_unchanged(numeric: Sequence[NumericFeature]) -> None:
    """Refuse own functions that cannot be called here, or are others than when they were read.

    Raises:
        OwnFunctionError: one is not there or was changed.
    """
    for feature in numeric:
        if feature.is_own:
            load(feature.name)
    for then, now in zip(numeric, as_they_are_now(numeric), strict=True):
        if then.source_digest not in (None, now.source_digest):
            raise OwnFunctionError(
                f"features.numeric: the module of {then.name!r} has digest "
                f"{str(now.source_digest)[:12]} and had {str(then.source_digest)[:12]} when the "
                f"recipe was read; expected the same, since the model was told what it returned "
                f"then; put the module back and give the changed function another name, or begin "
                f"a new cycle with the function as it is now"
            )


def source_digest(name: str) -> str:
    """Return the sha256 (hex) of the source file of an own function's module, which is not run.

    Raises:
        OwnFunctionError: the module cannot be found, or it has no source file.
    """
    path, what = name.partition(":")[0], f"features.numeric: {name!r}"
    importlib.invalidate_caches()
    origin: str | None = None
    try:
        spec = importlib.util.find_spec(path)
    except ValueError:  # a module that is there and came from no file
        pass
    except Exception as error:  # the packages that it stands in are imported, and may raise
        raise OwnFunctionError(_not_here(what, _told(error))) from error
    else:
        if spec is None:
            raise OwnFunctionError(_not_here(what, f"No module named {path!r}"))
        origin = spec.origin if spec.has_location else None
    source = Path(origin or "")
    if source.suffix != ".py" or not source.is_file():
        raise OwnFunctionError(
            f"{what}: its module has no source file, found {origin}; expected a .py file, whose "
            f"content becomes part of the snapshot's identity, and which other processes can "
            f"import; write the function into a file"
        )
    return sha256_of(source)


def _not_here(what: str, found: str) -> str:
    return (
        f"{what}: its module cannot be imported in this process ({found}); expected one that "
        f"{sys.executable} can import, and every process that reads the recipe or builds a "
        f"snapshot. In Airflow that is the worker, not the machine on which the run was triggered. "
        f"Install the package that holds the module into that environment or image (pip install), "
        f"or put its folder on that process's PYTHONPATH"
    )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
