"""How an alert travels: always to the outbox and the task log, elsewhere as configured.

`HOMEFEED_ALERT_TRANSPORTS` names the other transports (`pipelines.alerts.sending`). Secrets stay in
Airflow connections: no message, log line or error of this module repeats what a hook said about its
address. Not for what an alert says (`pipelines.alerts.compose`), nor for whether it is told at all
(`pipelines.alerts.incidents`).
"""

import logging
import re
import smtplib
from collections.abc import Callable
from datetime import UTC, datetime

from pipelines import storage
from pipelines.alerts.rendering import RenderedAlert, render
from pipelines.alerts.sending import (
    AlertDeliveryError,
    send_by_apprise,
    send_by_smtp,
    send_to_slack,
)
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.judged.alert import Alert, AlertReceipt
from pipelines.settings import Settings

log = logging.getLogger(__name__)
_SLACK_STATUS = re.compile(r"Status Code: 4(?!29)\d\d\b")
"""How Slack's hook tells an answer that the same message would get again."""


def deliver_waiting(settings: Settings) -> tuple[str, ...]:
    """Send again what a transport did not take when it was sent, and return whose alerts were.

    Every later alert and cycle does so, so that a mail server which was away for a day costs a day
    and not the message. What happened first is sent first. A transport that is not configured any
    more is not waited for, and one that is away is asked once, and not for each alert. Nothing is
    raised: whoever calls has something of its own to do.
    """
    try:
        outbox = storage.join(storage.to_uri(settings.workspace_location), "outbox")
        names = [name for name in storage.list_names(outbox) if name.endswith(".json")]
    except HomefeedError as error:
        log.warning("the outbox was not looked through: %s", error)
        return ()
    waiting = [found for name in names for found in _waiting(storage.join(outbox, name))]
    sent: list[str] = []
    for receipt in sorted(waiting, key=_happened_at):
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


def _waiting(uri: str) -> list[AlertReceipt]:
    """Return the receipt in a file of the outbox, where a transport has not taken its alert yet."""
    try:
        receipt = storage.read_model(uri, AlertReceipt)
    except FileNotFoundError:
        return []  # somebody has removed it meanwhile
    except HomefeedError as error:
        log.warning("an alert still waits in the outbox: %s", error)
        return []
    return [receipt] if receipt.waiting_for else []


def _happened_at(receipt: AlertReceipt) -> datetime:
    at = receipt.alert.at if receipt.alert else None
    return at or datetime.min.replace(tzinfo=UTC)


def deliver(alert: Alert, settings: Settings, is_counted: bool = False) -> AlertReceipt:
    """Send an alert by each transport at least once, and return a receipt with those that took it.

    The outbox comes first and is the record: an alert with the same words, for the same run and
    kind, is not sent again by a transport that is on the receipt. A transport gets there when it
    has taken the alert. So a retried task sends an alert twice only where it was killed, or lost
    its lease, between the sending and the receipt, and then by one transport: better than not at
    all.

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


def entry_uri(alert: Alert, settings: Settings) -> str:
    """Return where the outbox keeps an alert. An alert with the same words has the same file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{alert.run_id}.{alert.kind.value}")
    workspace_uri = storage.to_uri(settings.workspace_location)
    return storage.join(workspace_uri, "outbox", f"{name}.{alert.identity()[:8]}.json")


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
        f"each (HOMEFEED_<NAME>_CONN_ID), then clear the task"
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


_TRANSPORTS: dict[str, Callable[[RenderedAlert, Settings], None]] = {
    "smtp": send_by_smtp,
    "slack": send_to_slack,
    "apprise": send_by_apprise,
}
"""How each transport sends. The outbox is none of them: every alert is written there first."""
