"""Alerts on their way: a real SMTP server, a real webhook, failures, and no secret in a log."""

import logging
import sys

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.rendering import render
from pipelines.alerts.sending import AlertDeliveryError
from pipelines.alerts.transports import deliver, entry_uri
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, NextStep
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
from support.mlflow_server import free_port

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
        alert_email_from="homefeed@example.com",
    )


def send(settings: Settings) -> tuple[str, ...]:
    return deliver(ALERT, settings).delivered_to


def read_entry(settings: Settings) -> AlertReceipt:
    return storage.read_model(entry_uri(ALERT, settings), AlertReceipt)


def test_mail_arrives_at_a_real_server(tmp_path, inbox):
    settings = make_settings(tmp_path, "smtp")
    assert send(settings) == ("outbox", "smtp")
    (mail,) = inbox.mails
    assert mail["subject"] == "[homefeed] warning: Homefeed retrain: v4 is worse"
    assert mail["from"] == "homefeed@example.com"
    assert mail["to"] == "oncall@example.com, lead@example.com"
    assert mail.get_content_type() == "multipart/alternative"
    text, html = mail.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert "It <lost> & wept." in text.get_content()
    assert "It &lt;lost&gt; &amp; wept." in html.get_content()
    assert all("homefeed serving" in part.get_content() for part in (text, html))


def test_slack_gets_it_over_http(tmp_path, monkeypatch):
    with webhook() as (url, bodies):
        use_slack(monkeypatch, url)
        assert send(make_settings(tmp_path, "outbox", "slack")) == ("outbox", "slack")
    ((path, body),) = bodies
    assert path == f"/services/{SECRET}"
    assert body["text"] == "[homefeed] warning: Homefeed retrain: v4 is worse"
    said = [block["text"]["text"] for block in body["blocks"] if "text" in block]
    assert "It &lt;lost&gt; &amp; wept." in said and "```homefeed serving```" in said


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
    header = slack["blocks"][0]["text"]
    assert header["type"] == "plain_text" and header["text"].endswith(escaped)
    assert apprise["title"] == f"[homefeed] warning: {headline.replace('<', '<' + WORD_JOINER)}"
    (mail,) = inbox.mails
    assert mail["subject"] == f"[homefeed] warning: {headline}"
    assert mail["bcc"] is None
    assert mail["to"] == "oncall@example.com, lead@example.com"


def test_apprise_gets_it_over_http(tmp_path, monkeypatch):
    with webhook() as (url, bodies):
        use_apprise(monkeypatch, url)
        assert send(make_settings(tmp_path, "apprise")) == ("outbox", "apprise")
    ((_, body),) = bodies
    assert body["title"] == "[homefeed] warning: Homefeed retrain: v4 is worse"
    assert "It <\u2060lost> & wept." in body["message"]
    assert body["type"] == "warning"


def test_the_outbox_holds_the_alert_and_where_it_went(tmp_path):
    settings = make_settings(tmp_path, "outbox")
    assert send(settings) == ("outbox",)
    entry = read_entry(settings)
    assert entry.delivered_to == ("outbox",) and entry.alert is not None
    assert entry.alert.at is not None and entry.alert.identity() == ALERT.identity()
    text = storage.read_bytes(entry_uri(ALERT, settings).removesuffix("json") + "txt")
    assert text.decode() == render(entry.alert).text


def test_the_outbox_is_written_even_if_it_is_not_asked_for(tmp_path, inbox):
    settings = make_settings(tmp_path, "smtp")
    send(settings)
    assert read_entry(settings).delivered_to == ("outbox", "smtp")


def test_sending_twice_sends_once(tmp_path, inbox):
    settings = make_settings(tmp_path, "outbox", "smtp")
    assert send(settings) == send(settings) == ("outbox", "smtp")
    assert len(inbox.mails) == 1


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
    """The lease was lost after the look at it, while the message was sent."""
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


def test_a_missing_connection_is_named_with_its_setting(tmp_path, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_DEFAULT", raising=False)
    with pytest.raises(ConfigurationError, match="AirflowNotFoundException.*_CONN_ID"):
        send(make_settings(tmp_path, "slack"))
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT", raising=False)
    with pytest.raises(ConfigurationError, match="did not reach smtp"):
        send(make_settings(tmp_path, "smtp"))


def test_a_transport_whose_hook_is_not_installed_is_not_called_transient(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.providers.slack.hooks.slack_webhook", None)
    with pytest.raises(ConfigurationError, match="slack: ModuleNotFoundError"):
        send(make_settings(tmp_path, "slack"))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_address_that_slack_refuses_is_not_called_transient(tmp_path, monkeypatch, status):
    with webhook(status) as (url, _):
        use_slack(monkeypatch, url)
        with pytest.raises(ConfigurationError, match="did not reach slack"):
            send(make_settings(tmp_path, "slack"))


def test_a_fault_that_may_pass_beside_one_that_does_not_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT", raising=False)
    with webhook(status=503) as (url, _):
        use_slack(monkeypatch, url)
        with pytest.raises(AlertDeliveryError, match="did not reach slack, smtp"):
            send(make_settings(tmp_path, "slack", "smtp"))


def test_a_password_that_the_mail_server_refuses_is_not_called_transient(tmp_path, monkeypatch):
    def refuse(*_: object) -> AuthResult:
        return AuthResult(success=False, handled=False)

    controller = Controller(
        Inbox(),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=refuse,
        auth_require_tls=False,
        auth_required=True,
    )
    controller.start()
    use_mail(monkeypatch, controller.port, login="homefeed", password=SECRET)
    try:
        with pytest.raises(ConfigurationError, match="did not reach smtp") as caught:
            send(make_settings(tmp_path, "smtp"))
    finally:
        controller.stop()
    assert SECRET not in repr(caught.value)


def test_mail_without_an_addressee_is_a_configuration_error(tmp_path):
    settings = Settings(workspace=str(tmp_path / "workspace"), alert_transports=("smtp",))
    with pytest.raises(ConfigurationError, match="HOMEFEED_ALERT_EMAIL_TO"):
        send(settings)


@pytest.mark.parametrize(
    "transport, status", [("slack", 200), ("slack", 500), ("apprise", 200), ("apprise", 500)]
)
def test_no_secret_reaches_a_log_or_an_error(tmp_path, monkeypatch, caplog, transport, status):
    caplog.set_level(logging.INFO)
    with webhook(status) as (url, bodies):
        use_slack(monkeypatch, url)
        use_apprise(monkeypatch, url)
        try:
            send(make_settings(tmp_path, transport))
        except AlertDeliveryError as error:
            assert SECRET not in repr(error) and error.__cause__ is None
            assert error.__suppress_context__
        assert SECRET in bodies[0][0]  # it was sent to the right place
    assert ALERT.title in caplog.text
    assert SECRET not in caplog.text
