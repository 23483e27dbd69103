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
from pipelines.contracts.base import digest_of
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, AlertSeverity
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


def entry_uri(alert: Alert, settings: Settings) -> str:
    """Return where the outbox keeps an alert. The same alert has the same file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{alert.run_id}.{alert.kind.value}")
    workspace_uri = storage.to_uri(settings.workspace_location)
    return storage.join(workspace_uri, "outbox", f"{name}.{alert.identity()[:8]}.json")


def deliver(alert: Alert, settings: Settings, is_counted: bool = False) -> AlertReceipt:
    """Send an alert by each transport at least once, and return a receipt with those that took it.

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

    Raises:
        AlertDeliveryError: a transport failed, after all others have been tried.
        RunInProgressError: another process delivers the same alert.
        ConfigurationError: transports failed, each by a fault that a person must mend.
    """
    receipt, failures = _deliver(alert, settings, is_counted=is_counted)
    if failures:
        raise _delivery_error(failures, receipt, entry_uri(alert, settings)) from None
    return receipt


def deliver_waiting(settings: Settings) -> tuple[str, ...]:
    """Send again what a transport did not take when it was sent, and return whose alerts were.

    Every later alert and cycle does so, so that a mail server which was away for a day costs a day
    and not the message. What happened first is sent first. A transport that is not configured any
    more is not waited for, and one that is away is asked once, and not for each alert. Nothing is
    raised: whoever calls has something of its own to do.
    """
    waiting: list[AlertReceipt] = []
    outbox = storage.join(storage.to_uri(settings.workspace_location), "outbox")
    try:
        names = [name for name in storage.list_names(outbox) if name.endswith(".json")]
    except HomefeedError as error:
        log.warning("the outbox was not looked through: %s", error)
        return ()
    for name in names:
        try:
            receipt = storage.read_model(storage.join(outbox, name), AlertReceipt)
            waiting += [receipt] if receipt.waiting_for else []
        except FileNotFoundError:
            continue  # somebody has removed it meanwhile
        except HomefeedError as error:
            log.warning("an alert still waits in the outbox: %s", error)
    never = datetime.min.replace(tzinfo=UTC)
    waiting.sort(key=lambda each: (each.alert and each.alert.at) or never)
    sent: list[str] = []
    for receipt in waiting:
        there = settings.alert_transports
        if receipt.alert is None or not set(receipt.waiting_for) & set(there):
            continue
        try:
            after, failures = _deliver(receipt.alert, settings, is_late=True)
        except HomefeedError as error:
            log.warning("an alert still waits in the outbox: %s", error)
            continue
        if failures:
            log.warning("%s", _delivery_error(failures, after, entry_uri(receipt.alert, settings)))
            here = tuple(name for name in there if name not in failures)
            settings = settings.model_copy(update={"alert_transports": here})
        if set(after.delivered_to) - set(receipt.delivered_to):
            sent.append(receipt.alert.run_id)
    return tuple(sent)


def _deliver(
    alert: Alert, settings: Settings, is_late: bool = False, is_counted: bool = False
) -> tuple[AlertReceipt, dict[str, Exception]]:
    """Send an alert; return the receipt, and what went wrong by the name of the transport."""
    uri = entry_uri(alert, settings)
    failures: dict[str, Exception] = {}
    with storage.exclusive_lock(uri, f"the delivery of {alert.kind.value} for {alert.run_id}"):
        seen = storage.look(uri)
        if not storage.exists(uri):
            seen = storage.write_over(uri, _enter(alert, settings, uri, is_counted), seen)
        receipt = storage.read_model(uri, AlertReceipt, "delete it to send the alert again")
        if receipt.is_counted or receipt.alert is None:
            return receipt, {}
        rendered = render(receipt.alert, is_late, settings.reader_zone)
        for name in settings.alert_transports:
            if name in receipt.delivered_to:
                continue
            try:
                _TRANSPORTS[name](rendered, settings)
            # Whatever a transport raises, the next one must still be tried. What was raised is told
            # below in one error.
            except Exception as error:
                failures[name] = error
                continue
            waiting = tuple(each for each in receipt.waiting_for if each != name)
            told = {"delivered_to": (*receipt.delivered_to, name), "waiting_for": waiting}
            receipt = receipt.model_copy(update=told)
            seen = storage.write_over(uri, receipt, seen)
        if waiting := tuple(name for name in failures if name not in receipt.waiting_for):
            told = {"waiting_for": (*receipt.waiting_for, *waiting)}
            storage.write_over(uri, receipt.model_copy(update=told), seen)
    return receipt, failures


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


def _delivery_error(
    failures: dict[str, Exception], receipt: AlertReceipt, uri: str
) -> AlertDeliveryError | ConfigurationError:
    """Return an error that names the transports and the kinds of error.

    A hook's own words are left out, because they may hold a webhook's address.
    """
    told = "; ".join(f"{name}: {_describe(error)}" for name, error in sorted(failures.items()))
    message = (
        f"the alert did not reach {', '.join(sorted(failures))} ({told}); it reached "
        f"{', '.join(receipt.delivered_to)} and lies at {uri}; check the Airflow connection of "
        f"each (<name>_default), then clear the task"
    )
    if all(map(_needs_a_person, failures.values())):
        return ConfigurationError(message)
    return AlertDeliveryError(message)


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

    An alert that is sent twice has the same Message-ID, so that most servers show it once. The ids
    under which mail programs show the alerts of one cycle together are those of no mail; a recovery
    belongs to the cycles that had broken, and to its own.

    Raises:
        ConfigurationError: nobody is to get it.
        Exception: whatever Airflow's hook or the mail server answered.
    """
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    if not settings.alert_email_to:
        raise ConfigurationError(
            'HOMEFEED_ALERT_EMAIL_TO is empty; expected a JSON list such as ["oncall@example.com"]'
        )
    alert, deployment = rendered.alert, _deployment(settings)
    domain = parseaddr(settings.alert_email_from)[1].rpartition("@")[2] or "localhost"
    cycles = (*alert.mended_cycles, *([alert.cycle] if alert.cycle else []))
    threads = [
        f"<cycle.{digest_of([deployment, label])[:32]}@{domain}>"
        for label in dict.fromkeys(cycle.label for cycle in cycles)
    ][:MAX_THREADS]
    priority, importance = _IMPORTANCE[alert.severity]
    headers = {
        "Message-ID": f"<{digest_of([deployment, alert.identity()])[:32]}@{domain}>",
        "X-Priority": priority,
        "Importance": importance,
        "Auto-Submitted": "auto-generated",
        "X-Homefeed-Kind": alert.kind.value,
        "X-Homefeed-Severity": alert.severity.value,
    }
    if threads:
        headers |= {"In-Reply-To": threads[0], "References": " ".join(threads)}
    SmtpNotifier(
        smtp_conn_id=SMTP_CONN_ID,
        from_email=settings.alert_email_from,
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
    if answer.status_code == HTTPStatus.OK:
        return
    told = f"Slack answered with status {answer.status_code}"
    refusals = range(HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
    if answer.status_code in refusals and answer.status_code != HTTPStatus.TOO_MANY_REQUESTS:
        raise ConfigurationError(told)
    raise AlertDeliveryError(told)


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

    kinds = {
        AlertSeverity.INFO: apprise.NotifyType.INFO,
        AlertSeverity.WARNING: apprise.NotifyType.WARNING,
        AlertSeverity.CRITICAL: apprise.NotifyType.FAILURE,
    }
    is_good = rendered.alert.kind is AlertKind.RECOVERED
    hook = AppriseHook(apprise_conn_id=APPRISE_CONN_ID)
    services = apprise.Apprise()
    hook.set_config_from_conn(hook.get_connection(APPRISE_CONN_ID), services)
    # The hook's own notify() drops this answer, so that a failed alert would look delivered.
    arrived = services.notify(
        title=uncalled(rendered.subject),
        body=uncalled(rendered.text),
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType.SUCCESS if is_good else kinds[rendered.alert.severity],
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
