"""How an alert travels: always to the outbox and the task log, elsewhere as configured.

`HOMEFEED_ALERT_TRANSPORTS` names the other transports, which use Airflow's own hooks. Secrets stay
in Airflow connections: no message, log line or error of this module repeats what a hook said about
its address. Not for what an alert says (`pipelines.alerts.compose`).
"""

import logging
import re
import smtplib

from pipelines import storage
from pipelines.alerts.rendering import RenderedAlert, render
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.judged.alert import Alert, AlertReceipt
from pipelines.settings import Settings

log = logging.getLogger(__name__)
_SLACK_STATUS = re.compile(r"Status Code: 4(?!29)\d\d\b")
"""How Slack's hook tells an answer that the same message would get again."""


class AlertDeliveryError(TransientStorageError):
    """A transport did not take the alert; the outbox and the other transports have it."""


def deliver_waiting(settings: Settings) -> tuple[str, ...]:
    """Send again what a transport did not take when it was sent, and return whose alerts were.

    Every later alert and cycle does so, so that a mail server which was away for a day costs a day
    and not the message. A transport that is not configured any more is not waited for. Nothing is
    raised: whoever calls has something of its own to do.
    """
    try:
        outbox = storage.join(storage.to_uri(settings.workspace_location), "outbox")
        names = [name for name in storage.list_names(outbox) if name.endswith(".json")]
    except HomefeedError as error:
        log.warning("the outbox was not looked through: %s", error)
        return ()
    sent: list[str] = []
    for uri in (storage.join(outbox, name) for name in names):
        try:
            run_id = _deliver_again(uri, settings)
        except FileNotFoundError:
            continue  # somebody has removed it meanwhile
        except AlertDeliveryError as error:
            log.warning("%s", error)
            break  # what is away is not asked once more for each alert: each takes its time
        except HomefeedError as error:
            log.warning("an alert still waits in the outbox: %s", error)
            continue
        sent += [run_id] if run_id else []
    return tuple(sent)


def _deliver_again(uri: str, settings: Settings) -> str:
    """Send an alert to the transports that it waits for; return its run, '' where none wait."""
    receipt = storage.read_model(uri, AlertReceipt)
    if receipt.alert is None or not set(receipt.waiting_for) & set(settings.alert_transports):
        return ""
    deliver(receipt.alert, settings, is_late=True)
    return receipt.alert.run_id


def deliver(alert: Alert, settings: Settings, is_late: bool = False) -> AlertReceipt:
    """Send an alert by each transport at least once, and return a receipt with those that took it.

    The outbox comes first and is the record: an alert with the same words, for the same run and
    kind, is not sent again by a transport that is on the receipt. A transport gets there when it
    has taken the alert. So a retried task sends an alert twice only where it was killed, or lost
    its lease, between the sending and the receipt, and then by one transport: better than not at
    all.

        <workspace>/outbox/<run_id>.<kind>.<digest>.json   an AlertReceipt
        <workspace>/outbox/<run_id>.<kind>.<digest>.txt    the alert as people read it

    Args:
        alert: The message.
        settings: Which transports, and how they are reached.
        is_late: Whether it was tried before, some time ago: the subject says so.

    Raises:
        AlertDeliveryError: a transport failed, after all others have been tried.
        RunInProgressError: another process delivers the same alert.
        ConfigurationError: transports failed, each by a fault that a person must mend.
    """
    uri, rendered = entry_uri(alert, settings), render(alert, is_late)
    failures: dict[str, Exception] = {}
    with storage.exclusive_lock(uri, f"the delivery of {alert.kind.value} for {alert.run_id}"):
        seen = storage.look(uri)
        if not storage.exists(uri):
            # Without a condition: the same alert has the same text, whoever writes it.
            storage.write_bytes(uri.removesuffix("json") + "txt", rendered.text.encode())
            # What waits is noted before anything is sent: a kill meanwhile must not lose it.
            waiting: tuple[str, ...] = tuple(
                name for name in settings.alert_transports if name != "outbox"
            )
            first = AlertReceipt(alert=alert, delivered_to=("outbox",), waiting_for=waiting)
            seen = storage.write_over(uri, first, seen)
            log.warning("%s\n%s", rendered.subject, rendered.text)
        receipt = storage.read_model(uri, AlertReceipt, "delete it to send the alert again")
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
    if failures:
        raise _delivery_error(failures, receipt.delivered_to, uri) from None
    return receipt


def entry_uri(alert: Alert, settings: Settings) -> str:
    """Return where the outbox keeps an alert. An alert with the same words has the same file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{alert.run_id}.{alert.kind.value}")
    workspace_uri = storage.to_uri(settings.workspace_location)
    return storage.join(workspace_uri, "outbox", f"{name}.{alert.fingerprint()[:8]}.json")


def _delivery_error(
    failures: dict[str, Exception], delivered: tuple[str, ...], uri: str
) -> AlertDeliveryError | ConfigurationError:
    """Return an error that names the transports and the kinds of error.

    A hook's own words are left out, because they may hold a webhook's address.
    """
    told = "; ".join(f"{name}: {_describe(error)}" for name, error in sorted(failures.items()))
    message = (
        f"the alert did not reach {', '.join(sorted(failures))} ({told}); it reached "
        f"{', '.join(delivered)} and lies at {uri}; check the Airflow connection of each "
        f"(HOMEFEED_<NAME>_CONN_ID), then clear the task"
    )
    if all(map(_needs_a_person, failures.values())):
        return ConfigurationError(message)
    return AlertDeliveryError(message)


def _needs_a_person(error: BaseException | None) -> bool:
    """Return whether a failure stays until somebody changes a connection or a setting.

    That is a hook that is not installed, a connection that is not there, a password that is
    refused, and an address of Slack's that is refused (a status of 4xx but 429). A hook may raise
    an error of its own about these.
    """
    if error is None:
        return False
    permanent = (ConfigurationError, ImportError, smtplib.SMTPAuthenticationError)
    # By name: where Airflow is not installed, its class cannot be imported to tell the same.
    if isinstance(error, permanent) or type(error).__name__ == "AirflowNotFoundException":
        return True
    refused = _SLACK_STATUS.search(str(error))
    return refused is not None or _needs_a_person(error.__cause__ or error.__context__)


def _describe(error: Exception) -> str:
    if isinstance(error, ConfigurationError | AlertDeliveryError):
        return str(error)
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}{f' ({strerror})' if strerror else ''}"


def _send_by_smtp(rendered: RenderedAlert, settings: Settings) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    if not settings.alert_email_to:
        raise ConfigurationError(
            'HOMEFEED_ALERT_EMAIL_TO is empty; expected a JSON list such as ["oncall@example.com"]'
        )
    with SmtpHook(smtp_conn_id=settings.smtp_conn_id) as hook:
        hook.send_email_smtp(
            to=list(settings.alert_email_to),
            from_email=settings.alert_email_from,
            subject=rendered.subject,
            html_content=rendered.html,
        )


def _send_to_slack(rendered: RenderedAlert, settings: Settings) -> None:
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    hook = SlackWebhookHook(slack_webhook_conn_id=settings.slack_conn_id, timeout=30)
    hook.send(text=rendered.slack)


def _send_by_apprise(rendered: RenderedAlert, settings: Settings) -> None:
    import apprise
    from airflow.providers.apprise.hooks.apprise import AppriseHook

    hook = AppriseHook(apprise_conn_id=settings.apprise_conn_id)
    services = apprise.Apprise()
    hook.set_config_from_conn(hook.get_connection(settings.apprise_conn_id), services)
    # The hook's own notify() drops this answer, so that a failed alert would look delivered.
    arrived = services.notify(
        title=rendered.subject,
        body=rendered.text,
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType.WARNING,
        tag="all",
    )
    if not arrived:
        raise AlertDeliveryError(
            f"a service of connection {settings.apprise_conn_id!r} refused it or was not reached"
        )


_TRANSPORTS = {"smtp": _send_by_smtp, "slack": _send_to_slack, "apprise": _send_by_apprise}
"""How each transport sends. The outbox is none of them: every alert is written there first."""
