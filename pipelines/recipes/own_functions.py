"""Own feature functions of a recipe: found by their import path, and told apart by their source.

A function that changes is another feature, though its name stays. So the digest of its source file
stands in the recipe, set where the recipe is read, and is part of the recipe's identity. Not for
calling them (`pipelines.snapshot.features.own`). Tested in
tests/pipelines/recipes/test_own_functions.py.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts.base import sha256_of
from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.errors import OwnFunctionError


def with_sources(config: RunConfig) -> RunConfig:
    """Return a recipe in which each own function has the digest of its source as it is now.

    A module that this process does not find has none: where stages run in containers, it may be in
    their image alone. Whether it must be here is asked by `pipelines.preconditions`.
    """
    numeric = as_they_are_now(config.features.numeric, is_needed=False)
    features = config.features.model_copy(update={"numeric": numeric})
    return config.model_copy(update={"features": features})


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
    found = list(numeric)
    for place, feature in enumerate(numeric):
        if not feature.is_own:
            continue
        try:
            digest = source_digest(feature.name)
        except OwnFunctionError:
            if is_needed:
                raise
            digest = None
        found[place] = feature.model_copy(update={"source_digest": digest})
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


def load(name: str) -> Callable[..., Any]:
    """Return an own function.

    Raises:
        OwnFunctionError: its module cannot be imported here, or has no such function.
    """
    path, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise _cannot_be_imported(name, f"{error}") from error
    except Exception as error:
        raise OwnFunctionError(
            f"features.numeric: importing the module of {name!r} raised {_told(error)}; expected "
            f"no error; correct the module"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise OwnFunctionError(
            f"features.numeric: {name!r} names no function: the module {module.__name__} has "
            f"{'nothing' if function is None else type(function).__name__} of the name "
            f"{function_name!r}; expected a function of one argument; correct the name"
        )
    return function


def source_digest(name: str) -> str:
    """Return the sha256 (hex) of the source file of an own function's module, which is not run.

    Raises:
        OwnFunctionError: the module cannot be found, or it has no source file.
    """
    path = name.partition(":")[0]
    importlib.invalidate_caches()  # a module that was written a moment ago is found too
    origin: str | None = None
    try:
        spec = importlib.util.find_spec(path)
    except ValueError:  # a module that is there and came from no file
        pass
    except Exception as error:  # the packages that it stands in are imported, and may raise
        raise _cannot_be_imported(name, _told(error)) from error
    else:
        if spec is None:
            raise _cannot_be_imported(name, f"No module named {path!r}")
        origin = spec.origin if spec.has_location else None
    source = Path(origin or "")
    if source.suffix != ".py" or not source.is_file():
        raise OwnFunctionError(
            f"features.numeric: the module of {name!r} has no source file, found {origin}; "
            f"expected a .py file, whose content becomes part of the snapshot's identity, and "
            f"which other processes can import; write the function into a file"
        )
    return sha256_of(source)


def _cannot_be_imported(name: str, found: str) -> OwnFunctionError:
    return OwnFunctionError(
        f"features.numeric: the module of {name!r} cannot be imported in this process ({found}); "
        f"expected a module that all processes find that read the recipe or build a snapshot; "
        f"install its package where the pipeline runs, or put its folder on PYTHONPATH"
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
