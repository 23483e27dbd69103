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
import smtplib
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parseaddr
from http import HTTPStatus

from pipelines import storage
from pipelines.alerts.rendering import RenderedAlert, escaped, render
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, AlertSeverity
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.plain_text import WORD_JOINER
from pipelines.settings import Settings

log = logging.getLogger(__name__)
SMTP_CONN_ID, SLACK_CONN_ID, APPRISE_CONN_ID = "smtp_default", "slack_default", "apprise_default"
"""Connections of Airflow, with host, login and secrets; Slack's is one of an incoming webhook."""
_IMPORTANCE = {
    AlertSeverity.INFO: ("5", "low", "info"),
    AlertSeverity.WARNING: ("3", "normal", "warning"),
    AlertSeverity.CRITICAL: ("1", "high", "failure"),
}
"""X-Priority and Importance of a mail: which of the two counts depends on the mail program; and
Apprise's type of a message."""
_CALLS = re.compile(r"@(?=(?:everyone|here|channel|all|room)\b)|<(?=[!@#/\w])", re.IGNORECASE)


class AlertDeliveryError(TransientStorageError):
    """A transport did not take the alert; the outbox and the other transports have it."""


def entry_uri(alert: Alert, settings: Settings) -> str:
    """Return where the outbox keeps an alert. The same alert has the same file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{alert.run_id}.{alert.kind.value}")
    workspace_uri = storage.to_uri(settings.workspace_location)
    return storage.join(workspace_uri, "outbox", f"{name}.{alert.identity()[:8]}.json")


def deliver(alert: Alert, settings: Settings) -> AlertReceipt:
    """Send an alert as `try_to_deliver` does, and return the receipt.

    Raises:
        AlertDeliveryError: a transport failed, after all others have been tried.
        RunInProgressError: another process delivers the same alert.
        ConfigurationError: transports failed, each by a fault that a person must mend.
    """
    receipt, failure = try_to_deliver(alert, settings)
    if failure is not None:
        raise failure from None
    return receipt


def deliver_waiting(settings: Settings) -> tuple[str, ...]:
    """Send again what a transport did not take when it was sent, and return whose alerts were.

    Every later alert and cycle does so, so that a mail server which was away for a day costs a day
    and not the message. What happened first is sent first. A transport that is not configured any
    more is not waited for, and one that is away is asked once, and not for each alert. Nothing is
    raised: whoever calls has something of its own to do.
    """
    sent: list[str] = []
    try:
        waiting = read_outbox(settings)
    except HomefeedError as error:
        log.warning("the outbox was not looked through: %s", error)
        return ()
    for _, receipt, alert in waiting:
        if not set(receipt.waiting_for) & set(settings.alert_transports):
            continue
        try:
            after, failure = try_to_deliver(alert, settings, is_late=True)
        except HomefeedError as error:
            log.warning("an alert still waits in the outbox: %s", error)
            continue
        if failure is not None:
            log.warning("%s", failure)
            here = tuple(n for n in settings.alert_transports if n not in after.waiting_for)
            settings = settings.model_copy(update={"alert_transports": here})
        if set(after.delivered_to) - set(receipt.delivered_to):
            sent.append(alert.run_id)
    return tuple(sent)


def read_outbox(
    settings: Settings, *kinds: AlertKind
) -> list[tuple[datetime, AlertReceipt, Alert]]:
    """Return alerts with when they happened and their receipts, what happened first before others.

    What cannot be read is warned of, and costs no other alert.

    Args:
        settings: Where the outbox lies.
        kinds: Those that are wanted; all if none is named.

    Raises:
        HomefeedError: the outbox cannot be listed.
    """
    found = []
    outbox = storage.join(storage.to_uri(settings.workspace_location), "outbox")
    for name in storage.list_names(outbox):
        is_wanted = not kinds or any(f".{kind.value}." in name for kind in kinds)
        if not name.endswith(".json") or not is_wanted:
            continue
        try:
            receipt = storage.read_model(storage.join(outbox, name), AlertReceipt)
        except FileNotFoundError:
            continue  # somebody has removed it meanwhile
        except HomefeedError as error:
            log.warning("an alert of the outbox cannot be read: %s", error)
            continue
        if receipt.alert and receipt.alert.at:
            found.append((receipt.alert.at, receipt, receipt.alert))
    return sorted(found, key=lambda each: (each[0], each[2].kind is AlertKind.RECOVERED))


def try_to_deliver(
    alert: Alert, settings: Settings, is_counted: bool = False, is_late: bool = False
) -> tuple[AlertReceipt, AlertDeliveryError | ConfigurationError | None]:
    """Send an alert by each transport at least once; return a receipt with those that took it.

    The outbox comes first and is the record: the same alert is not sent again by a transport that
    is on the receipt. A transport gets there when it has taken the alert. So a retried task sends
    an alert twice only where it was killed, or lost its lease, between the sending and the receipt,
    and then by one transport: better than not at all.

        <workspace>/outbox/<run_id>.<kind>.<digest>.json   an AlertReceipt
        <workspace>/outbox/<run_id>.<kind>.<digest>.txt    the alert as people read it

    Args:
        alert: The message. Where it does not say when it happened, that is now.
        settings: Which transports, and how they are reached.
        is_counted: Whether it is only put into the outbox, because people know of its cause.
        is_late: Whether its transports did not take it before.

    Returns:
        The receipt, and an error that names the transports that failed, if any, and the kinds of
        their errors. A hook's own words are left out, because they may hold a webhook's address.

    Raises:
        HomefeedError: the outbox could not be written, or another process delivers the same alert.
    """
    uri = entry_uri(alert, settings)
    failures: dict[str, Exception] = {}
    with storage.exclusive_lock(uri, f"the delivery of {alert.kind.value} for {alert.run_id}"):
        seen = storage.look(uri)
        if not storage.exists(uri):
            seen = storage.write_over(uri, _enter(alert, settings, uri, is_counted), seen)
        receipt = storage.read_model(uri, AlertReceipt, "delete it to send the alert again")
        if receipt.is_counted or receipt.alert is None:
            return receipt, None
        rendered = render(receipt.alert, is_late, settings.reader_zone)
        waiting = receipt.waiting_for
        for name in settings.alert_transports:
            if name in receipt.delivered_to:
                continue
            try:
                _TRANSPORTS[name](rendered, settings)
            # Whatever a transport raises, the next one must still be tried. What was raised is told
            # below in one error.
            except Exception as error:
                failures[name] = error
                waiting = tuple(dict.fromkeys((*waiting, name)))
                continue
            waiting = tuple(each for each in waiting if each != name)
            taken = {"delivered_to": (*receipt.delivered_to, name), "waiting_for": waiting}
            receipt = receipt.model_copy(update=taken)
            seen = storage.write_over(uri, receipt, seen)
        if waiting != receipt.waiting_for:
            receipt = receipt.model_copy(update={"waiting_for": waiting})
            storage.write_over(uri, receipt, seen)
    return receipt, _fault(failures, receipt, uri) if failures else None


def _fault(
    failures: dict[str, Exception], receipt: AlertReceipt, uri: str
) -> AlertDeliveryError | ConfigurationError:
    told = "; ".join(f"{name}: {_describe(error)}" for name, error in sorted(failures.items()))
    is_permanent = all(map(_needs_a_person, failures.values()))
    return (ConfigurationError if is_permanent else AlertDeliveryError)(
        f"the alert did not reach {', '.join(sorted(failures))} ({told}); it reached "
        f"{', '.join(receipt.delivered_to)} and lies at {uri}; check the Airflow connection of "
        f"each (<name>_default), then clear the task"
    )


def _enter(alert: Alert, settings: Settings, uri: str, is_counted: bool) -> AlertReceipt:
    """Write an alert's text into the outbox and the log; return the receipt to be written."""
    if alert.at is None:
        alert = alert.model_copy(update={"at": datetime.now(UTC)})
    rendered = render(alert, zone=settings.reader_zone)
    # Without a condition: the same alert has the same text, whoever writes it.
    storage.write_bytes(uri.removesuffix("json") + "txt", rendered.text.encode())
    log.warning("%s\n%s", rendered.subject, rendered.text)
    # What waits is noted before anything is sent: a kill meanwhile must not lose it.
    waiting = () if is_counted else settings.alert_transports
    return AlertReceipt(
        alert=alert,
        delivered_to=("outbox",),
        waiting_for=tuple(name for name in waiting if name != "outbox"),
        is_counted=is_counted,
    )


def _describe(error: Exception) -> str:
    if isinstance(error, ConfigurationError | AlertDeliveryError):
        return str(error)
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}{f' ({strerror})' if strerror else ''}"


def _needs_a_person(error: BaseException | None) -> bool:
    """Return whether a failure stays until somebody changes a connection or a setting.

    That is a hook that is not installed, a connection that is not there, a password or an address
    that is refused. A hook may raise an error of its own about these.
    """
    if error is None:
        return False
    permanent = (ConfigurationError, ImportError, smtplib.SMTPAuthenticationError)
    # By name: where Airflow is not installed, its class cannot be imported to tell the same.
    if isinstance(error, permanent) or type(error).__name__ == "AirflowNotFoundException":
        return True
    return _needs_a_person(error.__cause__ or error.__context__)


def send_by_smtp(rendered: RenderedAlert, settings: Settings) -> None:
    """Send a mail with the HTML, by Airflow's notifier, threaded by the cycle.

    An alert that is sent twice has the same Message-ID, so that most servers show it once. The id
    under which mail programs show the alerts of one cycle together is that of no mail.

    Raises:
        ConfigurationError: nobody is to get it.
        Exception: whatever Airflow's hook or the mail server answered.
    """
    from airflow.providers.smtp.hooks.smtp import SmtpHook
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    if not settings.alert_email_to:
        raise ConfigurationError(
            'HOMEFEED_ALERT_EMAIL_TO is empty; expected a JSON list such as ["oncall@example.com"]'
        )
    alert, deployment = rendered.alert, _deployment(settings)
    named = SmtpHook.get_connection(SMTP_CONN_ID).extra_dejson.get("from_email")
    sender = named or "homefeed-retrain@localhost"
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    priority, importance, _ = _IMPORTANCE[alert.severity]
    headers = {
        "Message-ID": f"<{digest_of([deployment, alert.identity()])[:32]}@{domain}>",
        "X-Priority": priority,
        "Importance": importance,
        "Auto-Submitted": "auto-generated",
        "X-Homefeed-Kind": alert.kind.value,
        "X-Homefeed-Severity": alert.severity.value,
    }
    if alert.cycle:
        thread = f"<cycle.{digest_of([deployment, alert.cycle.label])[:32]}@{domain}>"
        headers |= {"In-Reply-To": thread, "References": thread}
    SmtpNotifier(
        smtp_conn_id=SMTP_CONN_ID,
        from_email=sender,
        to=list(settings.alert_email_to),
        subject=rendered.subject,
        html_content=rendered.html,
        custom_headers=headers,
    ).notify({})


def _deployment(settings: Settings) -> list[str]:
    return [storage.to_uri(settings.workspace_location), settings.registered_model]


def send_to_slack(rendered: RenderedAlert, settings: Settings) -> None:
    """Send Slack's blocks to an incoming webhook, which Apprise's own plugin cannot.

    Raises:
        ConfigurationError: Slack refuses the address or the message, and will again.
        AlertDeliveryError: Slack could not take it now.
        Exception: whatever Airflow's hook raised.
    """
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    hook = SlackWebhookHook(slack_webhook_conn_id=SLACK_CONN_ID, timeout=30)
    text, blocks = escaped(rendered.subject), rendered.slack
    # A link that somebody's text holds shows no picture of its page.
    answer = hook.client.send(text=text, blocks=blocks, unfurl_links=False, unfurl_media=False)
    code = answer.status_code
    if code == HTTPStatus.OK:
        return
    is_refused = HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR
    is_permanent = is_refused and code != HTTPStatus.TOO_MANY_REQUESTS
    told = f"Slack answered with status {code}"
    raise ConfigurationError(told) if is_permanent else AlertDeliveryError(told)


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

    is_good = rendered.alert.kind is AlertKind.RECOVERED
    hook = AppriseHook(apprise_conn_id=APPRISE_CONN_ID)
    services = apprise.Apprise()
    hook.set_config_from_conn(hook.get_connection(APPRISE_CONN_ID), services)
    # The hook's own notify() drops this answer, so that a failed alert would look delivered.
    arrived = services.notify(
        title=uncalled(rendered.subject),
        body=uncalled(rendered.text),
        body_format=apprise.NotifyFormat.TEXT,
        notify_type="success" if is_good else _IMPORTANCE[rendered.alert.severity][2],
        tag="all",
    )
    if not arrived:
        raise AlertDeliveryError(
            f"a service of connection {APPRISE_CONN_ID!r} refused it or was not reached"
        )


_TRANSPORTS: dict[str, Callable[[RenderedAlert, Settings], None]] = {
    "smtp": send_by_smtp,
    "slack": send_to_slack,
    "apprise": send_by_apprise,
}
"""How each transport sends. The outbox is none of them: every alert is written there first."""
