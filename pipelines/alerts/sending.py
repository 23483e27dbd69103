"""The transports themselves: mail, Slack and Apprise, by the connections that Airflow keeps.

Not for which of them get an alert, nor for what happens where one fails
(`pipelines.alerts.transports`). Tested in tests/pipelines/alerts/test_transports.py and, word for
word, in test_examples.py.
"""

import logging
import re
import smtplib
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from typing import cast

from pipelines import storage
from pipelines.alerts.rendering import RenderedAlert
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertSeverity, Cycle
from pipelines.plain_text import WORD_JOINER
from pipelines.settings import Settings

log = logging.getLogger(__name__)
SMTP_CONN_ID, SLACK_CONN_ID, APPRISE_CONN_ID = "smtp_default", "slack_default", "apprise_default"
"""Connections of Airflow, with host, login and secrets; Slack's is one of an incoming webhook."""
_IMPORTANCE = {
    AlertSeverity.INFO: ("5", "low"),
    AlertSeverity.WARNING: ("3", "normal"),
    AlertSeverity.CRITICAL: ("1", "high"),
}
"""X-Priority and Importance of a mail: which of the two counts depends on the mail program."""
_CALLS = re.compile(r"@(?=(?:everyone|here|channel|all|room)\b)|<(?=[!@#/\w])", re.IGNORECASE)
MAX_THREADS = 8
"""Cycles that a recovery is shown with."""


class AlertDeliveryError(TransientStorageError):
    """A transport did not take the alert; the outbox and the other transports have it."""


def send_by_smtp(rendered: RenderedAlert, settings: Settings) -> None:
    """Send a mail with the plain text and the HTML.

    Raises:
        ConfigurationError: nobody is to get it.
        Exception: whatever Airflow's hook or the mail server answered.
    """
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    if not settings.alert_email_to:
        raise ConfigurationError(
            'HOMEFEED_ALERT_EMAIL_TO is empty; expected a JSON list such as ["oncall@example.com"]'
        )
    mail = to_mail(rendered, settings)
    with SmtpHook(smtp_conn_id=SMTP_CONN_ID) as hook:
        # The hook connects and logs in; its own message has HTML alone, without a plain text.
        client = cast("smtplib.SMTP", hook._smtp_client)
        refused = client.send_message(mail)
    if refused:  # Sent again, it would reach the others twice.
        log.warning("the mail server refused %s, and took the others", ", ".join(sorted(refused)))


def to_mail(rendered: RenderedAlert, settings: Settings) -> EmailMessage:
    """Return the mail: plain text first, HTML second, threaded by the cycle.

    An alert that is sent twice has the same Message-ID, so that most servers show it once.
    """
    alert = rendered.alert
    domain = parseaddr(settings.alert_email_from)[1].rpartition("@")[2] or "localhost"
    priority, importance = _IMPORTANCE[alert.severity]
    name = digest_of([_deployment(settings), alert.identity(), alert.run_id])[:32]
    # Folded after 78 characters, a subject may begin with a line break, and be shown with a space.
    # What is not ASCII has to be folded: it is encoded in words of 75 characters.
    policy = SMTP.clone(max_line_length=900) if rendered.subject.isascii() else SMTP
    mail = EmailMessage(policy=policy)
    mail["Subject"] = rendered.subject
    mail["From"] = settings.alert_email_from
    mail["To"] = ", ".join(settings.alert_email_to)
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{name}@{domain}>"
    if threads := _threads(alert, settings, domain):
        mail["In-Reply-To"] = threads[0]
        mail["References"] = " ".join(threads)
    mail["X-Priority"], mail["Importance"] = priority, importance
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Homefeed-Kind"], mail["X-Homefeed-Severity"] = alert.kind.value, alert.severity.value
    mail.set_content(rendered.text, cte="quoted-printable")
    mail.add_alternative(rendered.html, subtype="html", cte="quoted-printable")
    mail.set_boundary(f"=_homefeed_{name}")
    return mail


def _threads(alert: Alert, settings: Settings, domain: str) -> tuple[str, ...]:
    """Return the ids under which mail programs show the alerts of one cycle together.

    No mail has such an id. A recovery belongs to the cycles that had broken, and to its own.
    """
    cycles: tuple[Cycle | None, ...] = (*alert.mended_cycles, alert.cycle)
    labels = dict.fromkeys(cycle.label for cycle in cycles if cycle is not None)
    digests = (digest_of([_deployment(settings), label])[:32] for label in labels)
    return tuple(f"<cycle.{digest}@{domain}>" for digest in digests)[:MAX_THREADS]


def _deployment(settings: Settings) -> list[str]:
    return [storage.to_uri(settings.workspace_location), settings.registered_model]


def send_to_slack(rendered: RenderedAlert, settings: Settings) -> None:
    """Send Slack's blocks to an incoming webhook, which Apprise's own plugin cannot.

    Raises:
        Exception: whatever Airflow's hook or Slack answered.
    """
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    hook = SlackWebhookHook(slack_webhook_conn_id=SLACK_CONN_ID, timeout=30)
    hook.send_dict(rendered.slack)


def uncalled(text: str) -> str:
    """Return a text that calls nobody and links nothing in the chats that Apprise writes to.

    Apprise takes a text for text, but some of its services (Discord, Slack with `format=markdown`)
    obey `@everyone` and `<...>` in it all the same. An invisible character takes their meaning
    away.
    """
    return _CALLS.sub(f"\\g<0>{WORD_JOINER}", text)


def send_by_apprise(rendered: RenderedAlert, settings: Settings) -> None:
    """Send the plain text by what the connection names.

    Raises:
        AlertDeliveryError: a service refused it or was not reached.
        Exception: whatever Airflow's hook raised.
    """
    import apprise
    from airflow.providers.apprise.hooks.apprise import AppriseHook

    alert = rendered.alert
    kinds = {
        AlertSeverity.INFO: apprise.NotifyType.INFO,
        AlertSeverity.WARNING: apprise.NotifyType.WARNING,
        AlertSeverity.CRITICAL: apprise.NotifyType.FAILURE,
    }
    is_good = alert.kind is AlertKind.RECOVERED
    hook = AppriseHook(apprise_conn_id=APPRISE_CONN_ID)
    services = apprise.Apprise()
    hook.set_config_from_conn(hook.get_connection(APPRISE_CONN_ID), services)
    # The hook's own notify() drops this answer, so that a failed alert would look delivered.
    arrived = services.notify(
        title=uncalled(rendered.subject),
        body=uncalled(rendered.text),
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType.SUCCESS if is_good else kinds[alert.severity],
        tag="all",
    )
    if not arrived:
        raise AlertDeliveryError(
            f"a service of connection {APPRISE_CONN_ID!r} refused it or was not reached"
        )
