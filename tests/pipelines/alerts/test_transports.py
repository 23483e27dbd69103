"""Alerts on their way: a real SMTP server, a real webhook, failures, and no secret in a log."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from unittest import mock

import pytest

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.incidents import deliver_left
from pipelines.alerts.rendering import render
from pipelines.alerts.transports import AlertDeliveryError, deliver, entry_uri
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, NextStep
from pipelines.contracts.errors import RunInProgressError
from pipelines.plain_text import WORD_JOINER
from pipelines.settings import Settings
from support.alert_servers import (
    SECRET,
    Inbox,
    mail_server,
    use_apprise,
    use_mail,
    use_slack,
    webhook,
)
from support.serving import free_port

ALERT = Alert(
    kind=AlertKind.REGRESSION,
    run_id="2017-06-12--abcd1234",
    title="Homefeed retrain: v4 is worse",
    happened="It <lost> & wept.",
    certainty="Quite.",
    done="Nothing.",
    next_step=NextStep(sentence="Look.", commands=(("Who?", "homefeed serving"),)),
    links=(("MLflow", "http://127.0.0.1:5000"),),
)
DOWN = OSError("no route")


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with mail_server(monkeypatch) as handler:
        yield handler


@contextlib.contextmanager
def posts(monkeypatch: pytest.MonkeyPatch, status: int = 200) -> Iterator[list]:
    """Let Slack and Apprise post to a server; yield what it got: (address, body)."""
    with webhook(status) as (url, bodies):
        use_slack(monkeypatch, url)
        use_apprise(monkeypatch, url)
        yield bodies


def make_settings(place: object, *transports: str) -> Settings:
    return Settings(
        workspace=f"{place}/workspace",
        alert_transports=transports,
        alert_email_to=("oncall@example.com", "lead@example.com"),
    )


def send(settings: Settings) -> tuple[str, ...]:
    return deliver(ALERT, settings).delivered_to


def read_entry(settings: Settings) -> AlertReceipt:
    return storage.read_model(entry_uri(ALERT, settings), AlertReceipt)


def test_no_transport_obeys_what_an_alert_holds(tmp_path, monkeypatch, inbox):
    hostile = "v4 <!channel> *is* worse\r\nBcc: everyone@example.com"
    settings = make_settings(tmp_path, "smtp", "slack", "apprise")
    with posts(monkeypatch) as bodies:
        deliver(ALERT.model_copy(update={"title": hostile}), settings)
    slack, apprise = (body for _, body in bodies)
    headline = "v4 <!channel> *is* worse Bcc: everyone@example.com"
    escaped = headline.replace("<", "&lt;").replace(">", "&gt;")
    assert slack["text"] == f"[homefeed] warning: {escaped}"
    assert apprise["title"] == f"[homefeed] warning: {headline}".replace("<", f"<{WORD_JOINER}")
    assert inbox.mails[0]["Bcc"] is None and inbox.mails[0]["subject"].endswith(headline)


SLACK_BY_APPRISE = "slack://T1JHG9E3L/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general"


@pytest.mark.parametrize(
    "service",
    [
        *(f"{SLACK_BY_APPRISE}{options}" for options in ("", "?blocks=yes", "?format=markdown")),
        "discord://123456789012345678/abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
        "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz?format=markdown",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
    ],
)
def test_apprise_calls_nobody_and_makes_no_link_of_data(monkeypatch, service):
    hostile = "@everyone @here <!channel> <https://e.example|click> <script> <img src=x>"
    connection = {"conn_type": "apprise", "extra": {"config": {"path": service}}}
    monkeypatch.setenv("AIRFLOW_CONN_APPRISE_DEFAULT", json.dumps(connection))
    sent: list[str] = []

    def post(*_: object, data: str | bytes = "", **__: object) -> mock.Mock:
        sent.append(json.dumps(json.loads(data), ensure_ascii=False))
        return mock.Mock(status_code=200, content=b"ok", text="ok", headers={})

    monkeypatch.setattr("requests.post", post)
    monkeypatch.setattr("requests.request", post)
    alert = ALERT.model_copy(update={"title": hostile, "happened": hostile})
    transports.send_by_apprise(render(alert), Settings())
    assert sent
    for body in sent:
        assert not re.search(r"@(everyone|here|channel)\b|<[!@#]|<https?:|<script|<img", body)


def test_a_kill_between_the_sending_and_the_receipt_repeats_that_transport_alone(
    tmp_path, monkeypatch, inbox
):
    settings = make_settings(tmp_path, "smtp", "slack")
    with posts(monkeypatch) as bodies:
        genuine = transports._TRANSPORTS["slack"]

        def send_and_die(*arguments: object) -> None:
            genuine(*arguments)
            raise SystemExit(137)

        with monkeypatch.context() as dying, pytest.raises(SystemExit):
            dying.setitem(transports._TRANSPORTS, "slack", send_and_die)
            send(settings)
        assert read_entry(settings).delivered_to == ("outbox", "smtp")
        for _ in range(2):
            assert send(settings) == ("outbox", "smtp", "slack")
    assert (len(inbox.mails), len(bodies)) == (1, 2)


def test_on_an_object_store_nobody_writes_over_the_receipt_of_another(s3_uri, monkeypatch, inbox):
    """It was sent by both at the same time."""
    settings = make_settings(s3_uri, "smtp")
    assert send(settings) == send(settings) == ("outbox", "smtp")
    uri = entry_uri(ALERT, settings)
    theirs = AlertReceipt(alert=ALERT, delivered_to=("outbox", "slack", "smtp"))

    def meanwhile(*_: object) -> None:
        storage.write_model(uri, theirs)

    monkeypatch.setitem(transports._TRANSPORTS, "slack", meanwhile)
    with pytest.raises(RunInProgressError, match=f"^{uri} was written by another process since"):
        send(make_settings(s3_uri, "slack"))
    assert read_entry(settings) == theirs
    assert send(make_settings(s3_uri, "slack", "smtp")) == theirs.delivered_to
    assert len(inbox.mails) == 1


def test_a_transport_that_fails_costs_the_others_nothing(tmp_path, monkeypatch, inbox):
    settings = make_settings(tmp_path, "slack", "smtp")
    with posts(monkeypatch, 500) as bodies:
        with pytest.raises(AlertDeliveryError, match="transport .slack: ") as caught:
            send(settings)
    assert len(inbox.mails) == len(bodies) == 1
    entry, uri = read_entry(settings), entry_uri(ALERT, settings)
    assert entry.delivered_to == ("outbox", "smtp")
    assert entry.alert is not None
    text = storage.read_bytes(uri.removesuffix("json") + "txt").decode()
    assert text == render(entry.alert).text, "as people read it, with the instant"
    assert caught.value.is_retryable and caught.value.exit_code == 75
    # The retry goes only where it has not been.
    with posts(monkeypatch) as bodies:
        assert send(settings) == ("outbox", "smtp", "slack")
    assert len(bodies) == len(inbox.mails) == 1


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        *(("no server", f"{name}: ") for name in ("slack", "apprise", "smtp")),
        ("no connection", "slack: AirflowNotFoundException.*<name>_default"),
        ("no addressee", "smtp: HOMEFEED_ALERT_EMAIL_TO is empty"),
        ("status 403", "slack: Slack answered with status 403"),
        ("its own words", "slack: OSError"),
    ],
)
def test_what_keeps_a_transport_from_taking_it_is_told(tmp_path, monkeypatch, spoilt, said):
    settings = make_settings(tmp_path, said.partition(":")[0])
    with contextlib.ExitStack() as stack:
        for use in (use_slack, use_apprise):
            use(monkeypatch, f"http://127.0.0.1:{free_port()}")
        use_mail(monkeypatch, free_port())
        if spoilt == "no connection":
            monkeypatch.delenv("AIRFLOW_CONN_SLACK_DEFAULT")
        elif spoilt == "no addressee":
            settings = settings.model_copy(update={"alert_email_to": ()})
        elif spoilt == "status 403":
            stack.enter_context(posts(monkeypatch, 403))
        elif spoilt == "its own words":  # Nobody knows what they tell.
            told = mock.Mock(side_effect=OSError(f"no route to {SECRET}"))
            monkeypatch.setitem(transports._TRANSPORTS, "slack", told)
        with pytest.raises(AlertDeliveryError, match=said) as caught:
            send(settings)
    assert SECRET not in repr(caught.value)
    assert read_entry(settings).delivered_to == ("outbox",)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("transport", ["slack", "apprise"])
def test_no_secret_reaches_a_log_or_an_error(tmp_path, monkeypatch, caplog, transport, status):
    caplog.set_level(logging.INFO)
    with posts(monkeypatch, status) as bodies:
        try:
            send(make_settings(tmp_path, transport))
        except AlertDeliveryError as error:
            assert SECRET not in repr(error) and error.__context__ is None
        assert SECRET in bodies[0][0]  # it was sent to the right place
    assert ALERT.title in caplog.text
    assert SECRET not in caplog.text


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Stands for Slack, which is away until its `side_effect` is None."""
    slack = mock.Mock(side_effect=DOWN)
    monkeypatch.setitem(transports._TRANSPORTS, "slack", slack)
    return slack


@pytest.mark.parametrize("fault", [DOWN, SystemExit(137)])
def test_it_is_sent_once_when_the_transport_is_back(tmp_path, away, fault):
    settings = make_settings(tmp_path, "outbox", "slack")
    away.side_effect = fault
    for _ in range(2):
        with pytest.raises((AlertDeliveryError, SystemExit)):
            send(settings)
    assert read_entry(settings).waiting_for == ("slack",)
    away.side_effect = DOWN
    deliver_left(settings)
    assert read_entry(settings).waiting_for == ("slack",), "it is still away"
    (tmp_path / "workspace" / "outbox" / "0.json").write_text("{")  # which keeps back no other
    away.side_effect = None
    for _ in range(2):
        deliver_left(settings)
    assert away.call_count == 4
    assert away.call_args.args[0].subject == "[homefeed] warning: Homefeed retrain: v4 is worse"
    assert read_entry(settings).waiting_for == ()
    assert read_entry(settings).delivered_to == ("outbox", "slack")


def test_a_transport_that_was_added_later_gets_no_old_alerts(tmp_path, away):
    away.side_effect = None
    send(make_settings(tmp_path, "outbox"))
    deliver_left(make_settings(tmp_path, "outbox", "slack"))
    assert not away.called


def test_a_transport_that_is_down_for_a_day_holds_up_no_other(tmp_path, monkeypatch, away):
    """Slack stays away, the mail server comes back: each is asked once, and no mail waits.

    Nor does one for an alert whose entry somebody holds.
    """
    settings = make_settings(tmp_path, "slack", "smtp")
    deliver_left(settings)  # an empty workspace has nothing to send
    alerts = [ALERT.model_copy(update={"run_id": f"run-{n}"}) for n in range(3)]
    mail = mock.Mock(side_effect=DOWN)
    monkeypatch.setitem(transports._TRANSPORTS, "smtp", mail)
    for alert in alerts:
        with pytest.raises(AlertDeliveryError):
            deliver(alert, settings)
    mail.side_effect = None
    mail.reset_mock()
    with storage.exclusive_lock(entry_uri(alerts[0], settings), "another delivery"):
        deliver_left(settings.model_copy(update={"alert_transports": ("smtp",)}))
        assert mail.call_count == 2
    deliver_left(settings)
    assert mail.call_count == 3 and away.call_count == 3 + 1, "it is asked once"
    receipts = [storage.read_model(entry_uri(each, settings), AlertReceipt) for each in alerts]
    assert [each.waiting_for for each in receipts] == [("slack",)] * 3
