"""What is broken and not yet mended: each cause is told once, then counted, then told as mended.

A cycle that broke is tried again by retries, by people and by the next due date, and breaks in the
same way until somebody has mended the cause. Whoever is on call gets one message of it, another one
where it is met again after `REMIND_AFTER`, with the count, and one for all causes when a cycle has
ended at last. A cause that nobody meets any more, as of a trial recipe that nobody runs again,
lapses. Not for verdicts: each cycle's is another one.

There is no record of its own: what is open follows from the alerts in the outbox, each failure and
each recovery in the order in which they happened. An alert is in the outbox before it is sent, so a
kill loses none, and the outbox knows an alert that is the same.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from pipelines import storage
from pipelines.alerts.commands import ask_who_serves, step
from pipelines.alerts.compose import Ended, about_run, alert_about_failure, cycle_of, make_alert
from pipelines.alerts.links import links_of
from pipelines.alerts.outcomes import what_was_promoted
from pipelines.alerts.transports import entry_uri, read_outbox, try_to_deliver
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, Cause, Cycle
from pipelines.contracts.artifacts import STAGES, ResolvedRun
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
_NOTHING = AlertReceipt(alert=None, delivered_to=())


@dataclass(frozen=True)
class Incident:
    """A cause that has broken cycles, and has not been seen mended."""

    cause: Cause
    title: str  # Of the first alert.
    cycles: tuple[Cycle, ...]  # Those that met it and are not seen mended; empty: not known.
    first_at: datetime
    last_at: datetime
    told_at: datetime  # When people were told last.
    num_times: int  # How often it was met.

    @property
    def sentence(self) -> str:
        """Return since when, how often and what, on one line."""
        often = "once"
        if self.num_times > 1:
            often = f"{self.num_times} times, last at {self.last_at:%Y-%m-%d %H:%M} UTC"
        return f"Since {self.first_at:%Y-%m-%d %H:%M} UTC, {often}: {one_line(self.title)}"

    def after(self, ended: Cycle | None) -> "Incident":
        """Return it with the cycles that wait on after one has ended; with none it is mended.

        A cycle of another recipe, or of an earlier day than one that broke, shows nothing about
        that one. A cause of which no cycle is known is mended by any.
        """
        waiting = tuple(
            each
            for each in self.cycles
            if ended is None or each.recipe != ended.recipe or each.day > ended.day
        )
        return replace(self, cycles=waiting)


def find_open(settings: Settings) -> dict[Cause, Incident]:
    """Return what follows from the outbox by its cause, also what has lapsed since."""
    found: dict[Cause, Incident] = {}
    kinds = (AlertKind.BROKEN_RUN, AlertKind.DATA_GATE_FAILED, AlertKind.RECOVERED)
    for at, receipt, alert in read_outbox(settings, *kinds):
        if alert.kind is AlertKind.RECOVERED:
            rest = {cause: each.after(alert.cycle) for cause, each in found.items()}
            found = {cause: each for cause, each in rest.items() if each.cycles}
        elif alert.cause is not None:
            mine = (alert.cycle,) if alert.cycle else ()
            new = Incident(alert.cause, alert.title, mine, at, at, at, 1)
            before = found.get(alert.cause)
            if before is not None and _stands(before, at, settings):
                new = replace(
                    before,
                    cycles=tuple(dict.fromkeys((*before.cycles, *mine))),
                    last_at=at,
                    told_at=before.told_at if receipt.is_counted else at,
                    num_times=before.num_times + 1,
                )
            found[alert.cause] = new
    return found


def _stands(incident: Incident, now: datetime, settings: Settings) -> bool:
    """Return whether it has not lapsed by now: due cycles would have met it."""
    lapse = max(LAPSES_AFTER, timedelta(days=3 * settings.cadence_days))
    return now - incident.last_at < lapse


def read_open(settings: Settings, now: datetime) -> tuple[Incident, ...]:
    """Return what has broken cycles, was not seen mended and has not lapsed, the oldest first.

    Raises:
        HomefeedError: the outbox cannot be read.
    """
    found = [each for each in find_open(settings).values() if _stands(each, now, settings)]
    return tuple(sorted(found, key=lambda each: each.first_at))


def alert_on_failure(run_uri: str, settings: Settings, ended: Ended) -> AlertReceipt:
    """Tell people about a run that broke. A second call about the same failure tells nothing.

    Takes what `pipelines.alerts.compose.alert_about_failure` does, and raises what `tell` does.
    """
    alert = alert_about_failure(run_uri, settings, ended)
    return _NOTHING if alert is None else tell(alert, settings)


def tell(alert: Alert, settings: Settings) -> AlertReceipt:
    """Tell people about a failure, or count it where they know of its cause.

    What is only counted lies in the outbox, and goes to no transport. Where it is not known what is
    open, the alert is delivered: told twice is better than not at all.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have the alert.
        ConfigurationError: as `pipelines.alerts.transports.deliver` raises.
    """
    at, is_counted = alert.at or datetime.now(UTC), False
    met = alert.model_copy(update={"at": at})
    try:
        if not storage.exists(entry_uri(met, settings)):  # else it is this failure, told before
            before = find_open(settings).get(met.cause) if met.cause else None
            if before is not None and _stands(before, at, settings):
                count = {"num_times": before.num_times + 1, "first_at": before.first_at}
                met = met.model_copy(update=count)
                is_counted = at - before.told_at < REMIND_AFTER
    except HomefeedError as error:
        log.warning("whether people know of this already is not known: %s", error)
    receipt, failure = try_to_deliver(met, settings, is_counted)
    if failure is not None:
        raise failure from None
    return receipt


def tell_recovered(run_uri: str, settings: Settings) -> AlertReceipt:
    """Tell people, once, that a cycle has ended after cycles that broke, and close what was open.

    Nothing is told where nothing was open, or where a stage of the cycle has not ended. A cause
    that other cycles have met too is closed when these have ended; until then that this one has
    ended only lies in the outbox. Nothing is raised: the cycle is well, and what was not delivered
    is delivered by a later one.
    """
    receipt = _NOTHING
    try:
        known = find_open(settings).values()  # nearly always there is nothing to mend
        if not known or not all(storage.exists(manifest_uri(run_uri, stage)) for stage in STAGES):
            return receipt
        ended = {
            stage: storage.read_model(manifest_uri(run_uri, stage), StageRecord) for stage in STAGES
        }
        run = ResolvedRun.model_validate(ended["resolve_run"].artifact)
        promotion = Promotion.model_validate(ended["promote_challenger"].artifact)
        cycle = cycle_of(run.to_request())
        met = [each for each in known if not each.cycles or each.after(cycle) != each]
        if met:
            mended = [each for each in met if not each.after(cycle).cycles]
            # Not before what it mends, whatever the clocks of two machines say.
            instants = [each.finished_at for each in ended.values()]
            at = max(*instants, *(each.last_at for each in met))
            alert = compose_recovered(mended or met, run, promotion, at, settings)
            receipt, failure = try_to_deliver(alert, settings, is_counted=not mended)
            if failure:
                log.warning("that the cycle has recovered is told later: %s", failure)
    # The last one: a manifest that another version of this project has written.
    except (HomefeedError, OSError, ValidationError) as error:
        log.warning("that the cycle has recovered is told later: %s", error)
    return receipt if not receipt.is_counted else _NOTHING


def compose_recovered(
    mended: Sequence[Incident],
    run: ResolvedRun,
    promotion: Promotion,
    at: datetime,
    settings: Settings,
) -> Alert:
    """Return the alert about causes that are mended.

    Args:
        mended: What had been broken, at least one.
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
