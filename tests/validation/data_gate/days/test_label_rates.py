"""Label rates of single segments and surfaces, counted by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.log_days import FIRST_DAY, WIDTH, actions, impressions, users
from validation.data_gate.days import queries
from validation.data_gate.days.measure import DayRows, measure_days, open_engine

NOON = FIRST_DAY * DAY_MS + 12 * HOUR_MS


def measured(
    scratch: Path, shown: Sequence[tuple], acted: Sequence[tuple], states: Sequence[str],
    surfaces: Sequence[str], num_days: int,
) -> list[DayProfile]:  # fmt: skip
    """Return the days of a log whose users 0, 1, ... have these states and see these surfaces."""
    rows = [(user, FIRST_DAY + day, state) for user, state in enumerate(states)
            for day in range(-1, num_days)]  # fmt: skip
    vectors = np.random.default_rng(5).normal(size=(len(rows), WIDTH))
    seen = impressions(shown, surface=[surfaces[user] for _, user, *_ in shown])
    with open_engine(str(scratch)) as engine:
        tables = DayRows([seen], [actions(acted)], [users(rows, vectors)])
        return list(measure_days(engine, tables, FIRST_DAY, FIRST_DAY + num_days))


SHOWN = [
    ("a", 0, 10, NOON, 0),
    ("a", 0, 10, NOON, 1),  # the pin comes again
    ("b", 1, 10, NOON, 0),
    ("b", 1, 11, NOON, 1),
    ("c", 1, 11, NOON + HOUR_MS, 0),
]
ACTED = [
    (0, 10, "save", NOON + 5000, "a"),
    (0, 10, "save", NOON + 6000, "a"),  # the same again
    (1, 10, "save", NOON - 5000, "b"),  # before it was shown
    (1, 99, "save", NOON + 5000, "b"),  # was not shown
    (1, 11, "click", NOON + HOUR_MS + 1, None),  # the newest of two that showed it
    (1, 10, "click", NOON + DAY_MS + 1, None),  # more than a day later
    (1, 11, "repin", NOON + 13 * HOUR_MS, "b"),  # counts on its own day, the next
]
BY_HAND = {
    "core.save": (1 / 2, 2),  # a pin that comes again in its request was acted upon once
    "new.save": (0.0, 3),
    "core.click": (0.0, 2),
    "new.click": (1 / 3, 3),
}


def test_rates_counted_by_hand(tmp_path: Path) -> None:
    shown = [*SHOWN, ("d", 0, 10, NOON + DAY_MS, 0), ("e", 1, 10, NOON + DAY_MS, 0)]
    first, second = measured(tmp_path, shown, ACTED, ["core", "new"], ["home", "search"], 2)
    for by, core, new in (
        ("users.state", "core", "new"),
        ("impressions.surface", "home", "search"),
    ):
        for name, expected in BY_HAND.items():
            value, _, kind = name.replace("core", core).replace("new", new).partition(".")
            number = first.numbers[f"{by}.{value}.{kind}.label_rate"]
            assert (number.value, number.num) == pytest.approx(expected), (by, name)
        rates = [second.numbers[f"{by}.{value}.repin.label_rate"].value for value in (core, new)]
        assert rates == [0.0, 1.0]


def test_which_segments_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only one has the rate of all rows; of many, those with most impressions count."""
    (first,) = measured(tmp_path, SHOWN, ACTED, ["core", "core"], ["home", "home"], 1)
    assert not [name for name in first.numbers if name.endswith("label_rate")]
    most = queries.LABEL_RATES.replace(f"<= {queries.MOST_VALUES}", "<= 1")
    monkeypatch.setattr(queries, "NUMBERS", (*queries.NUMBERS[:1], most))
    (first,) = measured(tmp_path, SHOWN, ACTED, ["core", "new"], ["home", "search"], 1)
    names = {name for name in first.numbers if name.endswith("label_rate")}
    assert {name.split(".")[2] for name in names} == {"new", "search"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_impressions_at_once_the_order_of_rows_does_not_choose(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    rows, surfaces = [("a", 0, 10, NOON, 0), ("b", 0, 10, NOON, 0)], ["search", "home"]
    seen = impressions([rows[n] for n in order], surface=[surfaces[n] for n in order])
    acted = actions([(0, 10, "click", NOON + 1, None)])
    people = users([(0, FIRST_DAY, "core")], np.ones((1, WIDTH)))
    with open_engine(str(tmp_path)) as engine:
        tables = DayRows([seen], [acted], [people])
        (first,) = measure_days(engine, tables, FIRST_DAY, FIRST_DAY + 1)
    rates = {s: first.numbers[f"impressions.surface.{s}.click.label_rate"].value for s in surfaces}
    assert rates == {"search": 0.0, "home": 1.0}
