"""What is broken and not yet mended: each cause is told once, then counted, then told as mended.

A cycle that broke is tried again by retries, by people and by the next due date, and breaks in the
same way until somebody has mended the cause. Whoever is on call gets one message of it, another one
where it is met again after `REMIND_AFTER`, with the count, and one when a cycle has ended at last
(`pipelines.alerts.recovery`). A cause that nobody meets any more, as of a trial recipe that nobody
runs again, lapses. Not for verdicts: each cycle's is another one. Tested in
tests/pipelines/alerts/test_incidents.py.
"""

import logging
import re
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.alerts.sending import AlertDeliveryError
from pipelines.alerts.transports import deliver, entry_uri
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judged.alert import Alert, AlertReceipt, Cycle
from pipelines.places.conditional import Revision
from pipelines.plain_text import one_line
from pipelines.settings import Settings

log = logging.getLogger(__name__)
REMIND_AFTER = timedelta(hours=6)
"""A cause that is met again so long after it was told last is told again. Whoever has tried again
sooner than that is looking; whoever has gone home hears of it. The rule `HomefeedStageNotRetried`
for metrics waits as long (docs/observability.md)."""
LAPSES_AFTER = timedelta(days=60)
"""A cause that was not met for so long, and for three periods of the schedule, is not called broken
any more; met again, it is a new one."""
RECORD_WAIT_S = 20.0
"""How long to wait for another process that writes the record, in seconds: Airflow's DAG processor
has little time."""
_OF_ONE_RUN = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*(?: UTC)?|\b[0-9a-f]{8,}\b|\boutput-[\w-]+|\bpid \d+"
)
"""What differs between two runs that break by the same cause: instants, digests, folders of an
attempt, processes. Days and numbers stay: another missing day is another cause."""


class Incident(Frozen):
    """A cause that has broken cycles, and has not been seen mended."""

    cause: str = Field(description="As in the alerts about it.")
    title: str = Field(description="Of the first alert.")
    stage: str = Field(description="Which stage or other task of Airflow's broke.")
    run_id: str = Field(description="Of the newest run that met it.")
    cycles: tuple[Cycle, ...] = Field(
        description="The cycles that met it and are not seen mended; empty: not known."
    )
    mended_cycles: tuple[Cycle, ...] = Field(
        default=(), description="The cycles that met it and are seen mended, before all are."
    )
    first_at: AwareDatetime
    last_at: AwareDatetime
    told_at: AwareDatetime = Field(description="When people were told last.")
    num_times: int = Field(ge=1, description="How often it was met.")

    @property
    def sentence(self) -> str:
        """Return since when, how often and what, on one line."""
        often = "once"
        if self.num_times > 1:
            often = f"{self.num_times} times, last at {self.last_at:%Y-%m-%d %H:%M} UTC"
        return f"Since {self.first_at:%Y-%m-%d %H:%M} UTC, {often}: {one_line(self.title)}"


class Untold(Frozen):
    """An alert that is about to be delivered."""

    alert: Alert
    is_counted: bool = Field(description="Whether it is only put into the outbox.")


class IncidentRecord(Frozen):
    """What is open, and what is about to be told.

    <workspace>/incidents/record.json    written before an alert is delivered, and after

    What was not met for `LAPSES_AFTER` goes when the record is next written, and nothing is told.
    What a killed process has not delivered is delivered by the next one that writes here; an alert
    with the same words is delivered once.
    """

    open: tuple[Incident, ...] = ()
    untold: tuple[Untold, ...] = ()


def cycle_of(request: RunRequest) -> Cycle:
    """Return the cycle that a request asks for."""
    return Cycle(day=request.day.date(), recipe=request.recipe)


def cause_of(stage: str, error_class: str, message: str, run_id: str) -> str:
    """Return what a failure has in common with another one of the same cause.

    Args:
        stage: The stage that failed.
        error_class: Of its error; '' where it left none.
        message: What the error said, or Airflow's word for a failure without one.
        run_id: Of the run, which a message may name.
    """
    said = _OF_ONE_RUN.sub("#", message.replace(run_id, "#"))
    return f"{stage}:{error_class or 'no word'}:{digest_of(said)[:16]}"


def tell(alert: Alert, settings: Settings) -> AlertReceipt:
    """Tell people about a failure, or count it where they know of its cause.

    What is only counted lies in the outbox, and goes to no transport. Where the record cannot be
    had, the alert is delivered without it: told twice is better than not at all.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have the alert.
        ConfigurationError: as `pipelines.alerts.transports.deliver` raises.
    """
    met = alert if alert.at else alert.model_copy(update={"at": datetime.now(UTC)})
    try:
        with storage.exclusive_lock(record_uri(settings), "the record of incidents", RECORD_WAIT_S):
            ledger = Ledger(settings)
            if storage.exists(entry_uri(met, settings)):  # this very failure, told before
                ledger.deliver_untold()
                return deliver(met, settings)
            receipt = ledger.note(*_met(ledger.record, met, lapses_after(settings)))
    except AlertDeliveryError:
        raise
    except HomefeedError as error:
        log.warning("the alert is told without a look at earlier ones: %s", error)
        return deliver(met, settings)
    return receipt


class Ledger:
    """The record, held open by whoever holds its lock.

    Attributes:
        record: What it says now.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the record; a new one is empty.

        Raises:
            DataContractError: it is damaged.
        """
        self._settings, self._uri = settings, record_uri(settings)
        self._seen: Revision = storage.look(self._uri)
        self.record = IncidentRecord()
        if storage.exists(self._uri):
            repair = "delete it; what is broken is then told anew"
            self.record = storage.read_model(self._uri, IncidentRecord, repair)

    def note(self, incidents: tuple[Incident, ...], untold: Untold) -> AlertReceipt:
        """Write down what is open and what is to be told, then deliver that.

        Raises:
            AlertDeliveryError: a transport failed; the outbox and the others have the alert.
            HomefeedError: the record or the outbox cannot be written.
        """
        self._write(incidents, (*self.record.untold, untold))
        return self.deliver_untold()[untold.alert.identity()]

    def keep(self, incidents: tuple[Incident, ...]) -> None:
        """Write down what is open, where that differs and nothing is to be told.

        Raises:
            HomefeedError: the record cannot be written.
        """
        if incidents != self.record.open:
            self._write(incidents, self.record.untold)

    def deliver_untold(self) -> dict[str, AlertReceipt]:
        """Deliver what is untold, also of a process that was killed; give receipts by identity.

        Raises:
            HomefeedError: as `note` raises, after everything has been tried.
        """
        receipts: dict[str, AlertReceipt] = {}
        failure: HomefeedError | None = None
        left = []
        for each in self.record.untold:
            try:
                receipts[each.alert.identity()] = deliver(
                    each.alert, self._settings, is_counted=each.is_counted
                )
            except HomefeedError as error:
                failure = error
                if not storage.exists(entry_uri(each.alert, self._settings)):
                    left.append(each)  # not even the outbox has it
        if self.record.untold:
            self._write(self.record.open, tuple(left))
        if failure is not None:
            raise failure
        return receipts

    def _write(self, incidents: tuple[Incident, ...], untold: tuple[Untold, ...]) -> None:
        self.record = IncidentRecord(open=incidents, untold=untold)
        self._seen = storage.write_over(self._uri, self.record, self._seen)


def read_open(settings: Settings, now: datetime) -> tuple[Incident, ...]:
    """Return what has broken cycles, was not seen mended and has not lapsed, the oldest first.

    Raises:
        HomefeedError: the record is damaged or cannot be read.
    """
    still = standing(Ledger(settings).record.open, now, lapses_after(settings))
    return tuple(sorted(still, key=lambda incident: incident.first_at))


def lapses_after(settings: Settings) -> timedelta:
    """Return how long a cause has to go unmet to lapse: due cycles have met it by then."""
    return max(LAPSES_AFTER, timedelta(days=3 * settings.cadence_days))


def standing(
    incidents: tuple[Incident, ...], now: datetime, lapse: timedelta
) -> tuple[Incident, ...]:
    """Return those of some incidents that have not lapsed."""
    return tuple(each for each in incidents if now - each.last_at < lapse)


def record_uri(settings: Settings) -> str:
    """Return where the record of incidents lies."""
    workspace_uri = storage.to_uri(settings.workspace_location)
    return storage.join(workspace_uri, "incidents", "record.json")


def _met(
    record: IncidentRecord, alert: Alert, lapse: timedelta
) -> tuple[tuple[Incident, ...], Untold]:
    """Return what is open once a cause was met, and what is to be told of that."""
    assert alert.at is not None
    known = standing(record.open, alert.at, lapse)
    before = next((each for each in known if each.cause == alert.cause), None)
    is_due = before is None or alert.at - before.told_at >= REMIND_AFTER
    mine = () if alert.cycle is None else (alert.cycle,)
    incident = Incident(
        cause=alert.cause,
        title=before.title if before else alert.title,
        stage=alert.cause.partition(":")[0],
        run_id=alert.run_id,
        cycles=tuple(dict.fromkeys((*(before.cycles if before else ()), *mine))),
        mended_cycles=before.mended_cycles if before else (),
        first_at=before.first_at if before else alert.at,
        last_at=alert.at,
        told_at=alert.at if before is None or is_due else before.told_at,
        num_times=before.num_times + 1 if before else 1,
    )
    counted = {
        "num_times": incident.num_times,
        "first_at": before.first_at if before else None,
    }
    others = tuple(each for each in known if each is not before)
    told = Untold(alert=alert.model_copy(update=counted), is_counted=not is_due)
    return (*others, incident), told
