"""Alerts on their way: a real SMTP server, a real webhook, failures, and no secret in a log."""

import contextlib
import json
import logging
import re
import sys
from datetime import date
from unittest import mock

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.rendering import render
from pipelines.alerts.transports import (
    AlertDeliveryError,
    deliver,
    deliver_waiting,
    entry_uri,
)
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, Cycle, NextStep
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


@pytest.fixture
def inbox(monkeypatch):
    with mail_server(monkeypatch) as handler:
        yield handler


def make_settings(place, *transports: str) -> Settings:
    return Settings(
        workspace=f"{place}/workspace",
        alert_transports=transports,
        alert_email_to=("oncall@example.com", "lead@example.com"),
    )


def send(settings: Settings) -> tuple[str, ...]:
    return deliver(ALERT, settings).delivered_to


def read_entry(settings: Settings) -> AlertReceipt:
    return storage.read_model(entry_uri(ALERT, settings), AlertReceipt)


def test_the_alerts_of_a_cycle_are_one_thread_and_the_same_alert_has_one_id(tmp_path, inbox):
    cycle = Cycle(day=date(2017, 6, 12), recipe="r")
    told = [ALERT.model_copy(update={"cycle": cycle, "about": (about,)}) for about in "ab"]
    for place in ("one", "two"):
        deliver(told[0], make_settings(tmp_path / place, "smtp"))
    deliver(told[1], make_settings(tmp_path / "two", "smtp"))
    elsewhere, *mails = inbox.mails
    assert len({mail["Message-ID"] for mail in inbox.mails}) == 3
    threads = {mail["References"] for mail in mails}
    assert len(threads) == 1 and elsewhere["References"] not in threads


def test_no_transport_obeys_what_an_alert_holds(tmp_path, monkeypatch, inbox):
    hostile = "v4 <!channel> *is* worse\r\nBcc: everyone@example.com"
    settings = make_settings(tmp_path, "smtp", "slack", "apprise")
    with webhook() as (url, bodies):
        use_slack(monkeypatch, url)
        use_apprise(monkeypatch, url)
        deliver(ALERT.model_copy(update={"title": hostile}), settings)
    slack, apprise = (body for _, body in bodies)
    headline = "v4 <!channel> *is* worse Bcc: everyone@example.com"
    escaped = headline.replace("<", "&lt;").replace(">", "&gt;")
    assert slack["text"] == f"[homefeed] warning: {escaped}"
    assert apprise["title"] == f"[homefeed] warning: {headline}".replace("<", f"<{WORD_JOINER}")
    assert inbox.mails[0]["Bcc"] is None and inbox.mails[0]["subject"].endswith(headline)


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


def test_the_outbox_has_it_as_people_read_it_with_the_instant(tmp_path):
    settings = make_settings(tmp_path)
    assert send(settings) == ("outbox",)
    entry = read_entry(settings)
    assert entry.alert is not None and entry.alert.at is not None
    text = storage.read_bytes(entry_uri(ALERT, settings).removesuffix("json") + "txt")
    assert text.decode() == render(entry.alert).text


class Killed(BaseException):
    """The process is gone: nothing below catches this."""


def test_a_kill_between_the_sending_and_the_receipt_repeats_that_transport_alone(
    tmp_path, monkeypatch, inbox
):
    settings = make_settings(tmp_path, "smtp", "slack")
    with webhook() as (url, bodies):
        use_slack(monkeypatch, url)
        genuine = transports._TRANSPORTS["slack"]

        def send_and_die(*arguments: object) -> None:
            genuine(*arguments)
            raise Killed

        with monkeypatch.context() as dying, pytest.raises(Killed):
            dying.setitem(transports._TRANSPORTS, "slack", send_and_die)
            send(settings)
        assert read_entry(settings).delivered_to == ("outbox", "smtp")
        for _ in range(2):
            assert send(settings) == ("outbox", "smtp", "slack")
    assert (len(inbox.mails), len(bodies)) == (1, 2)


def test_who_wakes_up_after_another_delivered_does_not_write_over_its_receipt(
    s3_uri, monkeypatch, inbox
):
    """It was sent by both at the same time."""
    settings = make_settings(s3_uri, "slack")
    uri = entry_uri(ALERT, settings)
    theirs = AlertReceipt(alert=ALERT, delivered_to=("outbox", "slack", "smtp"))

    def meanwhile(*_: object) -> None:
        storage.write_model(uri, theirs)

    monkeypatch.setitem(transports._TRANSPORTS, "slack", meanwhile)
    with pytest.raises(RunInProgressError, match=f"^{uri} was written by another process since"):
        send(settings)
    assert read_entry(settings) == theirs
    assert send(make_settings(s3_uri, "slack", "smtp")) == theirs.delivered_to
    assert inbox.mails == []


def test_on_an_object_store_each_transport_gets_on_the_receipt(s3_uri, inbox):
    settings = make_settings(s3_uri, "smtp")
    assert send(settings) == send(settings) == ("outbox", "smtp")
    assert read_entry(settings).delivered_to == ("outbox", "smtp")
    assert len(inbox.mails) == 1


def test_a_transport_that_fails_costs_the_others_nothing(tmp_path, monkeypatch, inbox):
    settings = make_settings(tmp_path, "slack", "smtp")
    with webhook(status=500) as (url, bodies):
        use_slack(monkeypatch, url)
        with pytest.raises(AlertDeliveryError, match="did not reach slack") as caught:
            send(settings)
    assert len(inbox.mails) == len(bodies) == 1
    assert read_entry(settings).delivered_to == ("outbox", "smtp")
    assert caught.value.is_retryable and caught.value.exit_code == 75
    # The retry goes only where it has not been.
    with webhook() as (url, bodies):
        use_slack(monkeypatch, url)
        assert send(settings) == ("outbox", "smtp", "slack")
    assert len(bodies) == len(inbox.mails) == 1


@pytest.mark.parametrize("transport", ["slack", "apprise", "smtp"])
def test_a_server_that_is_not_there_is_a_retryable_error(tmp_path, monkeypatch, transport):
    url = f"http://127.0.0.1:{free_port()}"
    use_slack(monkeypatch, url)
    use_apprise(monkeypatch, url)
    use_mail(monkeypatch, free_port())
    settings = make_settings(tmp_path, transport)
    with pytest.raises(AlertDeliveryError, match=f"did not reach {transport}"):
        send(settings)
    assert read_entry(settings).delivered_to == ("outbox",)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ("no connection", "slack: AirflowNotFoundException.*<name>_default"),
        ("no hook", "slack: ModuleNotFoundError"),
        ("no addressee", "smtp: HOMEFEED_ALERT_EMAIL_TO is empty"),
        ("status 403", "slack: Slack answered with status 403"),
        ("wrong password", "smtp: SMTPAuthenticationError"),
    ],
)
def test_what_keeps_a_transport_from_taking_it_is_told(tmp_path, monkeypatch, spoilt, said):
    settings = make_settings(tmp_path, said.partition(":")[0])
    with contextlib.ExitStack() as stack:
        if spoilt == "no connection":
            monkeypatch.delenv("AIRFLOW_CONN_SLACK_DEFAULT", raising=False)
        elif spoilt == "no hook":
            monkeypatch.setitem(sys.modules, "airflow.providers.slack.hooks.slack_webhook", None)
        elif spoilt == "no addressee":
            settings = settings.model_copy(update={"alert_email_to": ()})
        elif spoilt == "status 403":
            use_slack(monkeypatch, stack.enter_context(webhook(403))[0])
        else:
            port = stack.enter_context(refusing_mail_server())
            use_mail(monkeypatch, port, login="homefeed", password=SECRET)
        with pytest.raises(AlertDeliveryError, match=said) as caught:
            send(settings)
    assert SECRET not in repr(caught.value)


@contextlib.contextmanager
def refusing_mail_server():
    controller = Controller(
        Inbox(),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
        auth_required=True,
    )
    controller.start()
    yield controller.port
    controller.stop()


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("transport", ["slack", "apprise"])
def test_no_secret_reaches_a_log_or_an_error(tmp_path, monkeypatch, caplog, transport, status):
    caplog.set_level(logging.INFO)
    with webhook(status) as (url, bodies):
        use_slack(monkeypatch, url)
        use_apprise(monkeypatch, url)
        try:
            send(make_settings(tmp_path, transport))
        except AlertDeliveryError as error:
            assert SECRET not in repr(error) and error.__context__ is None
        assert SECRET in bodies[0][0]  # it was sent to the right place
    assert ALERT.title in caplog.text
    assert SECRET not in caplog.text


class Slack:
    """Stands for a transport that is away for a while."""

    def __init__(self) -> None:
        self.is_away, self.taken = True, list[str]()

    def send(self, rendered, settings) -> None:  # type: ignore[no-untyped-def]
        if self.is_away:
            raise OSError("no route")
        self.taken.append(rendered.subject)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Slack:
    away = Slack()
    monkeypatch.setitem(transports._TRANSPORTS, "slack", away.send)
    return away


@pytest.fixture
def settings(tmp_path) -> Settings:
    return make_settings(tmp_path, "outbox", "slack")


def test_it_is_sent_once_when_the_transport_is_back(slack, settings):
    for _ in range(2):
        with pytest.raises(AlertDeliveryError):
            deliver(ALERT, settings)
    assert read_entry(settings).waiting_for == ("slack",)
    assert deliver_waiting(settings) == () == tuple(slack.taken)  # it is still away
    slack.is_away = False
    assert deliver_waiting(settings) == (ALERT.run_id,)
    assert slack.taken == ["[homefeed] warning: (sent late) Homefeed retrain: v4 is worse"]
    assert read_entry(settings).waiting_for == ()
    assert read_entry(settings).delivered_to == ("outbox", "slack")
    assert deliver_waiting(settings) == () and len(slack.taken) == 1


def test_a_kill_while_it_is_sent_leaves_it_waiting(slack, settings, monkeypatch):
    def killed(*_: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setitem(transports._TRANSPORTS, "slack", killed)
        deliver(ALERT, settings)
    assert read_entry(settings).waiting_for == ("slack",)
    slack.is_away = False
    assert deliver_waiting(settings) == (ALERT.run_id,)


def test_a_transport_that_was_added_later_gets_no_old_alerts(slack, settings):
    deliver(ALERT, settings.model_copy(update={"alert_transports": ("outbox",)}))
    slack.is_away = False
    assert deliver_waiting(settings) == () == tuple(slack.taken)


def test_a_damaged_receipt_keeps_no_other_from_being_sent(slack, settings, tmp_path):
    with pytest.raises(AlertDeliveryError):
        deliver(ALERT, settings)
    (tmp_path / "workspace" / "outbox" / "0.json").write_text("{")
    slack.is_away = False
    assert deliver_waiting(settings) == (ALERT.run_id,)


def test_a_transport_that_is_down_for_a_day_holds_up_no_other(tmp_path, monkeypatch):
    """Slack stays away, the mail server comes back: each is asked once, and no mail waits."""
    settings = make_settings(tmp_path, "slack", "smtp")
    assert deliver_waiting(settings) == (), "an empty workspace has nothing to send"
    alerts = [ALERT.model_copy(update={"run_id": f"run-{n}"}) for n in range(3)]
    with webhook(status=503) as (url, refused):
        use_slack(monkeypatch, url)
        with monkeypatch.context() as away:
            away.setitem(transports._TRANSPORTS, "smtp", mock.Mock(side_effect=OSError("down")))
            for alert in alerts:
                with pytest.raises(AlertDeliveryError):
                    deliver(alert, settings)
        with mail_server(monkeypatch) as inbox:
            assert deliver_waiting(settings) == ("run-0", "run-1", "run-2")
            assert len(inbox.raw) == 3 and len(refused) == 3 + 1
            assert all("(sent late)" in mail["subject"] for mail in inbox.mails)
    receipts = [storage.read_model(entry_uri(each, settings), AlertReceipt) for each in alerts]
    assert [each.waiting_for for each in receipts] == [("slack",)] * 3
