"""The index of all cycles: what serves, who served when, what each cycle came to, what it cost.

One HTML file that opens without a network and without scripts, below 300 kB whatever it tells of.
The file in the workspace shows no time of its own: the same facts give the same page. What Airflow
serves is made at an instant, and tells what runs and when the next cycle is due. Not for reading
the facts (`pipelines.cycles`).
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any

from markupsafe import Markup

from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.cycle import CycleFacts, IndexFacts
from pipelines.contracts.reasons import Interval
from validation.decay.cadence import cheapest
from validation.report.charts import Axis, axis_of, by_day, panel
from validation.report.costs import NOT_KNOWN, cost_rows, hours_of, price_of
from validation.report.decay_page import named
from validation.report.pages import environment, within_limit
from validation.report.verdict_page import draw_line

MAX_CHAMPIONS = 60
MAX_TEXT = 280
"""Letters of a sentence that a cycle tells; its own page has the whole of it."""
NUM_EARLIER = 5
NUM_TOLD = 10
"""Cycles of which a lead is told what they brought together."""
_NOT_TOLD = (NOT_KNOWN, "0.0 s", "")
_COSTS = {"wall": "stages took", "cpu": "CPU", "gpu": "GPU", "peak": "peak", "price": "price"}
_STYLES = {
    "PROMOTE": "is-good",
    "INCONCLUSIVE": "is-warn",
    "void": "is-warn",
    "REJECT": "is-bad",
    "data gate failed": "is-bad",
    "broken": "is-bad",
    "not readable": "is-bad",
}


def render_cycles(facts: IndexFacts, now: datetime | None = None) -> str:
    """Return the index as HTML, as it is at an instant; None: the copy in the workspace."""
    changes = [line.outcome.change for line in facts.cycles if line.outcome]
    axis = axis_of([change for change in changes if change])
    rows = [_row(line, axis, facts) for line in facts.cycles]
    costed = [line.costs for line in facts.cycles if line.costs]
    earlier = costed[1 : NUM_EARLIER + 1]
    served = [
        f"for {(later.since - span.since).total_seconds() / 86400:.1f} days"
        for later, span in pairwise(facts.champions)
    ]
    # What happened last, whatever its day: a mistyped day may lie years ahead.
    beginning = datetime.min.replace(tzinfo=UTC)
    newest = max(rows, key=lambda row: row["line"].began_at or row["line"].broke_at or beginning,
                 default=None)  # fmt: skip
    lifts = [change for each in facts.ledger for change in (each.change, each.offline) if change]
    values = {
        "facts": facts,
        "ledger": facts.ledger[:MAX_CHAMPIONS],
        "accounts": facts.accounts,
        "ledger_axis": axis_of(lifts),
        "champions": [
            (span, how_long, _shortened(span.reason))
            for span, how_long in zip(facts.champions, ["still", *served], strict=False)
        ][:MAX_CHAMPIONS],
        "axis": axis,
        "counts": Counter(line.word for line in facts.cycles),
        "serving": facts.champions[0] if facts.champions else None,
        "newest": newest,
        "costs": cost_rows(costed[0], earlier, facts.prices) if costed else (),
        "num_earlier": len(earlier),
        "shown_first": _shown_first(facts.cycles),
        "line": next((drawn for line in facts.cycles if (drawn := draw_line(line.line))), None),
        "answers": answers(facts),
        "now": now,
        "running": _running(facts.cycles, now) if now else "",
    }
    template = environment().get_template("cycles.html.j2")
    return within_limit(lambda num: template.render(cycles=rows[:num], **values), len(rows))


def answers(facts: IndexFacts) -> list[tuple[str, str]]:
    """Return what a lead asks, and what is known of it: pay, cadence, what came, what it cost."""
    decay, days = facts.decay, [line.as_of for line in facts.cycles[:NUM_TOLD] if line.as_of]
    gaps = [(later - earlier).total_seconds() / 86400 for later, earlier in pairwise(days)]
    usual = median(gap for gap in gaps if gap > 0) if any(gap > 0 for gap in gaps) else 14.0
    pays = cadence = "Not measured: run homefeed decay."
    if decay and decay.cadences:
        ours = min(decay.cadences[:-1], key=lambda each: abs((each.days or 0) - usual))
        pays = f"{named(ours)} keeps {ours.kept.in_percent} of {decay.target_metric}"
        pays = f"Retraining {pays} against never, by {len(decay.as_of)} models."
        best = cheapest(decay.cadences)
        if best is not None and best.chance is not None:
            cadence = f"{named(best)} would cost least, in {best.chance:.0%} of curves that fit;"
            cadence = f"With 1 % of it a day worth {decay.value:g} core-hours, retraining {cadence}"
            cadence += f" cycles came every {usual:g} days."
    told = facts.cycles[:NUM_TOLD]
    moved = [line.outcome.change for line in told if line.promoted and line.outcome]
    changes = [change for change in moved if change]
    half = math.hypot(*((change.high - change.low) / 2 for change in changes))
    whole = sum(change.value for change in changes)
    came = f"{len(moved)} of {len(told)} promoted a model"
    if changes:
        together = Interval(value=whole, low=whole - half, high=whole + half, confidence=0.95)
        came += f", by their verdicts {together.in_percent} together"
    stages, cost = [stage for line in told for stage in line.costs], "Not measured."
    if (hours := hours_of(stages)) is not None:
        cost = f"{hours[0]:.2f} core-hours" + (f" and {hours[1]:.2f} GPU-hours" if hours[1] else "")
        priced = price_of(stages, facts.prices)
        cost += f", {priced} by your prices of an hour." if priced else "."
    return [
        ("Does retraining pay?", pays),
        ("Is the cadence right?", cadence),
        (f"What did the last {len(told)} cycles bring?", f"{came}."),
        ("What did they cost?", cost),
    ]


def _shown_first(cycles: Sequence[CycleFacts]) -> dict[str, Markup]:
    """Return a panel by day for each number of what champions showed first, in percent."""
    points: dict[str, dict[float, float]] = {}
    for day, shown in ((c.as_of, c.shown_first) for c in cycles if c.as_of):
        for name, value in shown.items():
            points.setdefault(name, {})[day.toordinal()] = 100 * value
    return {
        name: panel(by_day(f"{name} of the champions, in percent", {"ours": sorted(of.items())}))
        for name, of in points.items()
        if len(of) > 1
    }


def _running(cycles: Sequence[CycleFacts], now: datetime) -> str:
    """Say which stage of the newest cycle goes on, and how long what is left took lately."""
    going = next((each for each in cycles if each.state == "not ended" and each.began_at), None)
    if going is None or going is not max(cycles, key=lambda each: str(each.began_at or "")):
        return ""
    left = STAGES[STAGES.index(going.next_stage) :]
    judged = [each.costs for each in cycles if each.outcome][:NUM_EARLIER]
    lately = [sum(cost.wall_s for cost in costs if cost.stage in left) for costs in judged]
    said = f"Cycle {going.run_id} is at {going.next_stage}"
    if not lately:
        return f"{said}."
    usual = median(lately)
    since = max((cost.finished_at for cost in going.costs), default=now)
    minutes = (usual - (now - since).total_seconds()) / 60
    return f"{said}, {f'about {minutes:.0f} min left' if minutes >= 1 else 'nearly done or late'}."


def _row(line: CycleFacts, axis: Axis, facts: IndexFacts) -> dict[str, Any]:
    """Return one cycle as it is shown; `cost` is what its stages used together."""
    change = line.outcome.change if line.outcome else None
    # Relative, so that the index leads to the page wherever the workspace is copied to.
    page = line.page_uri.removeprefix(f"{facts.workspace_uri.rstrip('/')}/")
    links = (("Verdict page", page), ("Airflow run", line.airflow_url))
    together = cost_rows(line.costs, (), facts.prices)[-1:]
    costs = [f"{said} {row[of]}" for row in together for of, said in _COSTS.items()
             if row[of] not in _NOT_TOLD]  # fmt: skip
    return {
        "line": line,
        "cost": ", ".join(costs),
        "style": _STYLES.get(line.word, "is-quiet"),
        "happened": _shortened(line.happened),
        "links": [(label, uri) for label, uri in links if uri],
        "track": axis.track(change) if change is not None else None,
        "figures": change.in_percent if change is not None else "",
    }


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"
