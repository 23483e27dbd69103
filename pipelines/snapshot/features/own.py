"""Own functions of a recipe: called, and judged by what they return.

What a function is given and may look at is in `own_view`; `leak_check` tells whether it keeps to
it. They are found by `pipelines.recipes.own_functions`.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.contracts.errors import OwnFunctionError
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.recipes.own_functions import load
from pipelines.snapshot.features.inputs import FeatureInputs, Floats
from pipelines.snapshot.features.leak_check import check_no_leak
from pipelines.snapshot.features.own_view import Seen, make_view

_ONE_AT_A_TIME = threading.Lock()
"""Shards are built side by side in threads; nobody who writes a function need think of them."""


def compute(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return what an own function returns for a shard, checked for leaks on some of its users.

    Raises:
        OwnFunctionError: the function cannot be imported, raises, returns something else than a
            number for each example, is not deterministic, or looks at what it may not know.
    """
    function, view = load(feature.name), make_view(seen)

    def call(given: Seen) -> Floats:
        return _call(function, feature, given)

    with _ONE_AT_A_TIME:
        values = call(view)
        check_no_leak(feature.name, call, view, values)
    return values


def _call(function: Callable[[Seen], Any], feature: NumericFeature, given: Seen) -> Floats:
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
