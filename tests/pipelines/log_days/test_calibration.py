"""The limits against the past: what counts as an alarm, and which factor would have kept quiet."""

from datetime import date

import pytest

from pipelines.log_days.calibration import Calibration, PastWindow, calibration_lines, past_windows
from support.log_days import FIRST_DAY, profiles
from validation.data_gate.days.gate import date_of


def window(worst: float, *warnings: str) -> PastWindow:
    return PastWindow(date(2024, 1, 1), worst, warnings, is_critical=False)


def test_only_days_before_a_window_count() -> None:
    def values(place: int) -> dict[str, float]:
        return {"impressions.rows": 1000.0, "named.repin.known": 1.0 if place < 50 else 0.5}

    found = list(past_windows(profiles(values, 78), 22))
    assert [each.first for each in found] == [
        date_of(FIRST_DAY + place) for place in (22, 36, 50, 64)
    ]
    assert [bool(each.warnings) for each in found] == [False, False, True, False]
    # By the last window, the days of the third are what is usual.
    assert found[2].is_critical and "named.repin.known" in found[2].warnings


def test_a_day_without_rows_is_a_warning() -> None:
    days = profiles(lambda place: {"impressions.rows": 1000.0}, 36)
    del days[30]
    (only,) = past_windows(days, 22)
    assert only.warnings == (f"no rows on {date_of(FIRST_DAY + 30)}",)


def test_the_factor_is_a_quantile_of_the_largest_deviations() -> None:
    quiet = [window(0.5)] * 18
    assert Calibration((*quiet, window(1.4, "x"))).factor == pytest.approx(1.4)
    few = Calibration(tuple(quiet))
    assert few.factor is None and "19 windows are needed" in [*calibration_lines(few)][-1]
    many = Calibration((*quiet, *quiet, *quiet[:2], window(3.0, "x")))
    assert many.factor == 1.0, "one of 39 is within the budget, and floors are floors"


def test_the_lines_say_how_many_and_what_to_set() -> None:
    found = Calibration((*[window(0.5)] * 18, window(1.4, "a", "b")))
    lines = list(calibration_lines(found))
    assert lines[-3].endswith("largest deviation 1.40 times its limit; warns of a, b")
    assert lines[-2].startswith("5% of 19 past windows would have brought a warning")
    assert lines[-1].endswith("1.40 times as wide would have kept to it; set "
                              "data_gate.limit_factor so in the recipe")  # fmt: skip


def test_limits_that_keep_to_the_budget_are_left_as_they_are() -> None:
    kept = Calibration((*[window(0.5)] * 23, window(1.6, "a")))
    assert kept.factor == pytest.approx(1.6)
    assert [*calibration_lines(kept)][-1] == "the limits keep to it; nothing has to be set"
