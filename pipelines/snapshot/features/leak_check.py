"""The shift test: does a recipe's own function look at what was not known before the request?

A function is called again on some users of the shard. First with all of their rows, and without
anybody else's: a number that changes depends on other users, and so on how the users were dealt
out. Then with the rows cut to what was known before one request of each user: a number that changes
depends on what came later. A tolerance of a millionth, of the number and of how widely the shard's
numbers are spread, leaves room for sums that are added up in another order. Not for what a function
returns (`own`).
"""

from collections.abc import Callable

import numpy as np

from pipelines.contracts.errors import OwnFunctionError
from pipelines.event_log.event_index import Ints, ranges
from pipelines.snapshot.features.inputs import Floats
from pipelines.snapshot.features.own_view import Seen, cut_view

NUM_USERS = 64
"""Users of a shard that a function is called again on: those with the most requests, and others."""
CUTS = (0.0, 0.5)
"""The request of each user before which the rows are cut: the first, and the one in the middle."""


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
    user_id = seen.requests.user_id
    users, first, counts = np.unique(user_id, return_index=True, return_counts=True)
    chosen = _choose(counts)
    whole = ranges(first[chosen], counts[chosen])
    last = np.repeat(first[chosen] + counts[chosen] - 1, counts[chosen])
    alone = cut_view(seen, whole, last, tells_last_known_at=True)
    found = call(alone)
    if not np.array_equal(found, call(alone), equal_nan=True):
        raise OwnFunctionError(
            f"features.numeric: {name} is not deterministic: called twice with the same rows, it "
            f"returned other numbers; expected the same; give its generator a fixed seed, or take "
            f"the clock and global state out of it"
        )
    tolerance = _tolerance(values)
    row = _differs(found, values, seen, whole, tolerance)
    if row is not None:
        raise OwnFunctionError(
            f"features.numeric: {name} depends on rows beyond its user's, or on the row numbers of "
            f"pins: {_phrase(seen, whole, row, found, values)} without the other users; expected "
            f"the same, because users are dealt out to shards; look only at the rows of `actions` "
            f"from timeline_start to timeline_end (exclusive) of the request"
        )
    for cut in CUTS:
        at = first[chosen] + (cut * (counts[chosen] - 1)).astype(np.int64)
        rows, last = _known_at(seen, first[chosen], at)
        found = call(cut_view(seen, rows, last))
        row = _differs(found, values, seen, rows, tolerance)
        if row is not None:
            told = call(cut_view(seen, rows, last, tells_last_known_at=True))
            is_own_time = _differs(told, values, seen, rows, tolerance) is None
            what, remedy = _OWN_KNOWN_AT if is_own_time else _LATER_ROWS
            raise OwnFunctionError(
                f"features.numeric: {name} looks ahead: {_phrase(seen, rows, row, found, values)} "
                f"without {what}; expected the same; look only at {remedy}"
            )


_OWN_KNOWN_AT = (
    "the known_at of that very request, which nobody knew when it was made",
    "the impressed_at of the request itself, and at the known_at of the user's earlier requests",
)
_LATER_ROWS = (
    "the actions and requests that were not known before that request",
    "the rows of `actions` from timeline_start to timeline_end (exclusive) of the request, and at "
    "earlier requests",
)
"""What a function looked at, and what it may look at instead."""


def _choose(counts: Ints) -> Ints:
    """Return some users: half of them those with the most requests, the others evenly spread."""
    busiest = np.argsort(-counts, kind="stable")[: NUM_USERS // 2]
    spread = np.linspace(0, len(counts) - 1, NUM_USERS // 2).astype(np.int64)
    return np.unique(np.concatenate([busiest, spread]))


def _known_at(seen: Seen, first: Ints, at: Ints) -> tuple[Ints, Ints]:
    """Return each user's requests up to one of them that were known before it, and that one."""
    rows, last = ranges(first, at - first + 1), np.repeat(at, at - first + 1)
    is_known = seen.requests.known_at[rows] < seen.requests.impressed_at[last]
    stays = is_known | (rows == last)
    return rows[stays], last[stays]


def _tolerance(values: Floats) -> float:
    """Return the difference that passes as one of rounding, also between numbers close to 0.

    It is a millionth of the mean distance of the shard's numbers from their median, and at most a
    millionth. So the numbers may be of any scale, and a few large ones among them hide nothing.
    """
    numbers = values[~np.isnan(values)].astype(np.float64)
    spread = np.abs(numbers - np.median(numbers)).mean() if len(numbers) else 0.0
    return 1e-6 * min(1.0, float(spread))


def _differs(
    found: Floats, values: Floats, seen: Seen, requests: Ints, tolerance: float
) -> int | None:
    """Return the first of some requests' examples whose number is another than in the shard."""
    of = seen.requests
    expected = values[ranges(of.first_example[requests], of.num_examples[requests])]
    is_close = np.isclose(found, expected, rtol=1e-6, atol=tolerance, equal_nan=True)
    return None if is_close.all() else int(np.argmin(is_close))


def _phrase(seen: Seen, requests: Ints, row: int, found: Floats, values: Floats) -> str:
    """Return a phrase about the example that stands at a row of the cut view."""
    of = seen.requests
    example = ranges(of.first_example[requests], of.num_examples[requests])[row]
    request = seen.examples.request[example]
    return (
        f"for pin {seen.pins.pin_id[seen.examples.pin_row[example]]} in the request of user "
        f"{of.user_id[request]} at {of.impressed_at[request]} it returned {values[example]:g}, and "
        f"{found[row]:g}"
    )
