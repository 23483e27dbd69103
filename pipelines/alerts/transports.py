"""How an alert travels: always to the outbox and the task log, elsewhere as configured.

`HOMEFEED_ALERT_TRANSPORTS` names the other transports: mail, Slack and Apprise, by the connections
that Airflow keeps. Mail goes by Airflow's notifier; Slack and Apprise by what its hooks make of the
connection, because its notifiers tell a refused message from one that arrived by words (Slack) or
not at all (Apprise). Secrets stay in the connections: no message, log line or error of this module
repeats what a hook said about its address. Not for what an alert says (`pipelines.alerts.compose`),
nor for whether it is told at all (`pipelines.alerts.incidents`).
"""

import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.outcomes import what_serves
from pipelines.alerts.rendering import RenderedAlert, escaped, render
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, AlertSeverity
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.plain_text import WORD_JOINER
from pipelines.settings import Settings

if TYPE_CHECKING:
    from apprise import Apprise

log = logging.getLogger(__name__)
SMTP, SLACK, APPRISE = "smtp_default", "slack_default", "apprise_default"
"""Connections of Airflow, with host, login and secrets; Slack's is one of an incoming webhook."""
_CALLS = re.compile(r"@(?=(?:everyone|here|channel|all|room)\b)|<(?=[!@#/\w])", re.IGNORECASE)


class AlertDeliveryError(TransientStorageError):
    """Transports did not take the alert; it is about these. Outbox and other transports have it."""


def entry_uri(alert: Alert, settings: Settings) -> str:
    """Return where the outbox keeps an alert. The same alert has the same file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{alert.run_id}.{alert.kind.value}")
    return storage.join(settings.workspace_uri, "outbox", f"{name}.{alert.identity()[:8]}.json")


def read_outbox(settings: Settings) -> list[tuple[AlertReceipt, Alert]]:
    """Return alerts with their receipts, what happened first before others.

    What cannot be read is warned of, and costs no other alert.

    Raises:
        HomefeedError: the outbox cannot be listed.
    """
    found = []
    outbox = storage.join(settings.workspace_uri, "outbox")
    for name in (name for name in storage.list_names(outbox) if name.endswith(".json")):
        try:
            receipt = storage.read_model(storage.join(outbox, name), AlertReceipt)
            if receipt.alert:
                found.append((receipt, receipt.alert))
        except (HomefeedError, FileNotFoundError) as error:  # one may be removed meanwhile
            log.warning("an alert of the outbox cannot be read: %s", error)
    return sorted(found, key=lambda each: (each[1].at, each[1].kind is AlertKind.RECOVERED))


def deliver(alert: Alert, settings: Settings, is_counted: bool = False) -> AlertReceipt:
    """Send an alert by each transport at least once; return a receipt with those that took it.

    The outbox comes first and is the record: the same alert is not sent again by a transport that
    is on the receipt. A transport gets there when it has taken the alert. So a retried task sends
    an alert twice only where it was killed between the sending and the receipt, or another one sent
    it at the same time: better than not at all.

        <workspace>/outbox/<run_id>.<kind>.<digest>.json   an AlertReceipt
        <workspace>/outbox/<run_id>.<kind>.<digest>.txt    the alert as people read it

    What is only counted, because people know of its cause, is put into the outbox alone.

    Raises:
        AlertDeliveryError: transports failed, after all have been tried. It names them and the
            kinds of their errors. A hook's own words are left out, because they may hold a
            webhook's address.
        RunInProgressError: another process delivers the same alert.
        HomefeedError: the outbox could not be written.
    """
    uri = entry_uri(alert, settings)
    failures: dict[str, str] = {}
    with storage.exclusive_lock(uri, "the delivery of an alert"):
        seen = storage.look(uri)
        if not storage.exists(uri):
            seen = storage.write_over(uri, _enter(alert, settings, uri, is_counted), seen)
        receipt = storage.read_model(uri, AlertReceipt, "delete it to send the alert again")
        if receipt.is_counted or receipt.alert is None:
            return receipt
        rendered = _as_of_now(receipt.alert, settings)
        for name in settings.alert_transports:
            if name in receipt.delivered_to:
                continue
            waiting = tuple(each for each in receipt.waiting_for if each != name)
            taken = {"delivered_to": (*receipt.delivered_to, name), "waiting_for": waiting}
            try:
                _TRANSPORTS[name](rendered, settings)
            # Whatever a transport raises, the next one must still be tried. What was raised is told
            # below in one error.
            except Exception as error:
                # A hook's own words may hold a webhook's address.
                is_ours = isinstance(error, HomefeedError)
                failures[name] = str(error) if is_ours else type(error).__name__
                taken = {"waiting_for": (*waiting, name)}
            receipt = receipt.model_copy(update=taken)
            seen = storage.write_over(uri, receipt, seen)
    if failures:
        told = "; ".join(f"{name}: {said}" for name, said in failures.items())
        failure = AlertDeliveryError(
            f"the alert did not reach each transport ({told}) and lies at {uri}; "
            f"mend the Airflow connection of each (<name>_default): it is sent with the next alert "
            f"or cycle, or now by `homefeed alert test`"
        )
        failure.about = tuple(failures)
        raise failure
    return receipt


def _enter(alert: Alert, settings: Settings, uri: str, is_counted: bool) -> AlertReceipt:
    """Write an alert's text into the outbox and the log; return the receipt to be written."""
    rendered = _as_of_now(alert, settings)
    # Without a condition: the same alert has the same text, whoever writes it.
    storage.write_bytes(uri.removesuffix("json") + "txt", rendered.text.encode())
    log.warning("%s\n%s", rendered.subject, rendered.text)
    # What waits is noted before anything is sent: a kill meanwhile must not lose it.
    waiting = () if is_counted else settings.alert_transports
    return AlertReceipt(
        alert=rendered.alert,
        delivered_to=("outbox",),
        waiting_for=tuple(name for name in waiting if name != "outbox"),
        is_counted=is_counted,
    )


def _as_of_now(alert: Alert, settings: Settings) -> RenderedAlert:
    """Return an alert as people read it, with what serves while it is sent."""
    serves = what_serves(settings.workspace_uri, settings.registered_model)
    return render(alert.model_copy(update={"serves": serves}), str(settings.reader_zone))


def send_by_smtp(rendered: RenderedAlert, settings: Settings) -> None:
    """Send a mail with the HTML, by Airflow's notifier.

    Raises a ConfigurationError where nobody is to get it, and whatever Airflow's hook or the mail
    server answered.
    """
    from airflow.providers.smtp.hooks.smtp import SmtpHook
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    if not settings.alert_email_to:
        raise ConfigurationError(
            'HOMEFEED_ALERT_EMAIL_TO is empty; expected a JSON list such as ["oncall@example.com"]'
        )
    sender = SmtpHook.get_connection(SMTP).extra_dejson.get("from_email")
    SmtpNotifier(
        smtp_conn_id=SMTP,
        from_email=sender or "homefeed-retrain@localhost",
        to=list(settings.alert_email_to),
        subject=rendered.subject,
        html_content=rendered.html,
        custom_headers={"Auto-Submitted": "auto-generated"},
    ).notify({})


def send_to_slack(rendered: RenderedAlert, settings: Settings) -> None:
    """Send Slack's blocks to an incoming webhook, which Apprise's own plugin cannot.

    Raises an AlertDeliveryError where Slack did not take it, and whatever Airflow's hook raised.
    """
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    client = SlackWebhookHook(slack_webhook_conn_id=SLACK, timeout=30).client
    text, blocks = escaped(rendered.subject), rendered.slack
    # A link that somebody's text holds shows no picture of its page.
    answer = client.send(text=text, blocks=blocks, unfurl_links=False, unfurl_media=False)
    if answer.status_code != HTTPStatus.OK:
        raise AlertDeliveryError(f"Slack answered with status {answer.status_code}")


def send_by_apprise(rendered: RenderedAlert, settings: Settings) -> None:
    """Send the plain text by what the connection names.

    Apprise takes a text for text, but some of its services (Discord, Slack with `format=markdown`)
    obey `@everyone` and `<...>` in it all the same. An invisible character takes their meaning
    away.

    Raises an AlertDeliveryError where a service refused it or was not reached, and whatever
    Airflow's hook raised.
    """
    import apprise

    # The hook's own notify() drops this answer, so that a failed alert would look delivered.
    arrived = read_apprise().notify(
        title=_CALLS.sub(f"\\g<0>{WORD_JOINER}", rendered.subject),
        body=_CALLS.sub(f"\\g<0>{WORD_JOINER}", rendered.text),
        body_format=apprise.NotifyFormat.TEXT,
        notify_type="info" if rendered.alert.severity is AlertSeverity.INFO else "warning",
        tag="all",
    )
    if not arrived:
        raise AlertDeliveryError("a service refused it or was not reached")


def read_apprise() -> "Apprise":
    """Return the services that the connection names; only sending tells whether they are there.

    Raises an AlertDeliveryError where there are none, and whatever Airflow's hook raised.
    """
    import apprise
    from airflow.providers.apprise.hooks.apprise import AppriseHook

    hook, services = AppriseHook(), apprise.Apprise()
    hook.set_config_from_conn(hook.get_connection(APPRISE), services)
    if not len(services):
        raise AlertDeliveryError("its connection names no service that Apprise knows")
    return services


_TRANSPORTS: dict[str, Callable[[RenderedAlert, Settings], None]] = {
    "smtp": send_by_smtp,
    "slack": send_to_slack,
    "apprise": send_by_apprise,
}
"""How each transport sends. The outbox is none of them: every alert is written there first."""
