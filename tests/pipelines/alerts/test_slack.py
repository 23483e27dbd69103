"""Slack's blocks keep to its limits, and nothing in an alert becomes a link, a mark or a call."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.alerts import slack
from pipelines.alerts.rendering import render
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.judged.alert import Alert, AlertKind, NextStep

HOSTILE = "<!channel> <@U1> <https://e.example|click> *b* _i_ ~s~ `c` ```\n@here :smile: & &lt; "


def alert_of(text: str, num_links: int = 3, num_commands: int = 3) -> Alert:
    """An alert that holds a text everywhere."""
    return Alert(
        kind=AlertKind.REGRESSION,
        run_id=text,
        recipe=RecipeRef(name=text, digest="d" * 64, reference=text),
        title=text,
        serves=text,
        happened=text,
        certainty=text,
        done=text,
        next_step=NextStep(sentence=text, commands=((text, text),) * num_commands),
        links=tuple((text, f"https://{n}.example/") for n in range(num_links)),
    )


def blocks_of(alert: Alert) -> list[dict[str, Any]]:
    return render(alert).slack["blocks"]


def texts(value: Any) -> Iterator[dict[str, Any]]:
    """Give every text object of a message, with its type."""
    if isinstance(value, dict):
        if value.get("type") in ("plain_text", "mrkdwn"):
            yield value
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def check_limits(blocks: list[dict[str, Any]]) -> None:
    """As in Slack's reference of blocks; it refuses a message that breaks one."""
    assert len(blocks) <= 50
    for block in blocks:
        assert block["type"] in ("header", "section", "actions", "context")
        if block["type"] == "header":
            assert len(block["text"]["text"]) <= 150
        for field in block.get("fields", []):
            assert len(field["text"]) <= 2000
        assert 1 <= len(block.get("fields", [1])) <= 10
        assert 1 <= len(block.get("elements", [1])) <= 25
        for element in block.get("elements", []):
            if element["type"] == "button":
                assert len(element["text"]["text"]) <= 75 and len(element["url"]) <= 3000
    assert all(1 <= len(text["text"]) <= 3000 for text in texts(blocks))


@pytest.mark.parametrize(
    "alert",
    [
        alert_of("n" * 20_000, num_links=60, num_commands=30),
        alert_of("<&>" * 5_000, num_links=60, num_commands=30),
        alert_of("long_name " * 900 + "\nline" * 400),
        alert_of("", num_links=0, num_commands=0),
        alert_of(HOSTILE * 200),
    ],
    ids=["long words", "all escaped", "many lines", "empty", "hostile"],
)
def test_whatever_an_alert_holds_slack_s_limits_are_kept(alert: Alert) -> None:
    check_limits(blocks_of(alert))


def test_forty_segments_are_shown_as_far_as_they_fit_and_the_rest_is_counted() -> None:
    lines = [
        f"Segment {'very_long_segment_name_' * 5}{n} loses {n}.00 % of repin_volume_at_3."
        for n in range(40)
    ]
    blocks = blocks_of(alert_of("x").model_copy(update={"happened": "\n".join(lines)}))
    check_limits(blocks)
    [shown] = [text["text"] for text in texts(blocks) if text["text"].startswith("Segment")]
    *told, rest = shown.split("\n")
    assert told == lines[: len(told)] and len(told) >= 10
    assert rest == f"({40 - len(told)} more lines: see the page)"


def test_what_is_not_ours_stands_where_slack_knows_no_marks() -> None:
    found = list(texts(blocks_of(alert_of(HOSTILE))))
    assert not any("<" in text["text"] or ">" in text["text"] for text in found)
    assert not any(text["emoji"] for text in found if text["type"] == "plain_text")
    marked = [text["text"] for text in found if text["type"] == "mrkdwn"]
    labels = {"*What happened*", "*How sure we are*", "*What was done*", "*What to do*"}
    commands = [text for text in marked if text not in labels]
    assert labels < set(marked) and len(commands) == 3
    for command in commands:
        assert command.startswith("```") and command.endswith("```") and "```" not in command[3:-3]
        assert "&lt;!channel&gt;" in command
    assert all(text["verbatim"] for text in found if text["text"] in commands)
    assert "<" not in render(alert_of(HOSTILE)).slack["text"]


def test_commands_are_shown_as_they_are_or_not_at_all() -> None:
    command = "HOMEFEED_X='a b' homefeed stage build_snapshot --run 'file:///*_~`x`'"
    assert slack.preformatted(command) == command
    step = NextStep(sentence="Do.", commands=(("Run:", command), ("Or:", f"homefeed {'x' * 3000}")))
    blocks = blocks_of(alert_of("x").model_copy(update={"next_step": step}))
    said = [text["text"] for text in texts(blocks)]
    assert f"```{command}```" in said
    assert "(The command is too long for Slack; the mail and the outbox have it.)" in said
    assert not any("xxxx" in text for text in said)


def test_only_pages_become_buttons() -> None:
    links = (
        ("Page", "https://airflow.example.com/runs/x"),
        ("File", "file:///w/verdict.html"),
        ("Script", "javascript:alert(1)"),
        ("Long", f"https://e.example/{'x' * 3000}"),
        ("Runbook", "docs/runbook.md of the project, section 'Alert: regression'"),
    )
    *_, buttons, others = blocks_of(alert_of("x").model_copy(update={"links": links}))
    assert [(each["text"]["text"], each["url"]) for each in buttons["elements"]] == [links[0]]
    told = others["elements"][0]["text"]
    assert "File: file:///w/verdict.html" in told and "Script: javascript:alert(1)" in told
    check_limits([buttons, others])
