"""How an alert looks: a subject line, plain text, HTML and Slack, from the templates beside this.

Whatever an alert holds comes from data and people, and is made harmless here for each place: first
it loses what steers a terminal, then it is escaped as HTML or Slack want it. Not for what an alert
says (`pipelines.alerts.compose`).
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pipelines.contracts.config import RecipeRef
from pipelines.contracts.judged.alert import Alert, NextStep
from pipelines.contracts.judged.outcome import Outcome
from pipelines.plain_text import as_markdown, link_target, one_line, safe_lines

if TYPE_CHECKING:
    import jinja2

_WORD_JOINER = "\u2060"
_MARKS, _FENCE = re.compile(r"[*~`]|(?<!\w)_|_(?!\w)"), re.compile(r"`{3,}")
"""Slack's marks, of which an underscore within a word is none; and the end of preformatted text."""


@dataclass(frozen=True)
class RenderedAlert:
    """An alert as text: one subject line, a plain body, and the same body as HTML and for Slack."""

    subject: str
    text: str
    html: str
    slack: str


def render(alert: Alert, is_late: bool = False) -> RenderedAlert:
    """Return the alert as text, HTML and Slack's markup, in which all that it holds is escaped."""
    templates, shown = _templates(), _harmless(alert)
    # The subject is one line whatever the title holds: a line break would end the header.
    subject = f"[homefeed]{' (sent late)' if is_late else ''} {shown.title}"
    text = templates.get_template("alert.txt.j2").render(alert=shown)
    return RenderedAlert(
        subject=subject,
        text=text,
        html=templates.get_template("alert.html.j2").render(alert=shown),
        slack=f"*{to_mrkdwn(subject)}*\n```{to_mrkdwn(text, is_preformatted=True)}```",
    )


def to_mrkdwn(text: str, *, is_preformatted: bool = False) -> str:
    """Return a text that Slack shows as it is.

    Slack reads `<...>` as a link or a call to everybody, and has no escape for its marks of bold,
    italic, crossed out and code; a word joiner before each of them takes its meaning away.

    Args:
        text: Anything.
        is_preformatted: Whether it will stand between triple backticks, where only these mean
            something: commands in it stay as they are, to be copied.
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    marks = _FENCE if is_preformatted else _MARKS
    return marks.sub(lambda found: f"{_WORD_JOINER}".join(("", *found[0])), text)


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
            "run_id": one_line(alert.run_id),
            "recipe": _harmless_recipe(alert.recipe),
            "title": one_line(alert.title),
            "serves": one_line(alert.serves),
            "happened": safe_lines(alert.happened),
            "certainty": safe_lines(alert.certainty),
            "done": safe_lines(alert.done),
            "next_step": NextStep(
                sentence=one_line(alert.next_step.sentence),
                commands=tuple(
                    (one_line(purpose), one_line(command))
                    for purpose, command in alert.next_step.commands
                ),
            ),
            "links": tuple((one_line(label), one_line(uri)) for label, uri in alert.links),
        }
    )


def _harmless_recipe(recipe: RecipeRef | None) -> RecipeRef | None:
    """Return the same for a recipe, whose name and place are somebody's own text."""
    if recipe is None:
        return None
    shown = {"name": one_line(recipe.name), "reference": one_line(recipe.reference)}
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
