"""Panels of days: where bars and points stand, what is named, what is left out."""

import re
from datetime import date, timedelta

import pytest

from validation.report.charts import LEFT, RIGHT, TOP, WIDTH
from validation.report.days import (
    MANY_DAYS,
    MAX_PANELS,
    PLOT_HEIGHT,
    count_panel,
    days_scale,
    drawn_of,
    share_panel,
)

FIRST = date(2017, 1, 1)
BASE = TOP + PLOT_HEIGHT


def days_of(*numbers: int) -> list[date]:
    return [FIRST + timedelta(days=number) for number in numbers]


def of_days(numbers: dict[int, float]) -> dict[date, float]:
    return {FIRST + timedelta(days=number): value for number, value in numbers.items()}


def outline(svg: str) -> tuple[str, str]:
    return re.findall(r'bars"><path d="([^"]*)" style="stroke-width:([^"]*)"', svg)[0]


def test_bars_stand_on_zero_and_a_day_without_rows_has_none() -> None:
    svg = count_panel("clicks", days_scale(days_of(0, 3)), of_days({0: 40, 1: 20, 3: 10}))
    day, half = (WIDTH - LEFT - RIGHT) / 4, TOP + PLOT_HEIGHT / 2
    places = zip((0.5, 1.5, 3.5), (TOP, half, TOP + 0.75 * PLOT_HEIGHT), strict=True)
    bars = "".join(f"M{round(LEFT + at * day, 1):g} {BASE}V{up:g}" for at, up in places)
    assert outline(svg) == (bars, f"{day:g}")
    middle = f"M{LEFT + (WIDTH - LEFT - RIGHT) / 2:g} {BASE}V{TOP}"  # one day is a bar there
    assert outline(count_panel("clicks", days_scale(days_of(0)), of_days({0: 2})))[0] == middle


@pytest.mark.parametrize(
    ("num", "marked"),
    [
        (2, ["2017-01-01", "2017-01-02"]),
        (4, ["2017-01-01", "2017-01-04"]),
        (5, ["2017-01-01", "2017-01-03", "2017-01-05"]),
        (365, ["2017-01-01", "2017-07-02", "2017-12-31"]),
    ],
)
def test_both_ends_of_the_days_are_marked(num: int, marked: list[str]) -> None:
    assert [text for _, text in days_scale(days_of(0, num - 1)).ticks] == marked


def test_shares_are_percent_and_a_year_of_them_is_a_line_without_marks_and_light() -> None:
    days = days_scale(days_of(0, 364))
    few = share_panel("click", days, of_days(dict.fromkeys(range(MANY_DAYS), 0.04)))
    assert re.findall(r'class="end">([^<]*)<', few)[:3] == ["0", "2", "4"]
    assert (few.count("<circle"), few.count(f'cy="{TOP}"')) == (MANY_DAYS, MANY_DAYS)
    year = of_days({number: 0.01 * (1 + number % 7) for number in range(365)})
    svg = share_panel("click", days, year)
    assert "<circle" not in svg and '<g class="ours line">' in svg
    assert max(len(svg), len(count_panel("click", days, year))) < 8_000


@pytest.mark.parametrize("draw", [count_panel, share_panel])
@pytest.mark.parametrize("numbers", [{}, {0: 0}])
def test_nothing_at_all_is_an_empty_panel(draw, numbers: dict[int, float]) -> None:
    svg = draw('"<i>', days_scale(days_of(0)), of_days(numbers))
    assert svg.startswith('<svg class="panel" role="img" aria-label="&#34;&lt;i&gt;" ')
    assert "nan" not in svg and "inf" not in svg


def test_of_many_names_those_with_the_most_rows_are_drawn_in_their_order() -> None:
    names = {f"action_{number:02d}": number % 30 for number in range(40)}
    shown, num_left_out = drawn_of(names)
    assert (len(shown), num_left_out) == (MAX_PANELS, 40 - MAX_PANELS)
    assert list(shown) == sorted(shown)
    assert min(names[name] for name in shown) >= max(names[n] for n in names if n not in shown)
    assert drawn_of({"b": 1, "a": 2}) == (("b", "a"), 0)
