"""Real servers that take alerts: a mail server and a webhook, both on 127.0.0.1."""

import contextlib
import json
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from support.serving import Handler, free_port, http_server

SECRET = "T0K3N-b7f4c1-hush"


class Inbox:
    """Keeps the mails that a local SMTP server got, as bytes and as they are read."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    @property
    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(each, policy=policy.default) for each in self.raw]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.raw.append(envelope.content)
        return "250 OK"


@contextlib.contextmanager
def mail_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """Serve mail, and set Airflow's connection to it."""
    handler = Inbox()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    use_mail(monkeypatch, controller.port)
    try:
        yield handler
    finally:
        controller.stop()


@contextlib.contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Serve one webhook; give its base URL and the paths and bodies it got."""
    bodies: list[tuple[str, dict[str, Any]]] = []

    def take(handler: Handler) -> None:
        bodies.append((handler.path, json.loads(handler.body())))
        handler.answer(status, b"ok" if status == 200 else b"no")

    with http_server(Handler, do_POST=take) as url:
        yield url, bodies


def use_mail(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Set Airflow's connection to a mail server."""
    connection = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": port,
        "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "h@example.com"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))


def use_slack(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set Airflow's connection to a webhook that stands for Slack."""
    connection = {"conn_type": "slackwebhook", "password": f"{url}/services/{SECRET}"}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))


def use_apprise(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set Airflow's connection to a webhook that Apprise posts JSON to."""
    path = url.replace("http://", "json://") + f"/{SECRET}"
    extra = {"config": {"path": path, "tag": "alerts"}}
    connection = {"conn_type": "apprise", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_APPRISE_DEFAULT", json.dumps(connection))
