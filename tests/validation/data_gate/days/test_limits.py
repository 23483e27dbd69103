"""How far a day may be from the days before."""

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile
from support.log_days import FIRST_DAY, profiles
from validation.data_gate.days.limits import (
    FEWEST_DAYS,
    MARGIN,
    Deviation,
    deviations,
    jensen_shannon,
    kind_of,
)

SHARE = "named.repin.known"
ROWS = "impressions.rows"


def steady(value: float, num_days: int = 56) -> list[DayProfile]:
    return profiles(lambda place: {SHARE: value, ROWS: 10_000.0}, num_days)


def later(num_days: int, **numbers: float) -> list[DayProfile]:
    named = {name.replace("__", "."): value for name, value in numbers.items()}
    return profiles(lambda place: named, num_days, FIRST_DAY + 56)


def told(found: tuple[Deviation, ...]) -> set[tuple[str, str]]:
    return {(each.name, each.level) for each in found if each.times_limit > 1}


def of(found: tuple[Deviation, ...], name: str, level: str) -> Deviation:
    (one,) = [each for each in found if (each.name, each.level) == (name, level)]
    return one


def test_a_number_that_never_moved_has_a_narrow_limit() -> None:
    found = deviations(steady(1.0), later(7, named__repin__known=0.9, impressions__rows=10_000.0))
    assert told(found) == {(SHARE, "day"), (SHARE, "run")}
    run = of(found, SHARE, "run")
    assert run.effect == pytest.approx(-0.1)
    assert run.limit == pytest.approx(kind_of(SHARE).run_floor * (1 + FEWEST_DAYS / 56))


def test_a_change_below_the_floor_is_never_told() -> None:
    found = deviations(steady(1.0), later(7, named__repin__known=0.985, impressions__rows=9_000.0))
    assert told(found) == set()


def test_a_number_that_moves_by_itself_has_a_wide_limit() -> None:
    rng = np.random.default_rng(1)
    restless = profiles(lambda place: {SHARE: float(rng.uniform(0.4, 0.9))}, 56)
    found = deviations(restless, later(7, named__repin__known=0.3))
    day = of(found, SHARE, "day")
    assert day.times_limit < 1
    largest = max(abs(p.numbers[SHARE].value - day.usual) for p in restless)
    assert day.limit >= MARGIN * largest * 0.6  # weekdays take some of it


def test_a_recipe_may_widen_limits() -> None:
    now = later(7, named__repin__known=0.97, impressions__rows=10_000.0)
    assert (SHARE, "run") in told(deviations(steady(1.0), now))
    assert told(deviations(steady(1.0), now, limit_factor=2.0)) == set()


def test_weekdays_are_told_apart() -> None:
    def weekend(place: int) -> dict[str, float]:
        return {ROWS: 10_000.0 if (FIRST_DAY + place) % 7 < 5 else 30_000.0}

    history = profiles(weekend, 56)
    assert told(deviations(history, profiles(weekend, 7, FIRST_DAY + 56))) == set()
    flat = profiles(lambda place: {ROWS: 10_000.0}, 7, FIRST_DAY + 56)
    day = of(deviations(history, flat), ROWS, "day")
    assert day.times_limit > 1 and day.day % 7 in (5, 6)


def test_a_type_without_rows_is_a_number_too() -> None:
    history = profiles(lambda place: {"actions.repin.rows": 900.0}, 56)
    found = deviations(history, later(7, impressions__rows=10_000.0))
    assert told(found) == {("actions.repin.rows", "day"), ("actions.repin.rows", "run")}
    assert of(found, "actions.repin.rows", "run").effect < -5


def test_a_rare_type_comes_in_bursts() -> None:
    def rare(value: float) -> list[DayProfile]:
        days = profiles(lambda place: {"actions.save.rows": value}, 56)
        return [
            day.model_copy(
                update={
                    "numbers": {
                        "actions.save.rows": day.numbers["actions.save.rows"].model_copy(
                            update={"num": int(value)}
                        )
                    }
                }
            )
            for day in days
        ]

    moved = [d.model_copy(update={"day": d.day + 56}) for d in rare(25.0)[:7]]
    assert told(deviations(rare(13.0), moved)) == set()
    gone = [d.model_copy(update={"numbers": {}, "day": d.day + 56}) for d in rare(1.0)[:7]]
    assert ("actions.save.rows", "run") in told(deviations(rare(13.0), gone))


def test_with_a_short_history_nothing_is_judged() -> None:
    short = profiles(lambda place: {SHARE: 1.0}, FEWEST_DAYS - 1, FIRST_DAY + 56 - FEWEST_DAYS)
    assert deviations(short, later(7, named__repin__known=0.0)) == ()
    assert deviations(steady(1.0), []) == ()


def test_only_so_many_days_count() -> None:
    long_ago = profiles(lambda place: {SHARE: 0.0}, 100, FIRST_DAY - 200)
    now = later(7, named__repin__known=1.0, impressions__rows=1e4)
    found = deviations([*long_ago, *steady(1.0)], now)
    assert told(found) == set()


def with_counts(days: list[DayProfile], name: str, counts: dict[str, int]) -> list[DayProfile]:
    return [day.model_copy(update={"counts": {name: counts}}) for day in days]


def test_other_shares_of_categories_are_told() -> None:
    name = "impressions.shelf"
    usual, other = {"a": 700, "b": 300}, {"a": 50, "b": 950}
    history = with_counts(steady(1.0), name, usual)
    same = with_counts(later(7, impressions__rows=1e4), name, {"a": 690, "b": 310})
    assert told(deviations(history, same)) == set()
    changed = with_counts(later(7, impressions__rows=1e4), name, other)
    assert (name, "run") in told(deviations(history, changed))


def test_a_value_never_seen_and_a_null_are_numbers() -> None:
    name = "impressions.shelf"
    history = with_counts(steady(1.0), name, {"a": 700, "b": 300})
    now = with_counts(
        later(7, impressions__rows=1e4), name, {"a": 600, "b": 150, "c": 200, "(null)": 50}
    )
    found = deviations(history, now)
    assert of(found, f"{name}.never_seen", "run").found == pytest.approx(0.25)
    assert of(found, f"{name}.null", "run").found == pytest.approx(0.05)
    assert {(f"{name}.never_seen", "run"), (f"{name}.null", "run")} <= told(found)


def test_the_hour_about_which_events_lie_moves_with_them() -> None:
    name = "impressions.hour"
    history = with_counts(steady(1.0), name, {"20": 300, "21": 400, "22": 300})
    shifted = with_counts(later(7, impressions__rows=1e4), name, {"23": 300, "0": 400, "1": 300})
    found = deviations(history, shifted)
    assert of(found, f"{name}.centre", "run").usual % 24 == pytest.approx(21.5)
    assert (f"{name}.centre", "run") in told(found)


def test_events_that_are_spread_over_the_day_have_no_hour() -> None:
    name = "impressions.hour"
    even = {str(hour): 100 + (hour == 3) for hour in range(24)}
    history = with_counts(steady(1.0), name, even)
    other = {str(hour): 100 + (hour == 15) for hour in range(24)}
    found = deviations(history, with_counts(later(7, impressions__rows=1e4), name, other))
    assert f"{name}.centre" not in {each.name for each in found}
    assert told(found) == set()


def test_midnight_is_no_jump() -> None:
    name = "impressions.hour"
    before, after = {"23": 600, "0": 400}, {"23": 400, "0": 600}
    history = with_counts(steady(1.0), name, before)
    found = deviations(history, with_counts(later(7, impressions__rows=1e4), name, after))
    assert abs(of(found, f"{name}.centre", "run").effect) == pytest.approx(0.2, abs=0.02)
    assert told(found) == set()


def test_the_distance_is_zero_for_equal_shares_and_one_for_none_in_common() -> None:
    usual = np.array([1.0, 3.0, 0.0])
    rows = np.array([[10.0, 30.0, 0.0], [0.0, 0.0, 5.0], [4.0, 0.0, 0.0]])
    found = jensen_shannon(rows, usual)
    assert found[:2] == pytest.approx([0.0, 1.0])
    # By hand, p = (1, 0), q = (1/4, 3/4), middle = (5/8, 3/8), in bits.
    p, q = np.log2(8 / 5), 0.25 * np.log2(2 / 5) + 0.75 * np.log2(2)
    assert found[2] == pytest.approx(np.sqrt((p + q) / 2))
