"""What the overview draws of a snapshot: volumes, label rates and features, before and now.

Each is held against its own limit, so that what moved most comes first whatever its unit. Where
nothing is judged, the recipe's bound stands in for the limit, and the line says so. Not for judging
(`validation.data_gate.shifts`), nor for the page (`validation.report.data_docs`).
"""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise

import numpy as np

from pipelines.contracts.config import FeatureConfig, flag_name
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from validation.data_gate import snapshot_profile as profiles
from validation.data_gate.checks import Judged
from validation.data_gate.shifts import Shift
from validation.report import charts
from validation.report.data_docs import Line

_EPOCH = date(1970, 1, 1).toordinal()


def lines_of(judged: Judged, shifts: Sequence[Shift]) -> Iterator[Line]:
    """Yield each volume, label rate and feature; nothing where shards are not measured."""
    if judged.profile.unmeasured_shards:
        return
    now, before = judged.profile.measures, judged.before.measures
    yield from _volumes(judged)
    for head in judged.snapshot.features.head_names:
        then = f"{before.label_rate(head):.2%} before, " if head in before.positives else ""
        windows = [f"{now.label_rate(head, s):.2%}" for s in (SPLIT_TRAINING, SPLIT_HOLDOUT)]
        told = f"{then}{windows[0]} now in training and {windows[1]} in the holdout"
        own = [shift for shift in shifts if shift.is_rate and shift.partition == head]
        yield Line(f"label rate of {head}, in %", told, *_times(judged, own), _by_day(judged, head))
    names = _bin_names(judged.snapshot.features)
    for name, counts in sorted(now.histograms.items()):
        own = [shift for shift in shifts if not shift.is_rate and shift.partition == name]
        both = [counts, *([before.histograms[name]] if own else [])]
        told, drawn = _distribution(name, both, names[name])
        yield Line(f"{name}, in % of rows", told, *_times(judged, own), drawn)


def _times(judged: Judged, own: Sequence[Shift]) -> tuple[float, bool]:
    """Return the largest of some shifts as a multiple of its limit, and whether it is judged."""
    limits = [(shift, shift.limit(judged.before.shifts)) for shift in own]
    found = ((abs(s.size) / (limit or s.bound), limit is not None) for s, limit in limits)
    return max(found, default=(0.0, False))


def _volumes(judged: Judged) -> Iterator[Line]:
    """Yield how much there is of what a snapshot holds; examples alone are judged."""
    sides = [judged.snapshot, *([judged.reference.snapshot] if judged.reference else [])]
    most, counts = judged.config.max_row_count_change, {"pins": [each.num_pins for each in sides]}
    for what in ("examples", "requests", "users", "actions"):
        counts[what] = [sum(getattr(n, f"num_{what}") for n in each.shards) for each in sides]
    for what, (now, *before) in counts.items():
        drawn = _by_day(judged) if what == "examples" else None
        change = now / before[0] - 1 if before and before[0] else 0.0
        then = f"{change:+.1%}: {before[0]:,} before, " if before else ""
        yield Line(what, f"{then}{now:,} now", abs(change) / most, drawn is not None, drawn)


def _by_day(judged: Judged, head: str = "") -> charts.Drawing:
    """Return the examples of each day, or a head's label rate on it in percent."""
    series: dict[charts.Style, charts.Points] = {}
    for side in (judged.reference, judged) if judged.reference else (judged,):
        columns = ("", *side.snapshot.features.head_names)  # of a day; the first has its examples
        days = sorted(side.profile.measures.days.items()) if head in columns else ()
        series["ours" if side is judged else "theirs"] = [
            (_EPOCH + day, 100 * row[columns.index(head)] / row[0] if head else row[0])
            for day, row in days
            if row[0]
        ]
    return charts.by_day(f"label rate of {head}, in percent" if head else "examples", series)


def _bin_names(features: FeatureConfig) -> dict[str, list[str]]:
    """Return what the bins of each histogram are called; those of numbers by their ends."""
    edges = {profiles.SEQUENCE_LENGTH: profiles.LENGTH_EDGES}
    for each in features.numeric_held:
        known = profiles.NUMERIC_EDGES[each.meaning.scale]
        edges[each.name] = np.expm1(known) if each.meaning.scale == "log1p" else known
    ends = {name: [*map(charts.in_short, of.tolist()), ""] for name, of in edges.items()}
    names = {name: ["–".join(pair) for pair in pairwise(of)] for name, of in ends.items()}
    names |= {flag_name(each.name): ["known", "missing"] for each in features.numeric_held}
    return names | {each.name: ["not listed", *each.values] for each in features.categorical}


def _distribution(
    name: str, both: Sequence[profiles.Counts], bins: Sequence[str]
) -> tuple[str, charts.Drawing]:
    """Return where a distribution moved most, and its shares by bin, now and before."""
    shares = [100 * counts / max(int(counts.sum()), 1) for counts in both]
    filled = np.flatnonzero(sum(both)).tolist() or [0]
    shown = range(filled[0], filled[-1] + 1)
    most = int(np.abs(shares[0] - (shares[1] if shares[1:] else 0)).argmax())
    then = "".join(f"{of[most]:.1f}% before, " for of in shares[1:])
    named = sorted({shown[0], shown[len(shown) // 2], shown[-1]})
    ticks = tuple((place, bins[place]) for place in named)
    series: dict[charts.Style, charts.Points] = {"bars": [(n, shares[0][n]) for n in shown]}
    if shares[1:]:
        series["theirs"] = [(n, shares[1][n]) for n in shown]
    across = charts.Scale("", shown[0] - 0.5, shown[-1] + 0.5, ticks)
    up = charts.scale_from_zero(max(of.max() for of in shares), charts.SMALLEST_TOP)
    drawn = charts.Drawing(f"{name}: share of rows by value, in percent", across, up, series)
    return f"most at {bins[most]}: {then}{shares[0][most]:.1f}% now", drawn
