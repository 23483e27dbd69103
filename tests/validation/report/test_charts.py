"""Charts: where things stand on an axis, and how its ends are named."""

import pytest

from pipelines.contracts.reasons import Interval
from validation.report.charts import (
    SPANS,
    axis_of,
    change_with_interval,
    even_scale,
    in_short,
    scale_from_zero,
)


def change(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)


@pytest.mark.parametrize(
    ("reach", "span"), [(0.001, 0.02), (0.02, 0.02), (0.0201, 0.03), (0.4, 0.5), (3.0, 0.5)]
)
def test_the_axis_fits_the_changes_and_the_margin(reach: float, span: float) -> None:
    axis = axis_of([change(-reach, reach / 2)], -0.01)
    assert axis.span == span
    assert axis.margin == pytest.approx(50 - 50 * 0.01 / span, abs=0.01)
    assert [text for _, text in axis.ticks][2] == "0 %"
    assert axis_of([change(-reach, reach)]).margin is None


def test_what_lies_beyond_the_axis_is_drawn_at_its_edge() -> None:
    wide = change(-3.0, 4.0)
    track = axis_of([wide]).track(wide)
    assert axis_of([wide]).span == SPANS[-1]
    assert (track.low, track.middle, track.high) == (0.0, 100.0, 100.0)
    assert change_with_interval(change(-0.02, 0.04)) == "+1.00 % (-2.00 to +4.00)"


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
    for given in ((high, 0.001), (0, high)):
        assert " ".join(text for _, text in scale_from_zero(*given, in_short).ticks) == ends
    assert [text for _, text in even_scale("", -2, 2, " %").ticks] == ["-2 %", "0 %", "2 %"]
