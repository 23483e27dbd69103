"""Own functions of a recipe, named by import path: found, called, and judged by what they return.

What a function is given and may look at is in `own_view`; `leak_check` tells whether it keeps to
it. The source of a function's module belongs to the identity of a snapshot that it helped to make.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipelines.contracts.base import sha256_of
from pipelines.contracts.errors import OwnFunctionError
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.snapshot.features.inputs import FeatureInputs, Floats
from pipelines.snapshot.features.leak_check import check_no_leak
from pipelines.snapshot.features.own_view import Seen, make_view

OwnFunction = Callable[[Seen], Any]


def source_digests(numeric: Sequence[NumericFeature]) -> dict[str, str]:
    """Return the sha256 of the source file of each own function's module, by the feature's name.

    Raises:
        OwnFunctionError: a function cannot be found, or its module has no source file.
    """
    return {feature.name: _source_digest(feature.name) for feature in numeric if feature.is_own}


def compute(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return what an own function returns for a shard, checked for leaks on some of its users.

    Raises:
        OwnFunctionError: the function cannot be imported, raises, returns something else than a
            number for each example, is not deterministic, or looks at what it may not know.
    """
    function, view = _load(feature.name), make_view(seen)

    def call(given: Seen) -> Floats:
        return _call(function, feature, given)

    values = call(view)
    check_no_leak(feature.name, call, view, values)
    return values


def _load(name: str) -> OwnFunction:
    module = _module(name)
    function_name = name.partition(":")[2]
    function = getattr(module, function_name, None)
    if not callable(function):
        raise OwnFunctionError(
            f"features.numeric: {name!r} names no function: the module {module.__name__} has "
            f"{'nothing' if function is None else type(function).__name__} of the name "
            f"{function_name!r}; expected a function of one argument; correct the name"
        )
    return function


def _module(name: str) -> ModuleType:
    path = name.partition(":")[0]
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise OwnFunctionError(
            f"features.numeric: the module of {name!r} cannot be imported in this process "
            f"({error}); expected a module that all processes find that build a snapshot; "
            f"install its package where the pipeline runs, or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise OwnFunctionError(
            f"features.numeric: importing the module of {name!r} raised {_told(error)}; expected "
            f"no error; correct the module"
        ) from error


def _source_digest(name: str) -> str:
    _load(name)
    module = _module(name)
    source = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    if source is None or not Path(source).is_file():
        raise OwnFunctionError(
            f"features.numeric: the module of {name!r} has no source file, found "
            f"{getattr(module, '__file__', None)}; expected a .py file, whose content becomes part "
            f"of the snapshot's identity, and which other processes can import; write the function "
            f"into a file"
        )
    return sha256_of(Path(source))


def _call(function: OwnFunction, feature: NumericFeature, given: Seen) -> Floats:
    """Return what a function returns as float32 [examples], or refuse it."""
    name, num_examples = feature.name, len(given.examples.request)
    try:
        returned = function(given)
    except Exception as error:
        raise OwnFunctionError(
            f"features.numeric: {name} raised {_told(error)} on {num_examples} examples; expected "
            f"a number for each, also for rows that are cut to what was known before a request; "
            f"correct the function"
        ) from error
    values = np.asarray(returned)
    if values.dtype.kind not in "fiub" or values.shape != (num_examples,):
        raise OwnFunctionError(
            f"features.numeric: {name} returned {type(returned).__name__} of shape {values.shape} "
            f"and type {values.dtype}; expected float32 numbers of shape ({num_examples},), one "
            f"for each row of `examples`; correct the function"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    _check_finite(feature, values)
    return values


def _check_finite(feature: NumericFeature, values: Floats) -> None:
    is_bad = np.isinf(values) if feature.has_flag else ~np.isfinite(values)
    if is_bad.any():
        found = "inf" if np.isinf(values[is_bad]).any() else "NaN"
        hint = "" if feature.has_flag else ", or set may_be_missing=True, and NaN means 'not known'"
        raise OwnFunctionError(
            f"features.numeric: {feature.name} returned {found} for {int(is_bad.sum())} of "
            f"{len(values)} examples; expected finite float32 numbers; return a number{hint}"
        )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
