"""Functions of other people that a recipe names: imported in one way, and told apart by source.

An own feature function that changes is another feature, though its name stays. So the digest of
its source file stands in the recipe, set where the recipe is read, and is part of the recipe's
identity. Not for calling them (`pipelines.snapshot.features.own`, `pipelines.recipes.references`).
Tested in tests/pipelines/recipes/test_own_functions.py.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts.base import sha256_of
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import OwnFunctionError

_WHERE = (
    f"expected one that {sys.executable} can import, and every process that reads the recipe or "
    f"builds a snapshot (in Airflow that is the worker, not the machine on which the run was "
    f"triggered); install its package into that environment or image, put its folder on that "
    f"process's PYTHONPATH, or mend the module"
)


def load(name: str, what: str = "") -> Callable[..., Any]:
    """Return a function by its import path, `package.module:function`.

    Args:
        name: The path.
        what: What to call the function in a message; by default a feature of that name.

    Raises:
        OwnFunctionError: its module cannot be imported here, or has no such function.
    """
    path, _, function_name = name.partition(":")
    what = what or f"features.numeric: {name!r}"
    importlib.invalidate_caches()  # a module that was written a moment ago is found too
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        raise OwnFunctionError(
            f"{what}: its module cannot be imported in this process ({_told(error)}); {_WHERE}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise OwnFunctionError(
            f"{what}: {function_name!r} of the module {path} is {function!r:.60}; expected one of "
            f"its functions; correct the name"
        )
    return function


def as_they_are_now(numeric: Sequence[NumericFeature]) -> tuple[NumericFeature, ...]:
    """Return the features, each own function with the digest of its source as it is now.

    A module that this process does not find has none: where stages run in containers, it may be in
    their image alone. Whether it must be here is asked by `require_unchanged`.
    """
    found = []
    for feature in numeric:
        digest = None
        with contextlib.suppress(OwnFunctionError):
            digest = source_digest(feature.name) if feature.is_own else None
        found.append(feature.model_copy(update={"source_digest": digest}))
    return tuple(found)


def require_unchanged(numeric: Sequence[NumericFeature]) -> None:
    """Refuse own functions that cannot be called here, or are others than when they were read.

    Raises:
        OwnFunctionError: one is not there or was changed.
    """
    for then, now in zip(numeric, as_they_are_now(numeric), strict=True):
        if then.is_own:
            load(then.name)
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
    path, found = name.partition(":")[0], "No such module"
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(path)
        if spec and spec.has_location and spec.origin:
            found = spec.origin
    except Exception as error:  # the packages that it stands in are imported, and may raise
        found = _told(error)
    if not (found.endswith(".py") and Path(found).is_file()):
        raise OwnFunctionError(
            f"features.numeric: {name!r}: its module has no source file (.py) that could be "
            f"imported ({found}); {_WHERE}"
        )
    return sha256_of(Path(found))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
