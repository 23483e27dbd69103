"""Whether users and pins of the weeks before come back, from the few that are followed.

Volumes move by themselves, and a fifth of all users can be lost in what a volume may move. Who was
there in the last four weeks and is there again in the next two moves little, so a loss shows there.

A day's profile has the smallest hashes of its users and of its pins. Hashes up to the smallest of
the largest ones, of the days that have more than are kept, are known of every day. So sets of
several days can be compared: they are a sample of all ids, the same one on every day (Beyer et
al., SIGMOD 2007). Tested in
tests/validation/data_gate/days/test_returning.py.
"""

import math
from collections.abc import Mapping, Sequence

from pipelines.contracts.judged.day_profile import DayProfile
from validation.data_gate.days.kinds import Kind
from validation.data_gate.days.queries import NUM_FOLLOWED

BEFORE_DAYS, AFTER_DAYS = 28, 14
"""Ids of so many days are looked for in so many days after them."""
FEWEST_IDS = 50
MOST_MISSING = 1
"""A closed day is told by itself; with more of them too few come back for want of days."""
RETURNING = Kind("share", day_floor=math.inf, run_floor=0.06, critical=0.3)
FOLLOWED = ("users", "pins")


def name_of(followed: str) -> str:
    """Return the name of the share of followed ids that come back."""
    return f"impressions.{followed}_come_back"


def known_ids(days: Sequence[DayProfile], followed: str) -> dict[int, frozenset[int]]:
    """Return the ids of each day that would be known of every day if they had been there."""
    of_days = {day.day: day.followed[followed] for day in days if day.followed.get(followed)}
    if not of_days:
        return {}
    # A day of fewer ids has all of its ids there, and bounds nothing.
    full = [ids[-1] for ids in of_days.values() if len(ids) >= NUM_FOLLOWED]
    largest = min(full, default=math.inf)
    return {day: frozenset(each for each in ids if each <= largest) for day, ids in of_days.items()}


def share_back(
    ids: Mapping[int, frozenset[int]], first: int, num_days: int
) -> tuple[float, int] | None:
    """Return which share of the ids of the weeks before a day come back, and of how many.

    Args:
        ids: By day, since the epoch.
        first: The first day on which they are looked for.
        num_days: How many days they are looked for.

    Returns:
        None where too few days or ids are known.
    """
    before = [ids[day] for day in range(first - BEFORE_DAYS, first) if day in ids]
    after = [ids[day] for day in range(first, first + num_days) if day in ids]
    wanted = frozenset().union(*before)
    is_enough = 2 * len(before) >= BEFORE_DAYS and len(after) >= num_days - MOST_MISSING
    if not is_enough or len(wanted) < FEWEST_IDS:
        return None
    return len(wanted & frozenset().union(*after)) / len(wanted), len(wanted)
