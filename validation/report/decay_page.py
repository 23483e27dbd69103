"""The page of a decay lab: the curve with its band, the matrix, and what each cadence costs.

One HTML file without scripts, as the others are. Not for the statistics (`validation.decay`).
"""

from collections.abc import Iterable, Iterator

from markupsafe import Markup

from pipelines.contracts.decay import CadenceCost, Decay, DecayCurve, WarmStart
from validation.decay.cadence import cheapest, turning_points
from validation.report.charts import Drawing, Points, Scale, Style, panel, scale_around
from validation.report.pages import environment

_DEEPEST = 0.1
"""Change whose cell of the matrix has the full colour; one tenth is seen at every sample."""


def render_decay(decay: Decay) -> str:
    """Return the page as HTML."""
    by_kind = {(curve.metric, curve.segment, curve.stale): curve for curve in decay.curves}
    main = by_kind.get((decay.target_metric, "all", "weights"))
    other = by_kind.get((decay.target_metric, "all", "actions"))
    template = environment().get_template("decay.html.j2")
    return template.render(
        decay=decay,
        main=main,
        drawn=draw_curves(main, other) if main else None,
        rows=[(curve, curve.points[0], curve.points[-1]) for curve in decay.curves],
        matrix=list(_rows(decay)),
        best=cheapest(decay.cadences),
        turns=turning_points(decay.cadences) if decay.core_hours else [],
        named=named,
        warm_told=warm_told,
    )


def sentences(decay: Decay) -> Iterator[str]:
    """Yield what was found, a line each."""
    for curve in decay.curves:
        said = f"{curve.metric}, {curve.segment} users, stale {curve.stale}"
        last = curve.points[-1]
        yield f"{said}: {last.change.in_percent} after {last.lag_days} days"
    for each in decay.cadences:
        cost = f", costs {each.cost.value:.3f} core-hours a day" if each.cost else ""
        yield f"retrained {named(each)}: loses {100 * each.lost.value:.2f} %{cost}"
        if each.warm:
            yield f"warm starts for as much: {each.warm.in_percent}"
    if decay.warm:
        yield from warm_told(decay.warm)
    if (best := cheapest(decay.cadences)) and best.chance is not None:
        yield f"cheapest: {named(best)}, in {best.chance:.0%} of curves that fit"


def warm_told(warm: WarmStart) -> Iterator[str]:
    """Yield how warm models compare with ones from scratch, and what they cost."""
    for change, where in ((warm.own, "its own window"), (warm.later, "the next window")):
        if change:
            yield f"a warm start against one from scratch: {change.in_percent} on {where}"
    scratch = f" instead of {warm.scratch_s:.0f}" if warm.scratch_s else ""
    share = f", a cycle {warm.cost_share:.2f} times as much" if warm.cost_share else ""
    yield f"a warm training costs {warm.training_s:.0f} processor seconds{scratch}{share}"


def named(cadence: CadenceCost) -> str:
    """Return a cadence for people."""
    if cadence.days is None:
        return "never"
    return "every day" if cadence.days == 1 else f"every {cadence.days:g} days"


def draw_curves(main: DecayCurve, other: DecayCurve | None = None) -> Markup:
    """Return a panel of the change in percent by lag: the curve, its band, stale actions dashed."""
    lags = [0.0, *(float(point.lag_days) for point in main.points)]
    band = [main.expected(lag) for lag in lags[1:]]
    low, high = [0.0, *(100 * b.low for b in band)], [0.0, *(100 * b.high for b in band)]
    values = [0.0, *(100 * point.change.value for point in main.points)]
    theirs = [(0.0, 0.0)]
    theirs += [(float(p.lag_days), 100 * p.change.value) for p in (other.points if other else ())]
    ticks = tuple((lag, f"{lag:g}") for lag in (0.0, lags[len(lags) // 2], lags[-1]))
    across = Scale("days between the trainings", 0.0, lags[-1], ticks)
    label = f"Change of {main.metric} by the age of the model, in percent, with its band"
    around = [*zip(lags, low, strict=True), *reversed([*zip(lags, high, strict=True)])]
    series: dict[Style, Points] = {"band": around, "ours": [*zip(lags, values, strict=True)]}
    if other:
        series["theirs"] = theirs
    return panel(Drawing(label, across, scale_around([*low, *high]), series))


def _rows(decay: Decay) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Yield each model's day and its cells: text in percent, and colour."""
    for as_of, row in zip(decay.as_of, decay.matrix, strict=False):
        cells = [("", "") if v is None else (f"{100 * v:+.1f}", _colour(v)) for v in row]
        yield f"{as_of:%Y-%m-%d}", cells


def _colour(change: float) -> str:
    """Return the background of a cell: red where a model loses, green where it gains."""
    strength = min(abs(change) / _DEEPEST, 1.0) * 0.55
    return f"rgba({'207,34,46' if change < 0 else '26,127,55'},{strength:.2f})"
