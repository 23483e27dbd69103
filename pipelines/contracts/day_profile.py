"""The profile of one UTC day of an event log: named numbers, and counts of whatever adds up.

It is the one value in which a day is told: the data gate judges it, and keeps it as JSON
(`validation.data_gate.days`); `homefeed log check` shows it and judges it (`pipelines.log_check`).
A number stands with how many rows, requests or actions it was taken from, because a share of few
says little. Not for measuring, nor for judging.
"""

from pipelines.contracts.base import Frozen


class Number(Frozen):
    """One measured number."""

    value: float
    num: int  # Rows, requests, users or actions that it was taken from.


class DayProfile(Frozen):
    """What one UTC day of impressions and of actions looks like."""

    day: int  # Days since the epoch.
    numbers: dict[str, Number]  # By name, e.g. 'impressions.rows'.
    counts: dict[str, dict[str, int]]  # By what is counted, e.g. 'impressions.hour', then by value.
    # Of the counts of a category, the rows that were acted upon, by value.
    acted_upon: dict[str, dict[str, int]] = {}
    # The smallest hashes of the day's users and of its pins, ascending.
    followed: dict[str, tuple[int, ...]] = {}


class KeptDays(Frozen):
    """Profiles of some days as a file holds them."""

    days: tuple[DayProfile, ...]


class MeasuredDays(Frozen):
    """Profiles by a digest of what they were measured from; None: a day without rows."""

    profiles: dict[str, DayProfile | None]
