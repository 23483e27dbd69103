"""How an alert looks: a subject line, plain text, HTML and Slack, from the templates beside this.

Whatever an alert holds comes from data and people, and is made harmless here for each place: first
it loses what steers a terminal, then it is escaped as HTML or Slack want it. Not for what an alert
says (`pipelines.alerts.compose`), nor for Slack's blocks (`pipelines.alerts.slack`).
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pipelines.alerts.severity import MEANINGS
from pipelines.alerts.slack import escaped, parts_of, to_blocks
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertSeverity, Cycle, NextStep
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.time import for_readers
from pipelines.plain_text import (
    as_markdown,
    first_lines,
    link_target,
    one_line,
    safe_lines,
    shortened,
)

if TYPE_CHECKING:
    import jinja2

MAX_SUBJECT = 200
"""Characters of a subject line; a longer title stands whole in the text."""
MAX_LINE, MAX_PART = 500, 15_000
"""Characters of a line, such as the title, and of a part of the text. Some mail programs hide what
is beyond 100,000 in all."""
_COLOURS = {
    AlertSeverity.INFO: "#0969da",
    AlertSeverity.WARNING: "#bf8700",
    AlertSeverity.CRITICAL: "#cf222e",
}
_RECOVERED = "#1a7f37"
"""The stripe beside the message; what it means stands in words, too."""


@dataclass(frozen=True)
class RenderedAlert:
    """An alert as people read it.

    Attributes:
        alert: What is shown, in which nothing steers a terminal or forges a line any more.
        subject: One line.
        text: The whole as plain text.
        html: The same as HTML.
        slack: The body of a message to Slack.
    """

    alert: Alert
    subject: str
    text: str
    html: str
    slack: dict[str, Any]


def render(alert: Alert, is_late: bool = False, zone: str = "UTC") -> RenderedAlert:
    """Return the alert as text, HTML and Slack's blocks, in which all that it holds is escaped.

    Args:
        alert: The message.
        is_late: Whether a transport that gets it now did not take it before.
        zone: IANA name of the readers' time zone.
    """
    templates, shown = _templates(), _harmless(alert)
    # The subject is one line whatever the title holds: a line break would end the header.
    late = "(sent late) " if is_late else ""
    again = f"({_nth(alert.num_times)} time) " if alert.num_times > 1 else ""
    opening, marks = f"[homefeed] {alert.severity.value}: ", f"{late}{again}"
    room = MAX_SUBJECT - len(opening) - len(marks)
    subject = f"{opening}{marks}{shortened(shown.title, room)}"
    facts = _facts(shown, zone)
    names = {"alert": shown, "facts": facts, "parts": parts_of(shown), "colour": _colour(shown)}
    return RenderedAlert(
        alert=shown,
        subject=subject,
        text=templates.get_template("alert.txt.j2").render(names),
        html=templates.get_template("alert.html.j2").render(names),
        slack={
            "text": escaped(subject),
            "blocks": to_blocks(shown, marks, facts),
            "unfurl_links": False,  # a link that somebody's text holds shows no picture of its page
            "unfurl_media": False,
        },
    )


def _facts(alert: Alert, zone: str) -> tuple[tuple[str, str], ...]:
    """Return what stands beside the message: when it was, how soon to look, which cycle."""
    facts = [("When", for_readers(alert.at, zone))] if alert.at else []
    if alert.num_times > 1 and alert.first_at:
        since = for_readers(alert.first_at, zone)
        facts += [("Again", f"the {_nth(alert.num_times)} time since {since}")]
    facts += [("Severity", f"{alert.severity.value}, {MEANINGS[alert.severity]}")]
    facts += [("Cycle", alert.cycle.label)] if alert.cycle else []
    facts += [("Run", f"{alert.run_id} ({alert.kind.value})")]
    facts += [("Recipe", alert.recipe.label)] if alert.recipe else []
    return tuple(facts)


def _colour(alert: Alert) -> str:
    return _RECOVERED if alert.kind is AlertKind.RECOVERED else _COLOURS[alert.severity]


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def to_markdown(outcome: Outcome) -> str:
    """Return an outcome as Markdown, for MLflow's descriptions, in which all that it holds is text.

    Commands stand in fences, where a line break would end them, so that these are one line each.
    """
    told = [
        f"**{outcome.decision}**: {as_markdown(outcome.title)}",
        f"**{as_markdown(outcome.serves)}**",
    ]
    told += [as_markdown(outcome.number)]
    items = (*outcome.reasons, outcome.most_hurt, *outcome.warnings)
    told += ["\n".join(f"- {as_markdown(item)}" for item in items if item)]
    told += [as_markdown(outcome.done), as_markdown(outcome.next_step.sentence)]
    for purpose, command in outcome.next_step.commands:
        told += [as_markdown(purpose), f"~~~~\n{one_line(command)}\n~~~~"]
    links = [_as_link(one_line(label), one_line(uri)) for label, uri in outcome.links]
    return "\n\n".join([*told, "\n".join(f"- {link}" for link in links)])


def _as_link(label: str, uri: str) -> str:
    if link_target(uri) and "<" not in uri and ">" not in uri:
        return f"[{as_markdown(label)}](<{uri}>)"
    return f"{as_markdown(label)}: {as_markdown(uri)}"


def _harmless(alert: Alert) -> Alert:
    """Return the alert with the same words, and without what steers a terminal or forges a line."""
    return alert.model_copy(
        update={
            "run_id": _line(alert.run_id),
            "recipe": _harmless_recipe(alert.recipe),
            "title": _line(alert.title),
            "serves": _line(alert.serves),
            "happened": _part(alert.happened),
            "certainty": _part(alert.certainty),
            "done": _part(alert.done),
            "next_step": NextStep(
                sentence=_part(one_line(alert.next_step.sentence)),
                commands=tuple(
                    (_line(purpose), one_line(command))
                    for purpose, command in alert.next_step.commands
                ),
            ),
            "links": tuple((_line(label), one_line(uri)) for label, uri in alert.links),
            "cycle": _harmless_cycle(alert.cycle),
        }
    )


def _line(text: str) -> str:
    return shortened(one_line(text), MAX_LINE)


def _part(text: str) -> str:
    return first_lines(safe_lines(text), MAX_PART, "the outbox has all, in the .json file")


def _harmless_cycle(cycle: Cycle | None) -> Cycle | None:
    return cycle and cycle.model_copy(update={"recipe": _line(cycle.recipe)})


def _harmless_recipe(recipe: RecipeRef | None) -> RecipeRef | None:
    """Return the same for a recipe, whose name and place are somebody's own text."""
    if recipe is None:
        return None
    shown = {"name": _line(recipe.name), "reference": _line(recipe.reference)}
    return recipe.model_copy(update=shown)


@cache
def _templates() -> "jinja2.Environment":
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.alerts"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    templates.filters["link_target"] = link_target
    return templates
