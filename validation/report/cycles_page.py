"""The index of all cycles: what serves, who served when, what each cycle came to, what it cost.

One HTML file that opens without a network and without scripts, below 300 kB whatever it tells of.
It shows no time of its own: the same facts give the same page. Not for reading the facts
(`pipelines.cycles`).
"""

from collections import Counter
from typing import NamedTuple

from pipelines.contracts.cycle import CycleFacts, IndexFacts, ServingSpan
from validation.report.charts import Axis, Track, axis_of, change_with_interval
from validation.report.costs import NOT_KNOWN, cost_rows
from validation.report.pages import environment, within_limit

MAX_CHAMPIONS = 60
MAX_TEXT = 280
"""Letters of a sentence that a cycle tells; its own page has the whole of it."""
NUM_EARLIER = 5
_NOT_TOLD = (NOT_KNOWN, "0.0 s")
_STYLES = {
    "PROMOTE": "is-good",
    "INCONCLUSIVE": "is-warn",
    "void": "is-warn",
    "REJECT": "is-bad",
    "data gate failed": "is-bad",
    "broken": "is-bad",
    "not readable": "is-bad",
}


class CycleRow(NamedTuple):
    """One cycle as it is shown."""

    line: CycleFacts
    badge: str
    style: str
    happened: str
    links: tuple[tuple[str, str], ...]
    track: Track | None
    figures: str
    cost: str  # What its stages used together; '' where none has ended.


class ChampionRow(NamedTuple):
    """One champion as it is shown; the track is its time, from when the first one served."""

    span: ServingSpan
    track: Track
    days: str
    reason: str


def render_cycles(facts: IndexFacts) -> str:
    """Return the index as HTML."""
    changes = [line.outcome.change for line in facts.cycles if line.outcome]
    axis = axis_of([change for change in changes if change])
    rows = tuple(_row(line, axis, facts.workspace_uri) for line in facts.cycles)
    costed = [line.costs for line in facts.cycles if line.costs.stages]
    earlier = costed[1 : NUM_EARLIER + 1]
    as_ofs = [line.as_of for line in facts.cycles if line.as_of]
    age = ""
    if as_ofs and facts.champions:
        days = (max(as_ofs) - facts.champions[0].as_of).total_seconds() / 86400
        age = f"{days:g} days older than the newest cycle's as_of" if days > 0 else ""
        age = age or "as new as it gets"
    template, champions = environment().get_template("cycles.html.j2"), _champions(facts)
    return within_limit(
        lambda num: template.render(
            facts=facts,
            cycles=rows[:num],
            champions=champions,
            axis=axis,
            bare=Axis(1.0, None, ()),
            counts=Counter(line.word for line in facts.cycles),
            serving=facts.champions[0] if facts.champions else None,
            newest=_newest(rows),
            age=age,
            costs=cost_rows(costed[0], earlier) if costed else (),
            num_earlier=len(earlier),
        ),
        len(rows),
    )


def _newest(rows: tuple[CycleRow, ...]) -> CycleRow | None:
    """Return the cycle that the head of the page tells of.

    One that broke before it had begun may have a day that nobody meant, years ahead. It is told
    until another cycle begins.
    """
    began = max((row.line.began_at for row in rows if row.line.began_at), default=None)
    for row in rows:
        if began is None or row.line.broke_at is None or row.line.broke_at >= began:
            return row
    return None


def _row(line: CycleFacts, axis: Axis, workspace_uri: str) -> CycleRow:
    change = line.outcome.change if line.outcome else None
    # Relative, so that the index leads to the page wherever the workspace is copied to.
    page = line.page_uri.removeprefix(f"{workspace_uri.rstrip('/')}/")
    links = (("Verdict page", page), ("Airflow run", line.airflow_url))
    cost = ""
    if rows := cost_rows(line.costs, ()):
        named = {"CPU": rows[-1].cpu, "GPU": rows[-1].gpu, "peak": rows[-1].peak}
        used = [f"{name} {text}" for name, text in named.items() if text not in _NOT_TOLD]
        cost = ", ".join((f"stages took {rows[-1].wall}", *used))
    return CycleRow(
        line=line,
        badge=line.word,
        style=_STYLES.get(line.word, "is-quiet"),
        happened=_shortened(line.happened),
        links=tuple((label, uri) for label, uri in links if uri),
        track=axis.track(change) if change is not None else None,
        figures=change_with_interval(change) if change is not None else "",
        cost=cost,
    )


def _champions(facts: IndexFacts) -> list[ChampionRow]:
    shown, rows = facts.champions[:MAX_CHAMPIONS], []
    begun = [line.began_at for line in facts.cycles if line.began_at]
    first = min((span.since for span in shown), default=None)
    last = max((*begun, *(span.since for span in shown)), default=None)
    for span in shown:
        assert first is not None and last is not None, "one is shown at least"
        whole = (last - first).total_seconds() or 1.0
        low = round(100 * (span.since - first).total_seconds() / whole, 2)
        high = 100 * max(0.0, ((span.until or last) - first).total_seconds()) / whole
        told = "serves"
        if span.served is not None:
            days = span.served.total_seconds() / 86400
            told = f"{days:.0f} days" if days >= 1.5 else f"{days * 24:.1f} hours"
        track = Track(low, low, round(high, 2))
        rows.append(ChampionRow(span, track, told, _shortened(span.reason)))
    return rows


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"
