"""How an alert looks: nothing is lost, and nothing that it holds steers, forges, links or calls."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.rendering import MAX_SUBJECT, fenced, render, to_markdown
from pipelines.contracts.alert import Alert, AlertKind, Cycle, NextStep
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.judgement import Decision
from pipelines.settings import Settings
from support.html_page import Page
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run

HOSTILE = (
    "x\x1b[2J\u202e <script>alert(1)</script> <img src=x onerror=alert(1)> </title></pre> **b** "
    "[a](javascript:alert(1)) <!channel> <@U1> <https://e.example|click> @everyone ``` {{ 7 * 7 }}"
    "\r\nBcc: everyone@example.com\r\n\r\nWhat was done\r\n  v9 was promoted."
)


def alert_of(text: str, **changes: Any) -> Alert:
    """An alert that holds a text everywhere."""
    return Alert(
        kind=AlertKind.REGRESSION,
        run_id=text,
        recipe=RecipeRef(name=text, digest="d" * 64, reference=text),
        title=f"Homefeed retrain: {text} is worse: -6.25 %",
        serves=text,
        happened=text,
        certainty=text,
        done=text,
        next_step=NextStep(sentence=text, commands=((text, "homefeed serving"),)),
        links=((text, f"https://e.example/{text}"), (text, "javascript:alert(1)")),
        cycle=Cycle(day=CHAMPION.as_of.date(), recipe=text),
    ).model_copy(update=changes)


def sections_of(alert: Alert) -> list[str]:
    """Return the texts of the message to Slack."""
    return [block["text"]["text"] for block in render(alert).slack]


def test_no_part_steers_a_terminal_or_begins_a_header_or_another_part() -> None:
    rendered, sections = render(alert_of(HOSTILE)), sections_of(alert_of(HOSTILE))
    assert len(rendered.subject.splitlines()) == 1
    for text in (rendered.subject, rendered.text, rendered.html, *sections):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert not re.search(r"<(?!https://e\.example/x)", text) or text not in sections, text
    for text in (rendered.subject, rendered.text, rendered.html):
        assert "\\x1b[2J\\u{202e}" in text, "what was there can be read"
    text = render(alert_of(HOSTILE.replace("\r", ""), happened="h", certainty="c", done="d")).text
    assert len(text.splitlines()) == 10  # A forged line is no line.


def test_nothing_of_the_data_becomes_markup_in_a_mail() -> None:
    page, plain = Page(render(alert_of(HOSTILE)).html), Page(render(alert_of("plain")).html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    ours, usual = ({name for _, of in each.tags for name in of} for each in (page, plain))
    assert ours <= usual and page.values_of("href") == []
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text


def test_only_pages_become_links() -> None:
    good = ("https://airflow.example.com/dags", "http://127.0.0.1:5000")
    bad = ("javascript:alert(1)", '" onmouseover="alert(1)', "s3://bucket/runs/x", "file:///w/x")
    alert = alert_of("x", links=tuple(("Page", uri) for uri in (*good, *bad)))
    assert tuple(Page(render(alert).html).values_of("href")) == good
    assert "s3://bucket/runs/x" in render(alert).text, "told, and no link"
    assert re.findall(r"<([^|>]*)\|Page>", sections_of(alert)[-1]) == list(good)


def test_no_name_is_too_long_for_a_mail() -> None:
    rendered = render(alert_of("a_very_long_name_" * 4_000))
    assert len(rendered.subject) <= MAX_SUBJECT
    assert rendered.subject.startswith("[homefeed] warning: Homefeed retrain: a_very_long")
    assert rendered.subject.endswith("is worse: -6.25 %"), "the number is never cut"
    assert len(rendered.text) < 200_000 and "(shortened: the outbox has all" in rendered.text


@pytest.mark.parametrize(
    "alert",
    [
        alert_of("n" * 20_000, links=(("x" * 999, "https://e.example/"),) * 60),
        alert_of("<&>" * 5_000, next_step=NextStep(sentence="s", commands=(("p", "c"),) * 99)),
        alert_of("long_name " * 900 + "\nline" * 400),
        alert_of("", links=(), next_step=NextStep(sentence="", commands=())),
        alert_of(HOSTILE * 200),
        alert_of("a\n\n" * 400),
    ],
    ids=["long words", "all escaped", "many lines", "empty", "hostile", "blank lines"],
)
def test_whatever_an_alert_holds_slack_s_limits_are_kept(alert: Alert) -> None:
    """As in Slack's reference of blocks; it refuses a message that breaks one."""
    blocks = render(alert).slack
    assert 1 <= len(blocks) <= 50
    for block in blocks:
        assert block["type"] == "section" and block["text"]["verbatim"]
        assert 1 <= len(block["text"]["text"]) <= 3000


def test_commands_are_shown_as_they_are_or_not_at_all() -> None:
    command = "HOMEFEED_X='a b' homefeed stage build_snapshot 'file:///*_~`x`'"
    assert fenced(command) == f"```{command}```"
    assert "```" not in fenced("a ``` b").strip("`")
    for shown in (command, f"homefeed {'x' * 3000}"):
        step = NextStep(sentence="Do.", commands=(("Run:", shown), ("Or:", "homefeed")))
        said = sections_of(alert_of("y", next_step=step))
        long = "(The command is too long for Slack; the mail and the outbox have it.)"
        assert (long if "xxx" in shown else f"```{shown}```") in said
        assert not any("xxxx" in text or "Or:" in text for text in said)


def test_markdown_shows_what_data_and_people_wrote_as_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path, champion=CHAMPION)
    hostile = "**bold** & <img src=x> [a](javascript:b) # `code` ~~~~\nnew | line"
    outcome = outcome_of(run, make_judgement(Decision.REJECT, hostile), None, Settings())
    links = (*outcome.links, ("Page", "javascript:alert(1)"))
    told = to_markdown(outcome.model_copy(update={"links": links}))
    line = next(line for line in told.splitlines() if "bold" in line)
    assert line == (
        r"- \*\*bold\*\* &amp; &lt;img src=x\> \[a\](javascript:b) \# \`code\` \~\~\~\~ new \| line"
    )
    assert (
        "- [All cycles](<http://127.0.0.1:8080/homefeed/>)" in told and "](<javascript" not in told
    )
