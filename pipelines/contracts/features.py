"""The catalogue of numeric features: each one's name, bounds and options.

docs/features.md has the formulas and units beside them, and `pipelines/snapshot/features/` computes
them. Not for what a recipe chooses (`NumericFeature`).

Only rows that were known strictly before the request's `impressed_at` count. Where a feature may be
missing, a second number says so: its flag is 1 where the feature is missing, and the feature is 0
there.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LOG_TABLES = ("impressions", "pins", "users")
"""The tables of the event log whose number columns can be features."""
FIRST_SEEN_DAYS = 28
"""How many days before a request's day are searched for a pin's first appearance."""
WINDOWS_DAYS = (1, 7, 28)
"""The trailing windows of a pin's popularity that every snapshot holds, in days."""

Scale = Literal["log1p", "difference", "circle", "weekday", "any"]
BOUNDS: Mapping[str, tuple[float, float]] = {
    # log1p of 72 billion, which no count and no number of hours reaches. What was written without
    # its log1p soon exceeds it.
    "log1p": (0.0, 25.0),
    "difference": (-25.0, 25.0),
    "circle": (-1.0, 1.0),
    "weekday": (0.0, 6.0),
    "any": (-3.4e38, 3.4e38),
}
"""The least and the largest value of each scale."""

Option = str | float | bool


@dataclass(frozen=True)
class FeatureMeaning:
    """What the code has to know of one feature; docs/features.md has its formula and unit."""

    name: str  # as a recipe names it; <...> stands for what the recipe fills in
    scale: Scale = "log1p"
    may_be_missing: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)  # with what holds if not given


_OF_HISTORY = {"num_actions": 50.0}
CATALOGUE: Mapping[str, FeatureMeaning] = {
    known.name: known
    for known in (
        FeatureMeaning("pin_popularity"),
        *(FeatureMeaning(f"pin_popularity_{days}d") for days in WINDOWS_DAYS),
        FeatureMeaning("pin_popularity_slope", "difference"),
        FeatureMeaning("pin_age", may_be_missing=True, options={"column": ""}),
        FeatureMeaning("past_engagements"),
        FeatureMeaning("since_last_touch_of_pin", may_be_missing=True),
        FeatureMeaning("since_last_touch_of_category", "log1p", True, {"category": ""}),
        FeatureMeaning("user_activity", options={"days": 7.0}),
        FeatureMeaning("similarity_best", "circle", True, _OF_HISTORY),
        FeatureMeaning("similarity_mean", "circle", True, _OF_HISTORY),
        FeatureMeaning(
            "similarity_decayed", "circle", True, {**_OF_HISTORY, "half_life_days": 7.0}
        ),
        FeatureMeaning("session_position", options={"gap_minutes": 30.0}),
        FeatureMeaning("hour_sin", "circle"),
        FeatureMeaning("hour_cos", "circle"),
        FeatureMeaning("weekday", "weekday"),
        FeatureMeaning("user_actions:<action_type>"),
        *(FeatureMeaning(f"{table}.<column>", "any", True) for table in LOG_TABLES),
        FeatureMeaning("<package.module>:<function>", "any", True, {"may_be_missing": False}),
    )
}
"""Every feature by its name; of the families, the name shows what the recipe fills in."""

BASELINE_FEATURES = (
    "pin_popularity",
    "past_engagements",
    *(f"pin_popularity_{days}d" for days in WINDOWS_DAYS),
    "pin_age",
)
"""What every snapshot holds whatever the recipe, because the gates rank by these numbers."""

_ACTIONS, _OWN = "user_actions:", re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def meaning_of(name: str) -> FeatureMeaning:
    """Return what a feature is.

    Raises:
        ValueError: there is no such feature; the message names the nearest.
    """
    if name in CATALOGUE and "<" not in name:
        return CATALOGUE[name]
    if name.startswith(_ACTIONS) and name != _ACTIONS:
        return CATALOGUE["user_actions:<action_type>"]
    if _OWN.fullmatch(name):
        return CATALOGUE["<package.module>:<function>"]
    table, _, column = name.partition(".")
    if table in LOG_TABLES and column and ":" not in column:
        return CATALOGUE[f"{table}.<column>"]
    near = difflib.get_close_matches(name, CATALOGUE, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"features.numeric: there is no numeric feature {name!r}; {hint}expected one of "
        f"{list(CATALOGUE)}; docs/features.md describes them"
    )
