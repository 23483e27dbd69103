"""What is broken and not yet mended: each cause is told once, then counted, then told as mended.

A cycle that broke is tried again by retries, by people and by the next due date, and breaks in the
same way until somebody has mended the cause. Whoever is on call gets one message of it and recipe,
another one where it is met again after `REMIND_AFTER`, with the count, and one for all causes when
a cycle of the recipe has ended at last. Not for verdicts: each cycle's is another one.

There is no record of its own: what is open follows from the alerts in the outbox, each failure and
each recovery in the order in which they happened. So a cause that nobody meets any more, as of a
trial recipe, is open until `homefeed gc` deletes its alerts. An alert is in the outbox before it is
sent, so a kill loses none, and the outbox knows an alert that is the same.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from pipelines import storage
from pipelines.alerts.commands import step
from pipelines.alerts.compose import cycle_of, make_alert
from pipelines.alerts.transports import deliver, read_outbox
from pipelines.contracts.alert import Alert, AlertKind, AlertReceipt, Cause, Cycle
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.plain_text import one_line
from pipelines.settings import Settings

log = logging.getLogger(__name__)
REMIND_AFTER = timedelta(hours=6)
"""A cause that is met again so long after it was told last is told again. Whoever has tried again
sooner than that is looking; whoever has gone home hears of it. The rule `HomefeedStageNotRetried`
for metrics waits as long (docs/observability.md)."""


MONITOR = "monitor"
"""The stage of a cause that the daily monitor has found: no cycle mends it, only the monitor."""


@dataclass(frozen=True)
class Incident:
    """A cause that has broken cycles of a recipe, and has not been seen mended."""

    cause: Cause
    title: str  # Of the first alert.
    cycle: Cycle | None  # The latest day that met it; None: not known, and any cycle mends it.
    first_at: datetime
    last_at: datetime
    told_at: datetime  # When people were told last.
    num_times: int  # How often it was met.

    @property
    def sentence(self) -> str:
        """Return since when, how often and what, on one line."""
        since = f"{self.first_at:%Y-%m-%d %H:%M} UTC"
        return f"Since {since}, times met: {self.num_times}: {one_line(self.title)}"

    def is_mended_by(self, ended: Cycle | None, seen: Cause | None = None) -> bool:
        """Return whether a cycle that has ended, or the cause that the monitor names, mends it.

        A cycle of another recipe, or of an earlier day, shows nothing.
        """
        mine = self.cycle
        if seen or self.cause.stage == MONITOR:
            return seen == self.cause
        return not (mine and ended) or (mine.recipe == ended.recipe and mine.day <= ended.day)


def _key_of(alert: Alert) -> tuple[object, object]:
    return alert.cause, alert.cycle and alert.cycle.recipe


def find_open(settings: Settings) -> dict[tuple[object, object], Incident]:
    """Return what has broken cycles and was not seen mended, by cause and recipe, oldest first.

    Raises:
        HomefeedError: the outbox cannot be read.
    """
    found = dict[tuple[object, object], Incident]()
    for receipt, alert in read_outbox(settings):
        if alert.kind is AlertKind.RECOVERED:
            by = alert.cycle, alert.cause
            found = {key: one for key, one in found.items() if not one.is_mended_by(*by)}
        elif alert.cause is not None:
            key, cycle, at = _key_of(alert), alert.cycle, alert.at
            before = found.get(key, Incident(alert.cause, alert.title, cycle, at, at, at, 0))
            days = [each for each in (before.cycle, cycle) if each]
            found[key] = replace(
                before,
                cycle=max(days, key=lambda each: each.day, default=None),
                last_at=at,
                told_at=before.told_at if receipt.is_counted else at,
                num_times=before.num_times + 1,
            )
    return found


def tell(alert: Alert, settings: Settings) -> AlertReceipt:
    """Tell people about a failure, once, or count it where they know of its cause.

    A second call about the same failure tells nothing. What is only counted lies in the outbox, and
    goes to no transport. Where it is not known what is open, the alert is delivered: told twice is
    better than not at all. Raises what `pipelines.alerts.transports.deliver` does.
    """
    is_counted = False
    try:  # Of a failure that was told before, `deliver` finds the entry.
        if before := find_open(settings).get(_key_of(alert)):
            alert = alert.model_copy(update={"num_times": before.num_times + 1})
            is_counted = alert.at - before.told_at < REMIND_AFTER
    except HomefeedError as error:
        log.warning("whether people know of this already is not known: %s", error)
    return deliver(alert, settings, is_counted)


def deliver_left(settings: Settings) -> None:
    """Send what a transport did not take, and what is unmended by transports that are new.

    Every later alert and cycle does so, so that a mail server which was away for a day costs a day
    and not the message. What happened first is sent first. A transport that is not configured any
    more is not waited for, and one that is away is asked once, and not for each alert. Nothing is
    raised: whoever calls has something of its own to do.
    """
    here = set(settings.alert_transports)
    try:
        known = find_open(settings).keys()
        for receipt, alert in read_outbox(settings):
            asked = here.intersection(receipt.waiting_for)
            if not receipt.is_counted and alert.cause is not None and _key_of(alert) in known:
                asked = here.difference(receipt.delivered_to)
            only = settings.model_copy(update={"alert_transports": tuple(asked)})
            try:
                if asked:
                    deliver(alert, only)
            except HomefeedError as error:
                log.warning("an alert still waits in the outbox: %s", error)
                here.difference_update(error.about)
    except HomefeedError as error:
        log.warning("alerts may still wait in the outbox: %s", error)


def tell_recovered(run_uri: str, settings: Settings) -> Alert | None:
    """Tell people, once, that a cycle has ended after cycles that broke, and close what was open.

    Nothing is told where it mends nothing, or where a stage of it has not ended. Nothing is raised:
    the cycle is well, and what was not delivered is delivered by a later one.
    """
    try:
        known = find_open(settings).values()  # nearly always there is nothing to mend
        if not known or not all(storage.exists(manifest_uri(run_uri, stage)) for stage in STAGES):
            return None
        record = storage.read_model(manifest_uri(run_uri, "resolve_run"), StageRecord)
        run = ResolvedRun.model_validate(record.artifact)
        mended = [each for each in known if each.is_mended_by(cycle_of(run.to_request()))]
        return deliver(compose_recovered(mended, run, settings), settings).alert if mended else None
    # The last one: a manifest that another version of this project has written.
    except (HomefeedError, OSError, ValidationError) as error:
        log.warning("that the cycle has recovered is told later: %s", error)
    return None


def compose_recovered(mended: Sequence[Incident], run: ResolvedRun, settings: Settings) -> Alert:
    """Return the alert about causes, at least one, that a cycle which has ended has mended."""
    stages = dict.fromkeys(each.cause.stage for each in mended)
    return make_alert(
        AlertKind.RECOVERED,
        settings,
        run,
        title=f"recovered, {', '.join(stages)} ended well",
        about=tuple(f"{each.cause.stage} {each.first_at.isoformat()}" for each in mended),
        happened="\n".join(incident.sentence for incident in mended),
        certainty="Certain: every stage of this cycle has ended.",
        done=f"Run {run.run_id} has ended, with code {run.code_version}.",
        next_step=step("Nothing has to be done."),
        # Not before what it mends, whatever the clocks of two machines say.
        at=max(datetime.now(UTC), *(each.last_at for each in mended)),
    )
