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


@pytest.mark.parametrize(
    ("quiet", "worst", "factor", "says"),
    [
        (18, 1.4, 1.4, "1.40 times as wide would have kept to it; set data_gate.limit_factor so in "
         "the recipe"),
        (17, 1.4, None, "19 windows are needed to say how much wider limits would have to be"),
        (38, 3.0, 1.0, "the limits keep to it; nothing has to be set"),  # floors are floors
        (23, 1.6, 1.6, "the limits keep to it; nothing has to be set"),
    ],
)  # fmt: skip
def test_the_factor_is_a_quantile_of_the_largest_deviations_and_is_told(
    quiet: int, worst: float, factor: float | None, says: str
) -> None:
    found = Calibration((*[window(0.5)] * quiet, window(worst, "a", "b")))
    assert found.factor == (factor and pytest.approx(factor))
    *_, told, share, last = calibration_lines(found)
    assert told.endswith(f"largest deviation {worst:.2f} times its limit; warns of a, b")
    assert share.startswith(f"{1 / (quiet + 1):.0%} of {quiet + 1} past windows would have")
    assert last.endswith(says)
