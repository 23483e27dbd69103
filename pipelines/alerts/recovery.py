"""What people are told when a cycle has ended after cycles that broke: one message, for all causes.

Not for what is open: that is `pipelines.alerts.incidents`. Tested in
tests/pipelines/alerts/test_recovery.py.
"""

import logging
from datetime import datetime

from pydantic import ValidationError

from pipelines import storage
from pipelines.alerts.incidents import (
    RECORD_WAIT_S,
    Incident,
    Ledger,
    Untold,
    cycle_of,
    lapses_after,
    record_uri,
    standing,
)
from pipelines.alerts.links import links_of, runbook_links
from pipelines.alerts.next_step import after_recovery, what_was_promoted
from pipelines.alerts.severity import severity_of
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, Cycle
from pipelines.contracts.judgement import Promotion
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.plain_text import one_line
from pipelines.settings import Settings

log = logging.getLogger(__name__)


def tell_recovered(run_uri: str, settings: Settings) -> AlertReceipt:
    """Tell people, once, that a cycle has ended after cycles that broke, and close what was open.

    Nothing is told where nothing was open, or where a stage of the cycle has not ended. Nothing is
    raised: the cycle is well, and what was not delivered is delivered by a later one.

    Args:
        run_uri: The folder of the cycle.
        settings: Where to send the alert.
    """
    nothing = AlertReceipt(alert=None, delivered_to=())
    try:
        if not all(storage.exists(manifest_uri(run_uri, stage)) for stage in STAGES):
            return nothing
        # A look without the lock: nearly always there is nothing to mend.
        if not storage.exists(record_uri(settings)):
            return nothing
        run = ResolvedRun.model_validate(_record_of(run_uri, "resolve_run").artifact)
        with storage.exclusive_lock(record_uri(settings), "the record of incidents", RECORD_WAIT_S):
            ledger = Ledger(settings)
            ledger.deliver_untold()
            seen = tuple(after_cycle(each, run) for each in ledger.record.open)
            mended = tuple(each for each in seen if not each.cycles)
            waiting = tuple(each for each in seen if each.cycles)
            rest = standing(waiting, _ended_at(run), lapses_after(settings))
            if not mended:
                ledger.keep(rest)
                return nothing
            alert = compose_recovered(mended, run, settings)
            return ledger.note(rest, Untold(alert=alert, is_counted=False))
    # The last one: a manifest that another version of this project has written.
    except (HomefeedError, OSError, ValidationError) as error:
        log.warning("that the cycle has recovered is told later: %s", error)
    return nothing


def after_cycle(incident: Incident, run: ResolvedRun) -> Incident:
    """Return an incident with the cycles that wait on after one has ended; with none it is mended.

    A cycle of another recipe, or of an earlier day than one that broke, shows nothing about that
    one. A cause of which no cycle is known is mended by any.
    """
    this = cycle_of(run.to_request())
    waiting, shown = list[Cycle](), list[Cycle]()
    for cycle in incident.cycles:
        is_shown = cycle.recipe == this.recipe and cycle.day <= this.day
        (shown if is_shown else waiting).append(cycle)
    mended = dict.fromkeys((*incident.mended_cycles, *shown))
    return incident.model_copy(update={"cycles": tuple(waiting), "mended_cycles": tuple(mended)})


def compose_recovered(mended: tuple[Incident, ...], run: ResolvedRun, settings: Settings) -> Alert:
    """Return the alert about causes that are mended.

    Args:
        mended: What had been broken, at least one, as `after_cycle` returns it.
        run: The cycle that has ended.
        settings: Addresses for the links.
    """
    promotion = Promotion.model_validate(_record_of(run.run_uri, "promote_challenger").artifact)
    stages = dict.fromkeys(each.stage for each in mended)
    serving = promotion.champion_after
    cycles = dict.fromkeys(cycle for each in mended for cycle in each.mended_cycles)
    kind = AlertKind.RECOVERED
    return Alert(
        kind=kind,
        run_id=run.run_id,
        recipe=run.config.recipe_ref,
        title=f"Homefeed retrain {run.as_of:%Y-%m-%d}: recovered, {', '.join(stages)} "
        f"{'ends' if len(stages) == 1 else 'end'} well again",
        serves=f"{serving.label} serves; {what_was_promoted(promotion)}."
        if serving
        else "There is no champion yet.",
        happened="\n".join(incident.sentence for incident in mended),
        certainty="Certain: every stage of this cycle has ended.",
        done="\n".join(dict.fromkeys(_what_mended(each, run) for each in mended)),
        next_step=after_recovery(run),
        links=(*links_of(run, settings), *runbook_links(kind, settings)),
        severity=severity_of(kind),
        at=_ended_at(run),
        cycle=cycle_of(run.to_request()),
        mended_cycles=tuple(cycles),
    )


def _what_mended(incident: Incident, run: ResolvedRun) -> str:
    """Say which run ended in place of one that broke, and what differs between the two."""
    if incident.run_id == run.run_id and incident.stage not in STAGES:
        return "The same run went on."  # a task of Airflow's own leaves no manifest
    if incident.run_id == run.run_id:
        ended = _record_of(run.run_uri, incident.stage).finished_at
        return (
            f"The same run went on: {incident.stage} ended at {ended:%Y-%m-%d %H:%M} UTC. What it "
            f"reads, a service or a setting was mended, or the fault has passed."
        )
    if len({cycle.recipe for cycle in incident.mended_cycles}) > 1:
        return f"Run {run.run_id} has ended; a cycle of each other recipe that met it had before."
    told = f"Run {run.run_id} has ended in place of run {one_line(incident.run_id)}"
    broken = _run_that_broke(incident, run)
    if broken is None:
        return f"{told}."
    differs = []
    if broken.code_version != run.code_version:
        differs.append(f"with code {run.code_version} ({broken.code_version} had broken)")
    if broken.config.recipe_digest != run.config.recipe_digest:
        differs.append("with another recipe")
    if broken.as_of != run.as_of:
        differs.append(f"as of {run.as_of:%Y-%m-%d} ({broken.as_of:%Y-%m-%d} had broken)")
    if differs:
        return f"{told}, {', '.join(differs)}."
    return (
        f"{told}, with the same day, code and recipe: what it reads, a service or a setting was "
        f"mended, or the fault has passed."
    )


def _run_that_broke(incident: Incident, run: ResolvedRun) -> ResolvedRun | None:
    """Return the run that met a cause last; None where it never had a folder, or none to read.

    What differs from it is worth less than that the cycle has ended, which is told without it.
    """
    if incident.stage == "resolve_run":
        return None
    run_uri = storage.join(storage.to_uri(run.workspace_uri), "runs", incident.run_id)
    try:
        return ResolvedRun.model_validate(_record_of(run_uri, "resolve_run").artifact)
    except FileNotFoundError:
        return None
    except (HomefeedError, OSError, ValidationError) as error:
        log.warning("what run %s had is not told: %s", one_line(incident.run_id), error)
        return None


def _ended_at(run: ResolvedRun) -> datetime:
    return max(_record_of(run.run_uri, stage).finished_at for stage in STAGES)


def _record_of(run_uri: str, stage: str) -> StageRecord:
    return storage.read_model(manifest_uri(run_uri, stage), StageRecord)
