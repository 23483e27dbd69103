"""What people are told when a cycle has ended after cycles that broke: one message, for all causes.

Not for what is open: that is `pipelines.alerts.incidents`. Tested in
tests/pipelines/alerts/test_recovery.py.
"""

import logging

from pydantic import ValidationError

from pipelines import storage
from pipelines.alerts.incidents import RECORD_WAIT_S, Incident, Ledger, Untold, cycle_of, record_uri
from pipelines.alerts.links import links_of, runbook_links
from pipelines.alerts.next_step import after_recovery, what_was_promoted
from pipelines.alerts.severity import severity_of
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt
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
            mended = tuple(each for each in ledger.record.open if is_mended_by(each, run))
            if not mended:
                return nothing
            alert = compose_recovered(mended, run, settings)
            rest = tuple(each for each in ledger.record.open if each not in mended)
            return ledger.note(rest, Untold(alert=alert, is_counted=False))
    except HomefeedError as error:
        log.warning("that the cycle has recovered is told later: %s", error)
    return nothing


def is_mended_by(incident: Incident, run: ResolvedRun) -> bool:
    """Return whether a cycle that has ended shows that a cause is mended.

    A cycle of another recipe, or of an earlier day than one that broke, shows nothing.
    """
    this = cycle_of(run.to_request())
    return incident.run_id == run.run_id or all(
        cycle.recipe == this.recipe and cycle.day <= this.day for cycle in incident.cycles
    )


def compose_recovered(mended: tuple[Incident, ...], run: ResolvedRun, settings: Settings) -> Alert:
    """Return the alert about causes that are mended.

    Args:
        mended: What had been broken, at least one.
        run: The cycle that has ended.
        settings: Addresses for the links.
    """
    promotion = Promotion.model_validate(_record_of(run.run_uri, "promote_challenger").artifact)
    stages = dict.fromkeys(each.stage for each in mended)
    serving = promotion.champion_after
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
        at=max(_record_of(run.run_uri, stage).finished_at for stage in STAGES),
        cycle=cycle_of(run.to_request()),
        mended_cycles=tuple(dict.fromkeys(cycle for each in mended for cycle in each.cycles)),
    )


def _what_mended(incident: Incident, run: ResolvedRun) -> str:
    """Say which run ended in place of one that broke, and what differs between the two."""
    if incident.run_id == run.run_id:
        ended = _record_of(run.run_uri, incident.stage).finished_at
        return (
            f"The same run went on: {incident.stage} ended at {ended:%Y-%m-%d %H:%M} UTC. What it "
            f"reads, a service or a setting was mended, or the fault has passed."
        )
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
    """Return the run that met a cause last; None where it is gone or never had a folder."""
    if incident.stage == "resolve_run":
        return None
    run_uri = storage.join(storage.to_uri(run.workspace_uri), "runs", incident.run_id)
    if not storage.exists(manifest_uri(run_uri, "resolve_run")):
        return None
    try:
        return ResolvedRun.model_validate(_record_of(run_uri, "resolve_run").artifact)
    except ValidationError:  # of another version of this project
        return None


def _record_of(run_uri: str, stage: str) -> StageRecord:
    return storage.read_model(manifest_uri(run_uri, stage), StageRecord)
