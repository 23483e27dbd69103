"""How many requests of a session came before each request, as far as they were known to it.

Mostly every request of a run, a user's requests without a longer silence than the gap, is known
before the next one: then it is the place in the run. Other runs are counted by one pass over them,
with the requests joined as they become known. Not for what the feature means: `of_requests`.
"""

from bisect import bisect_right
from operator import itemgetter

import numpy as np

from pipelines.event_log.event_index import Ints, place_in_run


def count_earlier(user_id: Ints, impressed_at: Ints, known_at: Ints, gap_ms: int) -> Ints:
    """Return the number of earlier known requests of each request's session, [requests].

    From a request one goes back over the user's earlier requests that were known before it, as long
    as each is at most the gap before the one that was counted last.

    Args:
        user_id: [requests] by (user, impressed_at).
        impressed_at: [requests] milliseconds.
        known_at: [requests] when the log knew of each, not before `impressed_at`.
        gap_ms: The longest silence within a session.
    """
    # No session goes beyond a run.
    is_first = np.ones(len(user_id), dtype=bool)
    is_first[1:] = (user_id[1:] != user_id[:-1]) | (np.diff(impressed_at) > gap_ms)
    run = np.cumsum(is_first) - 1
    counts = place_in_run(run)
    bounds = np.append(np.flatnonzero(is_first), len(user_id))
    is_late = ~is_first[1:] & (known_at[:-1] >= impressed_at[1:])
    for number in np.unique(run[1:][is_late]):
        rows = slice(bounds[number], bounds[number + 1])
        counts[rows] = _count_run(impressed_at[rows].tolist(), known_at[rows].tolist(), gap_ms)
    return counts


def _count_run(impressed_at: list[int], known_at: list[int], gap_ms: int) -> list[int]:
    """Return the counts of one user's requests, in one pass over them in time.

    Before each request, those that became known are joined with their known neighbours within the
    gap. Then its session is the latest of these groups, if that ends within the gap.
    """
    by_known_at = sorted(range(len(known_at)), key=known_at.__getitem__)
    num_known, counts = 0, list[int]()
    groups = list[list[int]]()  # first time, last time and size of each, in time
    for asked_at in impressed_at:
        while num_known < len(by_known_at) and known_at[by_known_at[num_known]] < asked_at:
            first = last = impressed_at[by_known_at[num_known]]
            size, num_known = 1, num_known + 1
            place = bisect_right(groups, first, key=itemgetter(0))
            if place < len(groups) and groups[place][0] - last <= gap_ms:
                _, last, others = groups.pop(place)
                size += others
            if place and first - groups[place - 1][1] <= gap_ms:
                before = groups[place - 1]
                before[1:] = max(before[1], last), before[2] + size
            else:
                groups.insert(place, [first, last, size])
        is_near = bool(groups) and asked_at - groups[-1][1] <= gap_ms
        counts.append(groups[-1][2] if is_near else 0)
    return counts
