"""The verdict's drawings for MLflow: what they show, and that they are light."""

import io
import re
from html import unescape
from pathlib import Path

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from pipelines.contracts.config import Limit, ModelGateConfig
from pipelines.contracts.judgement import Comparison, Interval, Judgement, OperatingPoint
from support.holdouts import AGAINST_CHAMPION, HEADS, judged, noisy_scores, planted_rows
from validation.report import plots
from validation.report.interval_rows import SPANS, span_of

CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),), num_resamples=200
)


CURVE = tuple(
    OperatingPoint(
        true_change=0.01 * k, promoted=0.5 + 0.2 * k, rejected=0.5 - 0.2 * k, year_quality=0
    )
    for k in (-2, 0, 2)
)


@pytest.fixture(scope="module")
def judgement() -> Judgement:
    rows, truth = planted_rows(num_users=100)
    good, fair = noisy_scores(truth, 0.2, 1), noisy_scores(truth, 1.0, 2)
    found = judged(rows, good, fair, AGAINST_CHAMPION, CONFIG)
    return found.model_copy(update={"operating_curve": CURVE})


@pytest.fixture(scope="module")
def comparison(judgement: Judgement) -> Comparison:
    return judgement.comparison


def forest_row(low: float, high: float, metric: str = "repin_volume_at_3") -> plots.ForestRow:
    change = Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)
    return plots.ForestRow(metric, "all", change, metric == "repin_volume_at_3")


def test_the_plots_are_small_png_files(judgement: Judgement, tmp_path: Path) -> None:
    plots.write_drawings(judgement, -0.01, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"changes.png", "reliability.png", "operating_curve.png"}
    for name in names:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG") and 5_000 < len(content) < 200_000


def test_where_there_is_nothing_to_draw_nothing_is_written(
    judgement: Judgement, tmp_path: Path
) -> None:
    nothing = judgement.comparison.model_copy(update={"metrics": (), "reliability": ()})
    bare = judgement.model_copy(update={"comparison": nothing, "operating_curve": ()})
    plots.write_drawings(bare, -0.01, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_forest_puts_the_headline_first_and_stays_inside() -> None:
    rows = (forest_row(-3.0, 4.0), forest_row(-3.0, 4.0, "hit_at_3.save"))
    figure = plots.draw_changes(rows, -0.01)
    (axes,) = figure.axes

    assert span_of([row.change for row in rows], -0.01) == SPANS[-1] == 0.5
    assert axes.get_xlim() == (-0.5, 0.5)
    levels = [line for line in axes.lines if line.get_color() in (plots.OURS, plots.SOFT)]
    assert len(levels) == 2 * len(rows)
    for line in levels:
        assert -0.5 <= min(line.get_xdata()) and max(line.get_xdata()) <= 0.5
    first, second = axes.get_yticklabels()
    assert (first.get_text(), second.get_text()) == ("repin_volume_at_3, all", "hit_at_3.save, all")
    assert first.get_position()[1] < second.get_position()[1]  # and the axis points down:
    assert axes.yaxis_inverted()
    assert (first.get_fontweight(), second.get_fontweight()) == ("bold", "normal")


def texts_of(figure: Figure) -> list[str]:
    """Return the texts of a drawing as they are drawn; a formula would not be among them."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg")
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", buffer.getvalue())]


def test_the_drawing_holds_the_numbers_as_text() -> None:
    texts = texts_of(plots.draw_changes((forest_row(-0.02, 0.04, "<b>&"),), -0.01))
    assert "+1.00 %  (-2.00 to +4.00)" in texts
    assert "<b>&, all" in texts


@pytest.mark.parametrize("name", ["cost $a$ b", r"$\frac{$", "50 % of $"])
def test_a_name_is_no_formula(name: str) -> None:
    texts = texts_of(plots.draw_changes((forest_row(-0.02, 0.04, name),), -0.01))
    assert f"{name}, all" in texts


def test_the_margin_is_drawn_where_there_is_one() -> None:
    row = forest_row(-0.02, 0.04)
    assert "dashed: margin -1 %" in texts_of(plots.draw_changes((row,), -0.01))
    assert "margin" not in "".join(texts_of(plots.draw_changes((row,), 0.0)))


@pytest.mark.parametrize(
    ("reach", "span"), [(0.001, 0.02), (0.02, 0.02), (0.0201, 0.03), (0.4, 0.5), (3.0, 0.5)]
)
def test_the_axis_fits_the_changes(reach: float, span: float) -> None:
    assert span_of([forest_row(-reach, reach / 2).change], -0.01) == span


def test_each_head_has_a_panel_with_both_sides_inside(comparison: Comparison) -> None:
    panels = plots.draw_reliability(comparison).axes
    assert [panel.get_title() for panel in panels] == [head.name for head in HEADS]
    for panel in panels:
        assert panel.get_xlim() == panel.get_ylim()
        diagonal, *sides = panel.lines
        assert [side.get_label() for side in sides] == ["baseline", "challenger"]
        for side in sides:
            assert len(side.get_xdata()) == 10
            assert max(*side.get_xdata(), *side.get_ydata()) <= panel.get_xlim()[1]
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())


def test_five_heads_stand_in_two_rows(comparison: Comparison) -> None:
    bins = tuple(
        point.model_copy(update={"head": f"{point.head}{copy}"})
        for copy in "abcd"
        for point in comparison.reliability
        if copy == "a" or point.head == "repin"
    )
    figure = plots.draw_reliability(comparison.model_copy(update={"reliability": bins}))
    assert len(figure.axes) == 5
    width, height = figure.get_size_inches()
    assert width / height == pytest.approx(3 / 2)


def test_the_operating_curve_shows_each_cycle_and_a_year() -> None:
    each, year = plots.draw_operating_curve(CURVE).axes
    promoted, rejected = each.get_lines()
    assert list(promoted.get_ydata()) == pytest.approx([10, 50, 90])
    assert list(rejected.get_ydata()) == pytest.approx([90, 50, 10])
    assert "mean of a year" in year.get_title()


def test_what_does_not_fit_a_drawing_keeps_the_headline(comparison: Comparison) -> None:
    target = next(row for row in comparison.metrics if row.relative_change is not None)
    rows = tuple(
        target.model_copy(update={"metric": f"hit_at_3.h{head}", "segment": segment})
        for head in range(20)
        for segment in ("all", *(f"s{number}" for number in range(40)))
    )
    many = comparison.model_copy(update={"metrics": (*comparison.metrics, *rows)})
    found = plots.forest_rows(many)
    assert len(found) == plots.MAX_FOREST_ROWS < len(plots.forest_rows(many, None))
    assert (found[0].metric, found[0].segment) == (comparison.target_metric, "all")
    assert {f"hit_at_3.h{head}" for head in range(20)} <= {r.metric for r in found}
