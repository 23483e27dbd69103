"""The page of a decay lab: the curve with its band, the matrix, and what each cadence costs.

One HTML file without scripts, as the others are. Not for the statistics (`validation.decay`).
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import pairwise

from markupsafe import Markup

from pipelines.contracts.decay import CadenceCost, DayChange, Decay, DecayCurve, WarmStart
from validation.decay.cadence import cheapest, turning_points
from validation.report.charts import SPANS, Drawing, Points, Scale, Style, panel, scale_around
from validation.report.pages import environment

_DEEPEST = 0.1
"""Change whose cell of the matrix has the full colour; one tenth is seen at every sample."""
_LEVELS, _NO_CHANGE = 4, "#d0d7de"
"""Colours on each side of no change, as more are not told apart; no change is not blank."""
_HEAT_WIDTH, _HEAT_HEIGHT, _GAP, _TICK = 640, 230, 3, 80
"""Of the map's cells, between cells that are no neighbours, and which room a day's name takes."""


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
        heat=draw_days(decay.days),
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


def draw_days(days: Sequence[DayChange]) -> tuple[Markup, list[tuple[str, str]]] | None:
    """Return the heat map of changes by day and age, and its legend: colours and what they mean.

    Where no change is known the map is blank; None: it would be blank everywhere.
    """
    known = [(each, each.change) for each in days if each.change is not None]
    if not known:
        return None
    sizes = sorted(abs(change) for _, change in known)
    usual = sizes[int(0.95 * (len(sizes) - 1))]
    span = next((span for span in SPANS if usual <= span), SPANS[-1])
    columns, wide = _places([each.day.toordinal() for each, _ in known], _HEAT_WIDTH)
    rows, high = _places([each.age_days for each, _ in known], _HEAT_HEIGHT)
    height = max(rows.values()) + high
    cells: dict[int, list[tuple[float, float]]] = {}
    for each, change in known:
        level = round(_LEVELS * max(min(change / span, 1.0), -1.0))
        place = columns[each.day.toordinal()], height - high - rows[each.age_days]
        cells.setdefault(level, []).append(place)
    ages = [
        (height - (rows[first] + rows[last] + high) / 2, f"{first}" + f"–{last}" * (last > first))
        for first, last in _runs(rows)
    ]
    marks, free = [], 0.0
    for first, _ in _runs(columns):
        if columns[first] >= free:
            marks.append((columns[first], date.fromordinal(first).isoformat()))
            free = columns[first] + _TICK
    colour = {level: _colour(level / _LEVELS, 1.0) for level in range(-_LEVELS, _LEVELS + 1)}
    colour[0] = _NO_CHANGE
    drawn = environment().get_template("heat.svg.j2").render(
        cells=[(colour[level], places) for level, places in sorted(cells.items())],
        wide=wide, high=high, width=max(columns.values()) + wide, height=height,
        ages=ages, marks=marks,
    )  # fmt: skip
    shares = {level: 100 * span * level / _LEVELS for level in colour}
    legend = [(colour[level], f"{shares[level]:+g} %" if level else "0 %") for level in colour]
    return Markup(drawn), legend  # noqa: S704 - the template escapes every value


def _places(values: Sequence[int], room: float) -> tuple[dict[int, float], float]:
    """Return where each value's cells begin, in ascending order, and how long a cell is."""
    ordered = sorted(set(values))
    size = round(max(room / len(ordered), 3.0), 1)
    places = {ordered[0]: 0.0}
    for before, value in pairwise(ordered):
        places[value] = round(places[before] + size + (_GAP if value > before + 1 else 0), 1)
    return places, size


def _runs(places: dict[int, float]) -> list[tuple[int, int]]:
    """Return the first and the last of neighbouring values."""
    firsts = [value for value in places if value - 1 not in places]
    return [*zip(firsts, (value for value in places if value + 1 not in places), strict=True)]


def _rows(decay: Decay) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Yield each model's day and its cells: text in percent, and colour."""
    for as_of, row in zip(decay.as_of, decay.matrix, strict=False):
        cells = [("", "") if v is None else (f"{100 * v:+.1f}", _colour(v)) for v in row]
        yield f"{as_of:%Y-%m-%d}", cells


def _colour(change: float, deepest: float = _DEEPEST) -> str:
    """Return the background of a cell: red where a model loses, green where it gains."""
    strength = min(abs(change) / deepest, 1.0) * (0.55 if deepest == _DEEPEST else 0.9)
    return f"rgba({'207,34,46' if change < 0 else '26,127,55'},{strength:.2f})"
