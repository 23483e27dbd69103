"""The index of all cycles: what serves, who served when, what each cycle came to, what it cost.

One HTML file that opens without a network and without scripts, below 300 kB whatever it tells of.
It shows no time of its own: the same facts give the same page. Not for reading the facts
(`pipelines.cycles`).
"""

from collections import Counter
from dataclasses import dataclass, replace

from pipelines.contracts.cycle import CycleFacts, IndexFacts, ServingSpan
from validation.report.charts import Axis, Track, axis_of, change_with_interval
from validation.report.costs import NOT_KNOWN, cost_rows, duration, total_wall_s
from validation.report.pages import environment, within_limit

MAX_CHAMPIONS = 60
MAX_TEXT = 280
"""Letters of a sentence that a cycle tells; its own page has the whole of it."""
NUM_EARLIER = 5
_STYLES = {
    "PROMOTE": "is-good",
    "INCONCLUSIVE": "is-warn",
    "void": "is-warn",
    "REJECT": "is-bad",
    "data gate failed": "is-bad",
    "broken": "is-bad",
    "not readable": "is-bad",
}


@dataclass(frozen=True)
class CycleRow:
    """One cycle as it is shown."""

    line: CycleFacts
    badge: str
    style: str
    happened: str
    links: tuple[tuple[str, str], ...]
    track: Track | None
    figures: str
    cost: str


@dataclass(frozen=True)
class ChampionRow:
    """One champion as it is shown; the track is its time, from when the first one served."""

    span: ServingSpan
    track: Track
    days: str
    reason: str


@dataclass(frozen=True)
class _Contents:
    facts: IndexFacts
    cycles: tuple[CycleRow, ...]
    champions: tuple[ChampionRow, ...]
    axis: Axis


def render_cycles(facts: IndexFacts) -> str:
    """Return the index as HTML."""
    changes = [line.outcome.change for line in facts.cycles if line.outcome]
    axis = axis_of([change for change in changes if change])
    rows = tuple(_row(line, axis, facts.workspace_uri) for line in facts.cycles)
    contents = _Contents(facts, rows, _champions(facts), axis)
    return within_limit(lambda num: _render(replace(contents, cycles=rows[:num])), len(rows))


def _render(contents: _Contents) -> str:
    facts = contents.facts
    costed = next((line.costs for line in facts.cycles if line.costs.stages), None)
    earlier = [line.costs for line in facts.cycles if line.costs.stages][1 : NUM_EARLIER + 1]
    return (
        environment()
        .get_template("cycles.html.j2")
        .render(
            facts=facts,
            cycles=contents.cycles,
            champions=contents.champions,
            axis=contents.axis,
            bare=Axis(1.0, None, ()),
            counts=Counter(line.word for line in facts.cycles),
            serving=facts.champions[0] if facts.champions else None,
            newest=_newest(contents.cycles),
            age=_age(facts),
            costs=cost_rows(costed, earlier) if costed else (),
            num_earlier=len(earlier),
        )
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
    return CycleRow(
        line=line,
        badge=line.word,
        style=_STYLES.get(line.word, "is-quiet"),
        happened=_shortened(line.happened),
        links=tuple((label, uri) for label, uri in links if uri),
        track=axis.track(change) if change is not None else None,
        figures=change_with_interval(change) if change is not None else "",
        cost=_cost(line),
    )


def _cost(line: CycleFacts) -> str:
    """Say what a cycle's stages used together; '' where none has ended."""
    rows = cost_rows(line.costs, ())
    if not rows:
        return ""
    said = [f"stages took {duration(total_wall_s(line.costs))}"]
    named = {"CPU": rows[-1].cpu, "GPU": rows[-1].gpu, "peak": rows[-1].peak}
    said += [f"{name} {text}" for name, text in named.items() if text not in (NOT_KNOWN, "0.0 s")]
    return ", ".join(said)


def _champions(facts: IndexFacts) -> tuple[ChampionRow, ...]:
    shown = facts.champions[:MAX_CHAMPIONS]
    if not shown:
        return ()
    begun = [line.began_at for line in facts.cycles if line.began_at]
    first = min(span.since for span in shown)
    last = max((*begun, *(span.since for span in shown)))
    whole = (last - first).total_seconds() or 1.0

    def percent(span: ServingSpan) -> Track:
        low = 100 * (span.since - first).total_seconds() / whole
        end = span.until or last
        high = 100 * max(0.0, (end - first).total_seconds()) / whole
        return Track(round(low, 2), round(low, 2), round(high, 2))

    return tuple(
        ChampionRow(span, percent(span), _days(span), _shortened(span.reason)) for span in shown
    )


def _days(span: ServingSpan) -> str:
    if span.served is None:
        return "serves"
    days = span.served.total_seconds() / 86400
    return f"{days:.0f} days" if days >= 1.5 else f"{days * 24:.1f} hours"


def _age(facts: IndexFacts) -> str:
    """Say how old the champion is beside the newest cycle; '' where that says nothing."""
    as_ofs = [line.as_of for line in facts.cycles if line.as_of]
    if not as_ofs or not facts.champions:
        return ""
    days = (max(as_ofs) - facts.champions[0].as_of).total_seconds() / 86400
    return f"{days:g} days older than the newest cycle's as_of" if days > 0 else "as new as it gets"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"
