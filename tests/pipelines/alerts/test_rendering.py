"""How an alert looks: rendering loses nothing, and what the alert holds harms nothing."""

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from pipelines.alerts.compose import compose_failure
from pipelines.alerts.rendering import RenderedAlert, render
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.judged.alert import Alert, AlertKind, NextStep
from pipelines.contracts.run_layout import StageFailure
from pipelines.settings import Settings
from support.runs import make_run


def test_rendering_escapes_html_and_keeps_one_subject_line(tmp_path):
    run = make_run(tmp_path)
    failure = StageFailure(
        stage="build_snapshot",
        error_class="DataContractError",
        message="rows <b>lost</b> & found",
        exit_code=65,
        is_retryable=False,
        occurred_at=run.as_of,
    )
    alert = compose_failure(failure, run, Settings(), failure.stage)
    alert = alert.model_copy(update={"title": "broke\r\nBcc: everyone@example.com"})
    rendered = render(alert)
    assert rendered.subject == "[homefeed] critical: broke Bcc: everyone@example.com"
    assert "rows &lt;b&gt;lost&lt;/b&gt; &amp; found" in rendered.html
    assert "<b>lost" not in rendered.html
    assert "rows <b>lost</b> & found" in rendered.text
    label = f"Recipe: smoke ({run.config.recipe_digest[:12]})"
    assert label in rendered.text and label in rendered.html
    commands = [line for _, line in alert.next_step.commands]
    assert len(commands) == 2
    for part in (alert.certainty, alert.done, alert.next_step.sentence, *commands):
        assert part in rendered.text
        assert html.escape(part, quote=False) in html.unescape(rendered.html)


HOSTILE = "x\x1b[2J\u202e\r\nBcc: all@example.com <!channel> <http://e.example|click> ```*_~`</pre>"
"""Steers a terminal, ends a header, calls a channel, makes a link, ends what is preformatted."""


def hostile_alert(*uris: str) -> Alert:
    return Alert(
        kind=AlertKind.BROKEN_RUN,
        run_id=HOSTILE,
        recipe=RecipeRef(name=HOSTILE, digest="d" * 64, reference=HOSTILE),
        title=HOSTILE,
        happened=HOSTILE,
        certainty=HOSTILE,
        done=HOSTILE,
        next_step=NextStep(sentence=HOSTILE, commands=((HOSTILE, HOSTILE),)),
        links=tuple((HOSTILE, uri) for uri in uris),
    )


def texts_in(value: Any) -> Iterator[str]:
    """Give every text in a message to Slack."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_in(each)


@pytest.fixture
def rendered() -> RenderedAlert:
    return render(hostile_alert(HOSTILE))


def test_no_part_steers_a_terminal_or_begins_a_header(rendered: RenderedAlert) -> None:
    assert len(rendered.subject.splitlines()) == 1
    slack = "\n".join(texts_in(rendered.slack))
    for text in (rendered.subject, rendered.text, rendered.html, slack):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert "\\x1b[2J\\u{202e}" in text, "what was there can be read"


def test_a_line_break_begins_no_part_of_the_message(rendered: RenderedAlert) -> None:
    headings = [line for line in rendered.text.splitlines() if line and not line.startswith(" ")]
    facts = [line for line in headings if line.startswith(("Severity: ", "Run: ", "Recipe: "))]
    assert len(facts) == 3
    assert headings[1 + len(facts) :] == [
        "What happened",
        "How sure we are",
        "What was done",
        "What to do",
        "Links",
    ]


class Links(HTMLParser):
    """Collects the links of a page, as a browser would read them, and its other elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.elements: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]


def test_only_pages_and_files_become_links() -> None:
    good = ("https://airflow.example.com/dags", "http://127.0.0.1:5000", "file:///ws/verdict.html")
    bad = (
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        '" onmouseover="alert(1)',
        "s3://bucket/runs/x",
    )
    found = Links(render(hostile_alert(*good, *bad)).html)
    assert tuple(found.targets) == good
    assert not found.elements & {"script", "img", "b"}
    assert "s3://bucket/runs/x" in render(hostile_alert(*bad)).text, "told, and no link"
