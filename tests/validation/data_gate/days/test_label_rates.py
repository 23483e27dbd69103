"""Label rates of single segments and surfaces: what is measured, told, and passed over."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.log_days import FIRST_DAY, WIDTH, actions, impressions, users
from validation.data_gate.days import queries
from validation.data_gate.days.gate import describe
from validation.data_gate.days.limits import Deviation, deviations
from validation.data_gate.days.measure import DayRows, measure_days, open_engine

NUM_BEFORE, NUM_JUDGED, NUM_SHOWN = 44, 14, 20
FIRST_JUDGED = FIRST_DAY + NUM_BEFORE
SEGMENT, SURFACE = "users.state.new.save.label_rate", "impressions.surface.search.save.label_rate"
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


def log_of(scratch: Path, names: tuple[str, str], num_new: int, falls_to: float) -> list:
    """Return the days of 100 users and of a few others who save less in the judged days.

    Args:
        scratch: A folder.
        names: State and surface of the few others.
        num_new: How many these are; each sees NUM_SHOWN pins a day and saves three of them.
        falls_to: The part of their rate that is left.
    """
    rng = np.random.default_rng(4)
    shown, acted = [], []
    for day in range(FIRST_DAY, FIRST_JUDGED + NUM_JUDGED):
        for user in range(100 + num_new):
            time, request = day * DAY_MS + (8 + user % 12) * HOUR_MS, f"r{day}-{user}"
            pins = 1000 + rng.permutation(200)[:NUM_SHOWN]
            shown += [(request, user, int(pin), time, place) for place, pin in enumerate(pins)]
            rate = falls_to if user >= 100 and day >= FIRST_JUDGED else 1.0
            saved = pins[rng.random(NUM_SHOWN) < 0.15 * rate]
            acted += [(user, int(pin), "save", time + 60_000, request) for pin in saved]
            acted.append((user, 9999, "click", time + 60_000, None))  # nobody is ever idle
    states, surfaces = (
        [common] * 100 + [other] * num_new
        for common, other in zip(("core", "home"), names, strict=True)
    )
    return measured(scratch, shown, acted, states, surfaces, NUM_BEFORE + NUM_JUDGED)


@pytest.mark.parametrize(
    ("names", "num_new", "falls_to", "expected"),
    [
        (("new", "home"), 20, 1 / 3, {SEGMENT}),
        (("core", "search"), 20, 1 / 3, {SURFACE}),
        (("new", "search"), 2, 0.0, set()),  # two users save six pins a day, then none at all
        (("new", "search"), 20, 1.0, set()),
    ],
)
def test_a_rate_that_falls_to_a_third_is_told_by_name_where_it_has_enough(
    tmp_path: Path, names: tuple[str, str], num_new: int, falls_to: float, expected: set[str]
) -> None:
    days = log_of(tmp_path, names, num_new, falls_to)
    found = {each.name: each for each in deviations(days[:NUM_BEFORE], days[NUM_BEFORE:])}
    told: dict[str, Deviation] = {n: each for n, each in found.items() if each.times_limit > 1}
    assert told.keys() == expected
    for name, each in told.items():
        assert not each.is_harmful
        assert np.exp([each.found, each.usual]) == pytest.approx([0.05, 0.15], rel=0.1)
        assert describe(each).startswith(f"{name}: 0.0")
    if falls_to == 1:
        assert {SEGMENT, SURFACE} <= found.keys()


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
