"""The catalogue of numeric features: each one's name, formula, unit, bounds and options.

Here stands what a feature means; `pipelines/snapshot/features/` computes it, and docs/features.md
shows this catalogue to people. Not for what a recipe chooses (`numeric`).

In every formula, t is the request's `impressed_at`, and only rows that were known strictly before
t count. "The history" is the timeline: the user's actions of the last `snapshot.history_days` days
before training. Where a feature may be missing, a second number says so: its flag is 1 where the
feature is missing, and the feature is 0 there.
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
    """What one feature is."""

    name: str  # as a recipe names it; <...> stands for what the recipe fills in
    formula: str
    unit: str
    scale: Scale = "log1p"
    may_be_missing: str = ""  # when it is missing; empty where it never is
    options: Mapping[str, Option] = field(default_factory=dict)  # with what holds if not given


_HOURS = "log1p of hours"
_COUNT = "log1p of a count"
_WINDOW = "log1p(wanted actions on the pin in the {} before the day of t)"
_COSINES = "the cosines of the candidate with the pins of the user's newest `num_actions` actions"
_NO_HISTORY = "the user has no action in the history"

_OF_PINS = (
    FeatureMeaning("pin_popularity", _WINDOW.format("`snapshot.popularity_days` days"), _COUNT),
    FeatureMeaning("pin_popularity_1d", _WINDOW.format("day"), _COUNT),
    FeatureMeaning("pin_popularity_7d", _WINDOW.format("7 days"), _COUNT),
    FeatureMeaning("pin_popularity_28d", _WINDOW.format("28 days"), _COUNT),
    FeatureMeaning(
        name="pin_popularity_slope",
        formula="log1p(wanted actions of the day before) - log1p(wanted actions of the 7 days "
        "before / 7), counted as in `pin_popularity_1d` and `_7d`; above 0 where the pin gains",
        unit="difference of two log1p",
        scale="difference",
    ),
    FeatureMeaning(
        name="pin_age",
        formula="log1p(hours from the pin's first appearance to t). It first appeared when the log "
        "first knew of an impression or action of anybody on it, among those that happened from "
        f"{FIRST_SEEN_DAYS} days before the UTC day of t on. With `column`, a time in ms in that "
        "column of pins takes the place of the first appearance, however long ago it is",
        unit=_HOURS,
        may_be_missing="no such impression or action was known before t; with `column`, the time "
        "is null or not before t",
        options={"column": ""},
    ),
)
_OF_USERS = (
    FeatureMeaning(
        "past_engagements", "log1p(the user's actions on this very pin in the history)", _COUNT
    ),
    FeatureMeaning(
        name="since_last_touch_of_pin",
        formula="log1p(hours from the user's last action on this pin in the history to t)",
        unit=_HOURS,
        may_be_missing="the user never acted on the pin in the history",
    ),
    FeatureMeaning(
        name="since_last_touch_of_category",
        formula="log1p(hours from the user's last action on a pin of the same `category` in the "
        "history to t); `category` is a categorical feature of pins",
        unit=_HOURS,
        may_be_missing="the user never acted on such a pin, or the pin's value is not listed",
        options={"category": ""},
    ),
    FeatureMeaning(
        name="user_activity",
        formula="log1p(the user's actions in the history that became known in the `days` days "
        "before t)",
        unit=_COUNT,
        options={"days": 7.0},
    ),
    *(
        FeatureMeaning(
            name=f"similarity_{name}",
            formula=formula,
            unit="cosine",
            scale="circle",
            may_be_missing=_NO_HISTORY,
            options=options,
        )
        for name, formula, options in (
            ("best", f"the largest of {_COSINES}", {"num_actions": 50.0}),
            ("mean", f"the mean of {_COSINES}", {"num_actions": 50.0}),
            (
                "decayed",
                f"the weighted mean of {_COSINES}; an action that is `half_life_days` older "
                "weighs half",
                {"num_actions": 50.0, "half_life_days": 7.0},
            ),
        )
    ),
)
_OF_REQUESTS = (
    FeatureMeaning(
        name="session_position",
        formula="log1p(the user's earlier requests in the session); the session goes on while the "
        "next known request comes within `gap_minutes` minutes, and only requests of the two "
        "windows are seen",
        unit=_COUNT,
        options={"gap_minutes": 30.0},
    ),
    FeatureMeaning("hour_sin", "sin(2 pi h / 24), h being the UTC hour of t", "number", "circle"),
    FeatureMeaning("hour_cos", "cos(2 pi h / 24), h being the UTC hour of t", "number", "circle"),
    FeatureMeaning("weekday", "the UTC weekday of t, Monday is 0", "number", "weekday"),
)
_FAMILIES = (
    FeatureMeaning(
        "user_actions:<action_type>",
        "log1p(the user's actions of that type in the history)",
        _COUNT,
    ),
    *(
        FeatureMeaning(f"{table}.<column>", formula, "as logged", "any", "the value is null or NaN")
        for table, formula in (
            ("impressions", "the impression's number in that column, beyond those of the contract"),
            ("pins", "the pin's number in that column, whenever it was written"),
            ("users", "the user's number in that column, of the newest row that is not after t"),
        )
    ),
    FeatureMeaning(
        "<package.module>:<function>",
        "what your own function returns; see below",
        "yours",
        "any",
        "the function returned NaN, which it may only where the recipe says `may_be_missing`",
        {"may_be_missing": False},
    ),
)

CATALOGUE: Mapping[str, FeatureMeaning] = {
    known.name: known for known in (*_OF_PINS, *_OF_USERS, *_OF_REQUESTS, *_FAMILIES)
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
