"""How an alert looks: one subject line, plain text, and HTML, from the templates beside this file.

Not for what an alert says (`pipelines.alerts.compose`).
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import Alert

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class RenderedAlert:
    """An alert as text: one subject line, a plain body, and the same body as HTML."""

    subject: str
    text: str
    html: str


def render(alert: Alert) -> RenderedAlert:
    """Return the alert as text and as HTML, in which everything from the alert is escaped."""
    templates = _templates()
    return RenderedAlert(
        # The subject is one line whatever the title holds: a line break would end the header.
        subject=" ".join(f"[homefeed] {alert.title}".split()),
        text=templates.get_template("alert.txt.j2").render(alert=alert),
        html=templates.get_template("alert.html.j2").render(alert=alert),
    )


@cache
def _templates() -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.alerts"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
