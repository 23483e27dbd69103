"""An alert as Slack's blocks, for an incoming webhook.

Whatever comes from data and people stands in `plain_text`, in which Slack knows no marks, or as
preformatted text. Every part keeps to Slack's limits: a message that breaks one is refused as a
whole. Not for the other forms (`pipelines.alerts.rendering`). Tested in
tests/pipelines/alerts/test_slack.py.
"""

import re
from typing import Any

from pipelines.contracts.judged.alert import Alert, AlertKind, AlertSeverity
from pipelines.plain_text import WORD_JOINER, first_lines, link_target, shortened

MAX_BLOCKS, MAX_HEADER, MAX_TEXT, MAX_FIELD = 50, 150, 3000, 2000
MAX_BUTTONS, MAX_BUTTON, MAX_BUTTON_URL = 25, 75, 3000
"""Slack's limits: blocks of a message, then characters, as Slack counts what was escaped."""
MAX_COMMANDS = 10
_ROOM = 2800
"""Characters of one part before it is escaped."""
_FENCE = re.compile(r"`{3,}")
_SIGNS = {
    AlertSeverity.INFO: "\U0001f535",
    AlertSeverity.WARNING: "\U0001f7e1",
    AlertSeverity.CRITICAL: "\U0001f534",
}
_RECOVERED = "\U0001f7e2"

Block = dict[str, Any]


def to_blocks(alert: Alert, marks: str, facts: tuple[tuple[str, str], ...]) -> list[Block]:
    """Return an alert as blocks.

    Args:
        alert: In which nothing steers a terminal or forges a line any more.
        marks: What stands before its title, if it is late or told again.
        facts: When it was, its cycle and the like: (label, text) pairs, at most ten.
    """
    sign = _RECOVERED if alert.kind is AlertKind.RECOVERED else _SIGNS[alert.severity]
    header = f"{sign} {marks}{alert.title}"
    blocks: list[Block] = [{"type": "header", "text": _plain(header, MAX_HEADER)}]
    if alert.serves:
        blocks.append(_section(alert.serves))
    fields = [_field(label, text) for label, text in facts]
    blocks.append({"type": "section", "fields": fields})
    for label, text in parts_of(alert):
        blocks += [_label(label), _section(text)]
    for purpose, command in alert.next_step.commands[:MAX_COMMANDS]:
        blocks += [_section(purpose), _code(command)]
    return [*blocks, *_links(alert.links)]


def parts_of(alert: Alert) -> tuple[tuple[str, str], ...]:
    """Return the parts of an alert below its facts: (heading, text) pairs."""
    return (
        ("What happened", alert.happened),
        ("How sure we are", alert.certainty),
        ("What was done", alert.done),
        ("What to do", alert.next_step.sentence),
    )


def escaped(text: str) -> str:
    """Return a text in which Slack finds no link and no call to everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def preformatted(text: str) -> str:
    """Return a text as it may stand between triple backticks, where only these mean something."""
    return _FENCE.sub(lambda found: WORD_JOINER.join(("", *found[0])), escaped(text))


def _plain(text: str, most: int) -> Block:
    """Return a text without marks, shortened until it fits when it is escaped."""
    shown, room = escaped(text), most
    while len(shown) > most:
        room -= max(1, (len(shown) - most) // 5)
        shown = escaped(shortened(text, room))
    return {"type": "plain_text", "text": shown or "-", "emoji": False}


def _section(text: str) -> Block:
    return {"type": "section", "text": _plain(first_lines(text, _ROOM, "see the page"), MAX_TEXT)}


def _label(text: str) -> Block:
    """Return a heading of ours."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": f"*{text}*"}}


def _field(label: str, text: str) -> Block:
    return _plain(f"{label}: {text}", MAX_FIELD)


def _code(command: str) -> Block:
    """Return a command to be copied; half a command is worse than none."""
    shown = preformatted(command)
    if len(shown) > MAX_TEXT - 6:
        return _section("(The command is too long for Slack; the mail and the outbox have it.)")
    return {
        "type": "section",
        "text": {"type": "mrkdwn", "text": f"```{shown}```", "verbatim": True},
    }


def _links(links: tuple[tuple[str, str], ...]) -> list[Block]:
    """Return buttons for pages that open in any browser, and the other places as text."""
    pages = [link for link in links if _is_page(link[1])][:MAX_BUTTONS]
    blocks: list[Block] = []
    if pages:
        buttons = [
            {"type": "button", "text": _plain(label, MAX_BUTTON), "url": uri}
            for label, uri in pages
        ]
        blocks.append({"type": "actions", "elements": buttons})
    others = [f"{label}: {uri}" for label, uri in links if (label, uri) not in pages]
    if others:
        text = _plain(first_lines("\n".join(others), _ROOM, "the mail has them"), MAX_TEXT)
        blocks.append({"type": "context", "elements": [text]})
    return blocks


def _is_page(uri: str) -> bool:
    return (
        bool(link_target(uri))
        and uri.startswith(("http://", "https://"))
        and len(uri) <= MAX_BUTTON_URL
    )
