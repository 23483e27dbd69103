"""Charts: where things stand on an axis, how its ends are named, and what is left out."""

import re
from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from pipelines.contracts.reasons import Interval
from validation.report.charts import (
    DAYS_HEIGHT,
    LEFT,
    MAX_PANELS,
    MOST_MARKED,
    RIGHT,
    SPANS,
    TOP,
    WIDTH,
    axis_of,
    by_day,
    day_panel,
    days_scale,
    drawn_of,
    panel,
    scale_around,
    scale_from_zero,
    scale_of_powers,
    spark,
)


def change(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)


def test_one_that_reaches_far_beyond_the_others_squeezes_none_and_is_cut_at_the_edge() -> None:
    wild = change(-0.4, 0.45)
    axis = axis_of([change(-0.01, 0.01), change(-0.01, 0.008), wild])
    assert axis.span == 0.03 and axis.track(wild)[::2] == (0.0, 100.0)
    assert axis_of([change(-0.01, 0.01), wild]).span > 0.4, "of two neither is the usual one"


@pytest.mark.parametrize(
    ("reach", "span"), [(0.001, 0.02), (0.02, 0.02), (0.0201, 0.03), (0.4, 0.5), (3.0, SPANS[-1])]
)
def test_the_axis_fits_the_changes_and_the_margin(reach: float, span: float) -> None:
    axis = axis_of([change(-reach, reach / 2)], -0.01)
    assert axis.span == span
    assert axis.margin == pytest.approx(50 - 50 * 0.01 / span, abs=0.01)
    assert [text for _, text in axis.ticks][2] == "0 %"
    wide = axis_of([change(-reach, reach)])
    assert wide.margin is None
    assert wide.track(change(-3, 4)) == (0.0, 100.0, 100.0)  # beyond the axis, at its edge
    assert change(-0.02, 0.04).in_percent == "+1.00 % (-2.00 to +4.00)"


@pytest.mark.parametrize(
    ("high", "ends"),
    [(2, "0 1 2"), (2.1, "0 2 4"), (950, "0 500 1k"), (1_482_000, "0 1M 2M"),
     (0.0013, "0 0.001 0.002")],
)  # fmt: skip
def test_an_axis_from_zero_ends_with_a_round_number(high: float, ends: str) -> None:
    for given in ((high, 0.001), (0, high)):
        assert " ".join(text for _, text in scale_from_zero(*given).ticks) == ends


FIRST, ACROSS = date(2017, 1, 1), WIDTH - LEFT - RIGHT


def of_days(numbers: dict[int, float]) -> dict[date, float]:
    return {FIRST + timedelta(days=number): value for number, value in numbers.items()}


@pytest.mark.parametrize(
    ("numbers", "is_share", "places", "marks"),
    [
        ({0: 40, 1: 20, 3: 10}, False, [(0.125, 1), (0.375, 0.5), (0.875, 0.25)], ["0", "20"]),
        ({0: 2}, False, [(0.5, 1)], ["0", "1"]),  # one day is a bar
        ({0: 0.04, 3: 0.01}, True, [(0.125, 1), (0.875, 0.25)], ["0", "2"]),  # percent
        ({0: 0}, False, [(0.5, 0)], ["0", "1"]),
        ({0: 0}, True, [(0.5, 0)], ["0", "0.0005"]),
    ],
)
def test_bars_stand_on_zero_and_a_day_without_rows_has_none(
    numbers: dict[int, float], is_share: bool, places: Sequence, marks: list[str]
) -> None:
    svg = day_panel('"<i>', days_scale(of_days(numbers)), of_days(numbers), is_share)
    assert svg.startswith('<svg class="panel" role="img" aria-label="&#34;&lt;i&gt;" ')
    [bars] = re.findall(r'bars"><path d="([^"]*)"', svg)
    found = [tuple(map(float, each)) for each in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", bars)]
    base = TOP + DAYS_HEIGHT
    tops = [(round(LEFT + a * ACROSS, 1), round(base - u * DAYS_HEIGHT, 1)) for a, u in places]
    assert found == [(across, base, up) for across, up in tops]
    assert f"stroke-width:{ACROSS / max(3, *(day + 1 for day in numbers)):.2f}" in svg
    assert re.findall(r'class="end">([^<]*)<', svg)[:2] == marks


@pytest.mark.parametrize(("num", "middle"), [(2, None), (4, None), (5, 2), (365, 182)])
def test_both_ends_of_the_days_are_marked_and_a_year_of_them_is_light(
    num: int, middle: int | None
) -> None:
    year = of_days({number: 0.01 * (1 + number % 7) for number in range(num)})
    marked = [FIRST + timedelta(days=n) for n in (0, middle, num - 1) if n is not None]
    assert [text for _, text in days_scale(year).ticks] == [f"{day}" for day in marked]
    assert len(day_panel("click", days_scale(year), year, is_share=True)) < 8_000
    assert "nan" not in day_panel("click", days_scale(year), {})


@pytest.mark.parametrize(
    ("kind", "values", "marks"),
    [("around", (40, 90), "0 50 100"), ("around", (60, 80), "60 70 80"),
     ("around", (-0.3, 0.9), "-1 0 1"), ("around", (900, 900), "891 900 909"),
     ("around", (-4, -3), "-4 -3.5 -3"), ("around", (0, 0), "0 0.0005 0.001"),
     ("powers", (0.002, 0.3), "0.001 0.01 0.1 1"), ("powers", (0.1,), "0.01 0.1"),
     ("powers", (0.0, 0.002, 0.03), "0 0.001 0.01 0.1"), ("powers", (0.0,), "0 0.1 1"),
     ("powers", (2e-7, 0.5), "1e-06 0.0001 0.01 1")],
)  # fmt: skip
def test_an_axis_holds_its_values(kind: str, values: tuple[float, ...], marks: str) -> None:
    scale = scale_around(values) if kind == "around" else scale_of_powers(values, "share")
    ticks = sorted(scale.ticks)
    assert " ".join(text for _, text in ticks) == marks and ticks[-1][0] == scale.high
    assert all(scale.low <= value <= scale.high for value in values if value)
    places = [scale.share(place) for place, _ in ticks]
    assert places == sorted({*places}) and (marks[0] != "0" or scale.share(0.0) == 0)


def test_a_long_line_has_no_marks_and_a_spark_neither_axes_nor_marks() -> None:
    points = [(FIRST.toordinal() + n, float(n)) for n in range(MOST_MARKED + 1)]
    few = by_day('"<b>', {"ours": points[1:], "band": [(0, -1e9), (1e9, 9e9)]})
    svg = panel(few)
    assert svg.count("<circle") == MOST_MARKED and "&#34;&lt;b&gt;" in svg and "<b>" not in svg
    # What reaches beyond the days is cut at the edges of the panel.
    assert f'<g class="band"><path d="M{LEFT} 190L{WIDTH - RIGHT} {TOP}"/>' in svg
    assert panel(by_day("", {"ours": points})).count("<circle") == 0
    small = spark(few)
    assert "<text" not in small and "<circle" not in small and 'aria-hidden="true"' in small
    assert "nan" not in panel(by_day("", {}))


def test_of_many_names_those_with_the_most_rows_are_drawn_in_their_order() -> None:
    names = {f"action_{number:02d}": number % 30 for number in range(40)}
    shown, num_left_out = drawn_of(names)
    assert (len(shown), num_left_out) == (MAX_PANELS, 40 - MAX_PANELS)
    assert list(shown) == sorted(shown)
    assert min(names[name] for name in shown) >= max(names[n] for n in names if n not in shown)
    assert drawn_of({"b": 1, "a": 2}) == (("b", "a"), 0)
