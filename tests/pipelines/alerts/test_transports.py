"""Alerts on their way: a real SMTP server, a real webhook, failures, and no secret in a log."""

import contextlib
import http.server
import json
import logging
import sys
import threading

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import AuthResult

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.rendering import render
from pipelines.alerts.transports import AlertDeliveryError, deliver, entry_uri
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, NextStep
from pipelines.settings import Settings
from support.mlflow_server import free_port

SECRET = "T0K3N-b7f4c1-hush"
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


class Inbox(Message):
    """Keeps the mails that a local SMTP server got."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list = []

    def handle_message(self, message) -> None:
        self.mails.append(message)


@pytest.fixture
def inbox(monkeypatch):
    handler = Inbox()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    connection = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": controller.port,
        "extra": {"disable_ssl": True, "disable_tls": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    yield handler
    controller.stop()


@contextlib.contextmanager
def webhook(status: int = 200):
    """Serve one webhook; give its base URL and the bodies it got."""
    bodies: list[tuple[str, dict]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append((self.path, json.loads(body)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok" if status == 200 else b"no")

        def log_message(self, *args) -> None:
            """Keep the test's output clean."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_slack(monkeypatch, url: str) -> None:
    connection = {"conn_type": "slackwebhook", "password": f"{url}/services/{SECRET}"}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))


def use_apprise(monkeypatch, url: str) -> None:
    path = url.replace("http://", "json://") + f"/{SECRET}"
    extra = {"config": {"path": path, "tag": "alerts"}}
    connection = {"conn_type": "apprise", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_APPRISE_DEFAULT", json.dumps(connection))


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
    assert mail["subject"] == "[homefeed] Homefeed retrain: v4 is worse"
    assert mail["from"] == "homefeed@example.com"
    assert mail["to"] == "oncall@example.com, lead@example.com"
    html = mail.get_payload()[0].get_payload(decode=True).decode()
    assert "It &lt;lost&gt; &amp; wept." in html and "homefeed serving" in html


def test_slack_gets_it_over_http(tmp_path, monkeypatch):
    with webhook() as (url, bodies):
        use_slack(monkeypatch, url)
        assert send(make_settings(tmp_path, "outbox", "slack")) == ("outbox", "slack")
    ((path, body),) = bodies
    assert path == f"/services/{SECRET}"
    assert "*[homefeed] Homefeed retrain: v4 is worse*" in body["text"]
    assert "It &lt;lost&gt; &amp; wept." in body["text"]


def test_no_transport_obeys_what_an_alert_holds(tmp_path, monkeypatch, inbox):
    hostile = "v4 <!channel> *is* worse\r\nBcc: everyone@example.com"
    settings = make_settings(tmp_path, "smtp", "slack", "apprise")
    with webhook() as (url, bodies):
        use_slack(monkeypatch, url)
        use_apprise(monkeypatch, url)
        deliver(ALERT.model_copy(update={"title": hostile}), settings)
    slack, apprise = (body for _, body in bodies)
    headline = "v4 <!channel> *is* worse Bcc: everyone@example.com"
    escaped = headline.replace("<", "&lt;").replace(">", "&gt;").replace("*", "\u2060*")
    assert slack["text"].split("\n")[0] == f"*[homefeed] {escaped}*"
    assert apprise["title"] == f"[homefeed] {headline}"
    (mail,) = inbox.mails
    assert mail["subject"] == f"[homefeed] {headline}"
    assert mail["bcc"] is None
    assert mail["to"] == "oncall@example.com, lead@example.com"


def test_apprise_gets_it_over_http(tmp_path, monkeypatch):
    with webhook() as (url, bodies):
        use_apprise(monkeypatch, url)
        assert send(make_settings(tmp_path, "apprise")) == ("outbox", "apprise")
    ((_, body),) = bodies
    assert body["title"] == "[homefeed] Homefeed retrain: v4 is worse"
    assert "It <lost> & wept." in body["message"]
    assert body["type"] == "warning"


def test_the_outbox_holds_the_alert_and_where_it_went(tmp_path):
    settings = make_settings(tmp_path, "outbox")
    assert send(settings) == ("outbox",)
    entry = read_entry(settings)
    assert (entry.alert, entry.delivered_to) == (ALERT, ("outbox",))
    text = storage.read_bytes(entry_uri(ALERT, settings).removesuffix("json") + "txt")
    assert text.decode() == render(ALERT).text


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
    gone = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": free_port(),
        "extra": {"disable_ssl": True, "disable_tls": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(gone))
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
    connection = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": controller.port,
        "login": "homefeed",
        "password": SECRET,
        "extra": {"disable_ssl": True, "disable_tls": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
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
