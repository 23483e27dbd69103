"""Panels of days: where bars and points stand, what is named, and what is left out."""

import re
from datetime import date, timedelta

import pytest

from validation.report.day_panels import (
    MANY_DAYS,
    MAX_PANELS,
    PLOT_HEIGHT,
    OfDays,
    count_panel,
    days_scale,
    drawn_of,
    share_panel,
)
from validation.report.panels import LEFT, RIGHT, TOP, WIDTH, in_short, scale_from_zero

FIRST = date(2017, 1, 1)
BASE = TOP + PLOT_HEIGHT


def days_of(*numbers: int) -> list[date]:
    return [FIRST + timedelta(days=number) for number in numbers]


def of_days(numbers: dict[int, float], style: str = "ours") -> OfDays:
    return OfDays("click", style, {FIRST + timedelta(days=n): v for n, v in numbers.items()})


def outline(svg: str) -> str:
    return re.findall(r'bars"><path d="([^"]*)"', svg)[0]


def test_bars_stand_on_zero_and_a_day_without_rows_has_none() -> None:
    svg = count_panel("clicks", days_scale(days_of(0, 3)), [of_days({0: 40, 1: 20, 3: 10})])
    day = (WIDTH - LEFT - RIGHT) / 4
    (first, second) = outline(svg).split("M")[1:]
    assert (
        first
        == f"{LEFT} {BASE}V{TOP}H{LEFT + day:g}V{TOP + PLOT_HEIGHT / 2:g}H{LEFT + 2 * day:g}V{BASE}"
    )
    assert (
        second == f"{LEFT + 3 * day:g} {BASE}V{TOP + 0.75 * PLOT_HEIGHT:g}H{WIDTH - RIGHT}V{BASE}"
    )


def test_one_day_is_a_bar_in_the_middle() -> None:
    days = days_scale(days_of(0))
    assert (days.share(FIRST.toordinal()), days.ticks) == (0.5, ((736330.0, "2017-01-01"),))
    third = (WIDTH - LEFT - RIGHT) / 3
    across = f"M{LEFT + third:.1f} {BASE}V{TOP}H{LEFT + 2 * third:.1f}V{BASE}"
    assert outline(count_panel("clicks", days, [of_days({0: 2})])) == across


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


def test_shares_are_percent_and_both_windows_are_drawn() -> None:
    lines = [of_days({0: 0.02, 1: 0.01}), of_days({2: 0.04}, "theirs")]
    svg = share_panel("Share of click", days_scale(days_of(0, 2)), lines)
    assert re.findall(r'class="end">([^<]*)<', svg)[:3] == ["0", "2", "4"]
    assert (svg.count("<circle"), svg.count("<rect")) == (2, 1)
    (height,) = re.findall(r'<rect x="[\d.]+" y="([\d.]+)"', svg)
    assert float(height) == TOP - 3  # 4 % is the end of the axis


def test_a_year_of_shares_is_a_line_without_marks_and_light() -> None:
    year = of_days({number: 0.01 * (1 + number % 7) for number in range(365)})
    days = days_scale(days_of(0, 364))
    svg = share_panel("click", days, [year])
    assert "<circle" not in svg and '<g class="ours line">' in svg
    assert max(len(svg), len(count_panel("click", days, [year]))) < 8_000
    few = of_days(dict.fromkeys(range(MANY_DAYS), 0.01))
    assert share_panel("click", days, [few]).count("<circle") == MANY_DAYS


@pytest.mark.parametrize("draw", [count_panel, share_panel])
def test_nothing_at_all_is_an_empty_panel(draw) -> None:
    svg = draw('"<i>', days_scale(days_of(0)), [of_days({}), of_days({0: 0})])
    assert svg.startswith('<svg class="panel" role="img" aria-label="&#34;&lt;i&gt;" ')
    assert "nan" not in svg and "inf" not in svg


def test_of_many_names_those_with_the_most_rows_are_drawn_in_their_order() -> None:
    names = {f"action_{number:02d}": number % 30 for number in range(40)}
    shown, num_left_out = drawn_of(names)
    assert (len(shown), num_left_out) == (MAX_PANELS, 40 - MAX_PANELS)
    assert list(shown) == sorted(shown)
    assert min(names[name] for name in shown) >= max(names[n] for n in names if n not in shown)
    assert drawn_of({"b": 1, "a": 2}) == (("b", "a"), 0)


@pytest.mark.parametrize(
    ("high", "ends"),
    [
        (2, "0 1 2"),
        (2.1, "0 2 4"),
        (950, "0 500 1k"),
        (1_482_000, "0 1M 2M"),
        (0.0013, "0 0.001 0.002"),
    ],
)
def test_an_axis_from_zero_ends_with_a_round_number(high: float, ends: str) -> None:
    assert " ".join(text for _, text in scale_from_zero(high, in_short).ticks) == ends
