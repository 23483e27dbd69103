"""Names without end, HTML and Markdown in data, forty segments: told, readable, and only text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.compose import compose_verdict
from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.rendering import MAX_SUBJECT, render
from pipelines.alerts.sending import send_by_apprise, to_mail
from pipelines.alerts.transports import deliver, deliver_waiting, entry_uri
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, Cycle, NextStep
from pipelines.contracts.judgement import Decision
from pipelines.settings import Settings
from support.alert_servers import mail_server, use_slack, webhook
from support.example_alerts import with_segments
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run

HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> </title></style></pre> **b** "
    "[a](javascript:alert(1)) <!channel> <https://e.example|click> @everyone ``` {{ 7 * 7 }}\r\n"
    "Bcc: everyone@example.com\r\n\r\n--=_homefeed\r\nWhat was done\r\n  v9 was promoted."
)
LONG = "a_very_long_name_" * 4_000
SETTINGS = Settings(alert_email_to=("oncall@example.com",), alert_email_from="h@example.com")


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


class Page(HTMLParser):
    """Reads a page as a browser does: its elements, their attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_of_the_data_becomes_markup_in_a_mail() -> None:
    mail = to_mail(render(alert_of(HOSTILE)), SETTINGS)
    text, html = mail.iter_parts()
    page, plain = Page(html.get_content()), Page(render(alert_of("plain")).html)
    assert page.elements <= plain.elements
    assert {name for name, _ in page.attributes} <= {name for name, _ in plain.attributes}
    assert [value for name, value in page.attributes if name == "href"] == []
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text
    assert mail["bcc"] is None and mail["to"] == "oncall@example.com"
    begun = [line for line in text.get_content().splitlines() if line and line[0] != " "]
    assert begun.count("What was done") == 1 and not any("v9" in line for line in begun[-4:-2])


def test_no_name_is_too_long_for_a_mail() -> None:
    rendered = render(alert_of(LONG))
    assert len(rendered.subject) <= MAX_SUBJECT
    assert rendered.subject.startswith("[homefeed] warning: Homefeed retrain: a_very_long")
    assert rendered.subject.endswith("is worse: -6.25 %"), "the number is never cut"
    assert len(rendered.text) < 200_000 and "(shortened: the outbox has all" in rendered.text
    for alert in (alert_of(LONG), alert_of("ü" * 60_000)):
        raw = bytes(to_mail(render(alert), SETTINGS))
        assert max(map(len, raw.split(b"\r\n"))) <= 998, "the longest line that mail may have"


def test_forty_segments_are_told_by_the_one_that_loses_most(tmp_path: Path) -> None:
    run = make_run(tmp_path, champion=CHAMPION)
    changes = {f"segment {n} <b>{'x' * 200}</b>": -n / 1000 for n in range(1, 41)}
    reasons = [f"{name} loses more than its margin." for name in changes]
    judgement = with_segments(make_judgement(Decision.REJECT, *reasons), changes)
    outcome = outcome_of(run, judgement, None, SETTINGS)
    alert = compose_verdict(outcome, judgement, run, SETTINGS)
    assert alert is not None
    rendered = render(alert)
    assert "Segment segment 40 <b>" in rendered.text and "-4.00 %" in rendered.text
    assert all(reason in rendered.text for reason in reasons)
    assert len(rendered.html) < 100_000, "what is longer, some mail programs hide"
    assert "<b>" not in rendered.html


@pytest.mark.parametrize(
    "service",
    [
        "slack://T1JHG9E3L/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
        "slack://T1JHG9E3L/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general?blocks=yes",
        "slack://T1JHG9E3L/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general?format=markdown",
        "discord://123456789012345678/abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
        "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz?format=markdown",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
    ],
)
def test_apprise_calls_nobody_and_makes_no_link_of_data(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    connection = {"conn_type": "apprise", "extra": {"config": {"path": service}}}
    monkeypatch.setenv("AIRFLOW_CONN_APPRISE_DEFAULT", json.dumps(connection))
    sent: list[str] = []

    def post(*_: object, data: str | bytes = "", **__: object) -> mock.Mock:
        sent.append(json.dumps(json.loads(data), ensure_ascii=False))
        return mock.Mock(status_code=200, content=b"ok", text="ok", headers={})

    monkeypatch.setattr("requests.post", post)
    monkeypatch.setattr("requests.request", post)
    send_by_apprise(render(alert_of(HOSTILE)), SETTINGS)
    assert sent
    for body in sent:
        assert not re.search(r"@(everyone|here|channel)\b|<[!@#]|<https?:|<script|<img", body)


def test_a_transport_that_is_down_for_a_day_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack stays away, the mail server comes back: each is asked once, and no mail waits."""
    settings = SETTINGS.model_copy(
        update={"workspace": str(tmp_path), "alert_transports": ("slack", "smtp")}
    )
    alerts = [alert_of("x", run_id=f"run-{n}", cycle=None) for n in range(3)]
    with webhook(status=503) as (url, refused):
        use_slack(monkeypatch, url)
        with monkeypatch.context() as away:
            away.setitem(transports._TRANSPORTS, "smtp", mock.Mock(side_effect=OSError("down")))
            for alert in alerts:
                with pytest.raises(transports.AlertDeliveryError):
                    deliver(alert, settings)
        with mail_server(monkeypatch) as inbox:
            assert deliver_waiting(settings) == ("run-0", "run-1", "run-2")
            assert len(inbox.raw) == 3 and len(refused) == 3 + 1
            assert all("(sent late)" in mail["subject"] for mail in inbox.mails)
    receipts = [storage.read_model(entry_uri(each, settings), AlertReceipt) for each in alerts]
    assert [each.waiting_for for each in receipts] == [("slack",)] * 3
    with webhook() as (url, taken):
        use_slack(monkeypatch, url)
        assert len(deliver_waiting(settings)) == len(taken) == 3
        assert deliver_waiting(settings) == ()
