"""Own functions of a recipe: called, judged by what they return, and by what they look at.

What a function is given and may look at is in `own_view`. The shift test tells whether it keeps to
it: the function is called again on some users of the shard. First with all of their rows, and
without anybody else's: a number that changes depends on other users, and so on how the users were
dealt out. Then with the rows cut to what was known before one request of each user: a number that
changes depends on what came later. A tolerance of a millionth, of the number and of how widely the
shard's numbers are spread, leaves room for sums that are added up in another order. Functions are
found by `pipelines.recipes.own_functions`.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import OwnFunctionError
from pipelines.event_log.event_index import Ints, ranges
from pipelines.recipes.own_functions import load
from pipelines.snapshot.features.inputs import FeatureInputs, Floats
from pipelines.snapshot.features.own_view import Seen, cut_view, make_view

NUM_USERS = 64
"""Users of a shard that a function is called again on: those with the most requests, and others."""
CUTS = (0.0, 0.5)
"""The request of each user before which the rows are cut: the first, and the one in the middle."""
_ONE_AT_A_TIME = threading.Lock()
"""Shards are built side by side in threads; nobody who writes a function need think of them."""


def compute(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return what an own function returns for a shard, checked for leaks on some of its users.

    Raises:
        OwnFunctionError: the function cannot be imported, raises, returns something else than a
            number for each example, is not deterministic, or looks at what it may not know.
    """
    call, view = functools.partial(_call, load(feature.name), feature), make_view(seen)
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
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise OwnFunctionError(
            f"features.numeric: {name} raised {told} on {num_examples} examples; expected a number "
            f"for each, also for rows that are cut to what was known before a request; correct the "
            f"function"
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
    is_bad = np.isinf(values) if feature.has_flag else ~np.isfinite(values)
    if is_bad.any():
        found = "inf" if np.isinf(values[is_bad]).any() else "NaN"
        hint = "" if feature.has_flag else ", or set may_be_missing=True, and NaN means 'not known'"
        raise OwnFunctionError(
            f"features.numeric: {name} returned {found} for {int(is_bad.sum())} of {len(values)} "
            f"examples; expected finite float32 numbers; return a number{hint}"
        )
    return values


def check_no_leak(name: str, call: Callable[[Seen], Floats], seen: Seen, values: Floats) -> None:
    """Refuse a function whose numbers depend on what it may not look at.

    Args:
        name: The function's, for the message.
        call: The function.
        seen: The shard.
        values: [examples] what it returned for the shard.

    Raises:
        OwnFunctionError: it is not deterministic, depends on other users or looks ahead.
    """
    of = seen.requests
    _, first, counts = np.unique(of.user_id, return_index=True, return_counts=True)
    # Half of the users are those with the most requests, the others are evenly spread.
    busiest = np.argsort(-counts, kind="stable")[: NUM_USERS // 2]
    spread = np.linspace(0, len(counts) - 1, NUM_USERS // 2).astype(np.int64)
    chosen = np.unique(np.concatenate([busiest, spread]))
    first, counts = first[chosen], counts[chosen]
    rows, last = ranges(first, counts), np.repeat(first + counts - 1, counts)
    alone = cut_view(seen, rows, last, tells_last_known_at=True)
    found = call(alone)
    if not np.array_equal(found, call(alone), equal_nan=True):
        raise OwnFunctionError(
            f"features.numeric: {name} is not deterministic: called twice with the same rows, it "
            f"returned other numbers; expected the same; give its generator a fixed seed, or take "
            f"the clock and global state out of it"
        )
    differs = functools.partial(_difference, seen, values)
    if told := differs(rows, found):
        raise OwnFunctionError(
            f"features.numeric: {name} depends on rows beyond its user's, or on the row numbers of "
            f"pins: {told} without the other users; expected the same, because users are dealt out "
            f"to shards; look only at the rows of `actions` from timeline_start to timeline_end "
            f"(exclusive) of the request"
        )
    for cut in CUTS:
        at = first + (cut * (counts - 1)).astype(np.int64)
        # Of each user that request, and those of the earlier ones that were known before it.
        rows, last = ranges(first, at - first + 1), np.repeat(at, at - first + 1)
        stays = (of.known_at[rows] < of.impressed_at[last]) | (rows == last)
        rows, last = rows[stays], last[stays]
        if told := differs(rows, call(cut_view(seen, rows, last))):
            raise OwnFunctionError(
                f"features.numeric: {name} looks ahead: {told} without the actions and requests "
                f"that were not known before that request, and its own known_at; expected the "
                f"same; look only at the rows of `actions` from timeline_start to timeline_end "
                f"(exclusive) of the request, at the impressed_at of the request itself, and at "
                f"earlier requests with their known_at"
            )


def _difference(seen: Seen, values: Floats, requests: Ints, found: Floats) -> str | None:
    """Return a phrase about the first example of some requests that got another number than before.

    The difference that passes as one of rounding, also between numbers close to 0, is a millionth
    of the mean distance of the shard's numbers from their median, and at most a millionth. So the
    numbers may be of any scale, and a few large ones among them hide nothing.

    Args:
        seen: the shard.
        values: [examples] the numbers of the shard.
        requests: rows of some of the shard's requests.
        found: the numbers of their examples, one request after another.
    """
    of, numbers = seen.requests, values[~np.isnan(values)].astype(np.float64)
    spread = np.abs(numbers - np.median(numbers)).mean() if len(numbers) else 0.0
    tolerance = 1e-6 * min(1.0, float(spread))
    examples = ranges(of.first_example[requests], of.num_examples[requests])
    is_close = np.isclose(found, values[examples], rtol=1e-6, atol=tolerance, equal_nan=True)
    if is_close.all():
        return None
    row = int(np.argmin(is_close))
    example = examples[row]
    request = seen.examples.request[example]
    return (
        f"for pin {seen.pins.pin_id[seen.examples.pin_row[example]]} in the request of user "
        f"{of.user_id[request]} at {of.impressed_at[request]} it returned {values[example]:g}, and "
        f"{found[row]:g}"
    )
