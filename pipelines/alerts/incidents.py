"""What is broken and not yet mended: each cause is told once, then counted, then told as mended.

A cycle that broke is tried again by retries, by people and by the next due date, and breaks in the
same way until somebody has mended the cause. Whoever is on call gets one message of it, another one
where it is met again after `REMIND_AFTER`, with the count, and one for all causes when a cycle has
ended at last. A cause that nobody meets any more, as of a trial recipe that nobody runs again,
lapses. Not for verdicts: each cycle's is another one.

An alert is delivered before the record says so: a kill in between tells it once more at most, and
the outbox knows an alert that is the same.
"""

import logging
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, Field, ValidationError

from pipelines import storage
from pipelines.alerts.commands import ask_who_serves, step
from pipelines.alerts.compose import Ended, about_run, alert_about_failure, cycle_of, make_alert
from pipelines.alerts.links import links_of
from pipelines.alerts.outcomes import what_was_promoted
from pipelines.alerts.transports import entry_uri, try_to_deliver
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, Cause, Cycle
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Promotion
from pipelines.contracts.run_layout import StageRecord, manifest_uri
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
_NOTHING = AlertReceipt(alert=None, delivered_to=())


class Incident(Frozen):
    """A cause that has broken cycles, and has not been seen mended."""

    cause: Cause
    title: str = Field(description="Of the first alert.")
    run_id: str = Field(description="Of the newest run that met it.")
    cycles: tuple[Cycle, ...] = Field(
        description="The cycles that met it and are not seen mended; empty: not known."
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

    def after(self, run: ResolvedRun) -> "Incident":
        """Return it with the cycles that wait on after one has ended; with none it is mended.

        A cycle of another recipe, or of an earlier day than one that broke, shows nothing about
        that one. A cause of which no cycle is known is mended by any.
        """
        this = cycle_of(run.to_request())
        waiting = tuple(
            each for each in self.cycles if each.recipe != this.recipe or each.day > this.day
        )
        return self.model_copy(update={"cycles": waiting})


class IncidentRecord(Frozen):
    """What is open: `<workspace>/incidents/record.json`.

    What was not met for `LAPSES_AFTER` goes when the record is next written, and nothing is told.
    """

    open: tuple[Incident, ...] = ()

    def standing(self, now: datetime, settings: Settings) -> tuple[Incident, ...]:
        """Return what has not lapsed by now: due cycles would have met it."""
        lapse = max(LAPSES_AFTER, timedelta(days=3 * settings.cadence_days))
        return tuple(each for each in self.open if now - each.last_at < lapse)


def record_uri(settings: Settings) -> str:
    """Return where the record of incidents lies."""
    workspace_uri = storage.to_uri(settings.workspace_location)
    return storage.join(workspace_uri, "incidents", "record.json")


def _read(settings: Settings) -> IncidentRecord:
    uri, repair = record_uri(settings), "delete it; what is broken is then told anew"
    return (
        storage.read_model(uri, IncidentRecord, repair) if storage.exists(uri) else IncidentRecord()
    )


def read_open(settings: Settings, now: datetime) -> tuple[Incident, ...]:
    """Return what has broken cycles, was not seen mended and has not lapsed, the oldest first.

    Raises:
        HomefeedError: the record is damaged or cannot be read.
    """
    return tuple(sorted(_read(settings).standing(now, settings), key=lambda each: each.first_at))


def alert_on_failure(run_uri: str, settings: Settings, ended: Ended) -> AlertReceipt:
    """Tell people about a run that broke. A second call about the same failure tells nothing.

    Takes what `pipelines.alerts.compose.alert_about_failure` does, and raises what `tell` does.
    """
    alert = alert_about_failure(run_uri, settings, ended)
    return _NOTHING if alert is None else tell(alert, settings)


def tell(alert: Alert, settings: Settings) -> AlertReceipt:
    """Tell people about a failure, or count it where they know of its cause.

    What is only counted lies in the outbox, and goes to no transport. Where the record cannot be
    had, the alert is delivered without it: told twice is better than not at all.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have the alert.
        ConfigurationError: as `pipelines.alerts.transports.deliver` raises.
    """
    met = alert if alert.at else alert.model_copy(update={"at": datetime.now(UTC)})
    uri = record_uri(settings)
    try:
        with storage.exclusive_lock(uri, "the record of incidents", RECORD_WAIT_S):
            seen, record = storage.look(uri), _read(settings)
            is_known = any(each.cause == met.cause for each in record.open)
            if is_known and storage.exists(entry_uri(met, settings)):  # this failure, told before
                receipt, failure = try_to_deliver(met, settings)
            else:
                incidents, met, is_counted = _met(record, met, settings)
                receipt, failure = try_to_deliver(met, settings, is_counted)
                storage.write_over(uri, IncidentRecord(open=incidents), seen)
    except HomefeedError as error:
        log.warning("the record of incidents does not know of this alert: %s", error)
        receipt, failure = try_to_deliver(met, settings)
    if failure is not None:
        raise failure from None
    return receipt


def _met(
    record: IncidentRecord, alert: Alert, settings: Settings
) -> tuple[tuple[Incident, ...], Alert, bool]:
    """Return what is open once a cause was met, the alert with its count, and if only counted."""
    assert alert.at is not None and alert.cause is not None
    known = record.standing(alert.at, settings)
    before = next((each for each in known if each.cause == alert.cause), None)
    mine = () if alert.cycle is None else (alert.cycle,)
    told = {"run_id": alert.run_id, "last_at": alert.at}
    if before is None:
        new = Incident(
            cause=alert.cause,
            title=alert.title,
            cycles=mine,
            first_at=alert.at,
            told_at=alert.at,
            num_times=1,
            **told,
        )
        return (*known, new), alert, False
    is_due = alert.at - before.told_at >= REMIND_AFTER
    count = {"num_times": before.num_times + 1, "first_at": before.first_at}
    told |= {
        "cycles": tuple(dict.fromkeys((*before.cycles, *mine))),
        "told_at": alert.at if is_due else before.told_at,
    }
    others = tuple(each for each in known if each is not before)
    incidents = (*others, before.model_copy(update=told | count))
    return incidents, alert.model_copy(update=count), not is_due


def tell_recovered(run_uri: str, settings: Settings) -> AlertReceipt:
    """Tell people, once, that a cycle has ended after cycles that broke, and close what was open.

    Nothing is told where nothing was open, or where a stage of the cycle has not ended. Nothing is
    raised: the cycle is well, and what was not delivered is delivered by a later one.
    """
    receipt, uri = _NOTHING, record_uri(settings)
    try:
        # A look without the lock: nearly always there is nothing to mend.
        if not storage.exists(uri):
            return receipt
        if not all(storage.exists(manifest_uri(run_uri, stage)) for stage in STAGES):
            return receipt
        ended = {
            stage: storage.read_model(manifest_uri(run_uri, stage), StageRecord) for stage in STAGES
        }
        run = ResolvedRun.model_validate(ended["resolve_run"].artifact)
        at = max(each.finished_at for each in ended.values())
        promotion = Promotion.model_validate(ended["promote_challenger"].artifact)
        with storage.exclusive_lock(uri, "the record of incidents", RECORD_WAIT_S):
            seen, record = storage.look(uri), _read(settings)
            looked_at = tuple(each.after(run) for each in record.open)
            mended = tuple(each for each in looked_at if not each.cycles)
            waiting = IncidentRecord(open=tuple(each for each in looked_at if each.cycles))
            rest = IncidentRecord(open=waiting.standing(at, settings))
            if mended:
                alert = compose_recovered(mended, run, promotion, at, settings)
                receipt, failure = try_to_deliver(alert, settings)
                if failure:
                    log.warning("that the cycle has recovered is told later: %s", failure)
            if rest != record:
                storage.write_over(uri, rest, seen)
    # The last one: a manifest that another version of this project has written.
    except (HomefeedError, OSError, ValidationError) as error:
        log.warning("that the cycle has recovered is told later: %s", error)
    return receipt


def compose_recovered(
    mended: tuple[Incident, ...],
    run: ResolvedRun,
    promotion: Promotion,
    at: datetime,
    settings: Settings,
) -> Alert:
    """Return the alert about causes that are mended.

    Args:
        mended: What had been broken, at least one, as `Incident.after` returns it.
        run: The cycle that has ended.
        promotion: What it did to the champion.
        at: When it ended.
        settings: Addresses for the links.
    """
    stages = dict.fromkeys(each.cause.stage for each in mended)
    end = f"{', '.join(stages)} {'ends' if len(stages) == 1 else 'end'} well again"
    serving = promotion.champion_after
    return make_alert(
        AlertKind.RECOVERED,
        settings,
        links_of(run, settings),
        **about_run(run, f"recovered, {end}"),
        about=tuple(f"{each.cause.stage} {each.first_at.isoformat()}" for each in mended),
        serves=f"{serving.label} serves; {what_was_promoted(promotion)}."
        if serving
        else "There is no champion yet.",
        happened="\n".join(incident.sentence for incident in mended),
        certainty="Certain: every stage of this cycle has ended.",
        done=f"Run {run.run_id} has ended, with code {run.code_version}.",
        next_step=step("Nothing has to be done.", ask_who_serves(run)),
        at=at,
    )
