"""How an alert looks: a subject line, plain text, HTML and Slack's blocks, from one set of facts.

The layouts are the templates beside this. Whatever an alert holds comes from data and people, and
is made harmless by the templates' filters: first it loses what steers a terminal or forges a line,
then it is escaped as HTML or Slack want it. Not for what an alert says: `pipelines.alerts.compose`.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pipelines.contracts.alert import Alert, AlertSeverity
from pipelines.contracts.judgement import Outcome
from pipelines.contracts.time import for_readers
from pipelines.plain_text import (
    WORD_JOINER,
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
MAX_LINE, MAX_PART, MAX_LINES = 500, 1_500, 3
"""Characters of a line, such as the title, and of what happened, and its lines: a whole alert has
twelve, and is read on a phone."""
MAX_BLOCKS, MAX_TEXT, MAX_URL = 50, 3000, 2000
"""Slack's limits: blocks of a message, and characters of a block as Slack counts what was escaped;
it refuses a message that breaks one. An address that takes most of a block is no link."""
_LOOKS = {
    AlertSeverity.INFO: ("#0969da", "\U0001f535"),
    AlertSeverity.WARNING: ("#bf8700", "\U0001f7e1"),
    AlertSeverity.CRITICAL: ("#cf222e", "\U0001f534"),
}
"""The stripe beside a mail and the sign in Slack; what they mean stands in words, too."""


@dataclass(frozen=True)
class RenderedAlert:
    """An alert as people read it: one line, the whole as text and HTML, and blocks for Slack."""

    alert: Alert
    subject: str
    text: str
    html: str
    slack: list[dict[str, Any]]


def render(alert: Alert, zone: str = "UTC") -> RenderedAlert:
    """Return the alert as text, HTML and Slack's blocks, in which all that it holds is escaped.

    `zone` is the IANA name of the readers' time zone.
    """
    marks = f"({alert.num_times} times) " if alert.num_times > 1 else ""
    recipe = alert.recipe.label if alert.recipe else alert.cycle and alert.cycle.recipe
    about = (
        for_readers(alert.at, zone),
        f"{alert.severity.value}: {alert.severity.meaning}",
        f"run {alert.run_id}{f', recipe {recipe}' if recipe else ''}",
    )
    step = alert.next_step
    purpose, command = step.commands[0] if step.commands else ("", "")
    opening = f"[homefeed] {alert.severity.value}: {marks}"
    colour, sign = _LOOKS[alert.severity]
    names = {
        "alert": alert,
        "marks": marks,
        "about": "; ".join(about),
        "lines": [
            each for each in (alert.serves, alert.changed and f"New: {alert.changed}") if each
        ],
        "happened": alert.happened,
        "after": [each for each in (alert.certainty, alert.done) if each],
        "todo": f"{step.sentence} {purpose}".strip(),
        "command": command,
        "colour": colour,
        "sign": sign,
    }
    text, html, slack = (
        _templates().get_template(f"alert.{form}.j2").render(names)
        for form in ("txt", "html", "slack")
    )
    sections = (part.strip("\n") for part in slack.split("\n\n"))
    return RenderedAlert(
        alert=alert,
        # One line whatever the title holds: a line break would end the header.
        subject=f"{opening}{shortened(one_line(alert.title), MAX_SUBJECT - len(opening))}",
        text=text,
        html=html,
        slack=[
            {"type": "section", "text": {"type": "mrkdwn", "text": shown, "verbatim": True}}
            for section in sections
            if (shown := first_lines(section, MAX_TEXT, "the mail has all"))
        ][:MAX_BLOCKS],
    )


@cache
def _templates() -> "jinja2.Environment":
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.alerts"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "line": lambda text: shortened(one_line(text), MAX_LINE),
        "line_of_any_length": one_line,
        "part": lambda text: _first(safe_lines(text), MAX_PART),
        "link_target": link_target,
        "slack": escaped,
        "slack_part": lambda text: _first(escaped(safe_lines(text)), MAX_TEXT - 200),
        "fenced": fenced,
        "is_page": lambda uri: (
            link_target(uri).startswith("http")
            and len(uri) <= MAX_URL
            and not set(uri) & set("<|>")
        ),
    }
    return templates


def _first(text: str, most: int) -> str:
    """Return the first lines of a text that are not empty, and how many more the outbox has."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > MAX_LINES:
        kept = lines[: MAX_LINES - 1]
        lines = [*kept, f"({len(lines) - len(kept)} more lines in the outbox)"]
    return first_lines("\n".join(lines), most, "the outbox has all, in the .json file")


def escaped(text: str) -> str:
    """Return a text in which Slack finds no link and no call to everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fenced(command: str) -> str:
    """Return a command as Slack shows it to be copied; half a command is worse than none."""
    # Between triple backticks only these mean something.
    shown = re.sub(r"`{3,}", lambda found: WORD_JOINER.join(("", *found[0])), escaped(command))
    if len(shown) > MAX_TEXT - 6:
        return "(The command is too long for Slack; the mail and the outbox have it.)"
    return f"```{shown}```"


def to_markdown(outcome: Outcome, has_commands: bool = True) -> str:
    """Return an outcome as Markdown, for pages of MLflow and Airflow; all that it holds is text.

    Commands stand in fences, where a line break would end them, so that these are one line each.
    """
    links = []
    for label, uri in ((as_markdown(label), one_line(uri)) for label, uri in outcome.links):
        is_link = link_target(uri) and "<" not in uri and ">" not in uri
        links.append(f"- [{label}](<{uri}>)" if is_link else f"- {label}: {as_markdown(uri)}")
    items = (*outcome.reasons, outcome.most_hurt, *outcome.warnings)
    told = [
        f"**{outcome.decision}**: {as_markdown(outcome.title)}",
        as_markdown(outcome.done),
        "\n".join(links),
        as_markdown(outcome.number),
        as_markdown(outcome.changed and f"New: {outcome.changed}"),
        "\n".join(f"- {as_markdown(item)}" for item in items if item),
        as_markdown(outcome.next_step.sentence),
    ]
    for purpose, command in outcome.next_step.commands if has_commands else ():
        told += [as_markdown(purpose), f"~~~~\n{one_line(command)}\n~~~~"]
    return "\n\n".join(filter(None, told))
