"""What people are told about a run: composed here, once per reason, and rendered by one function.

Sent on a regression, an inconclusive comparison, a failed data gate and a broken run; a promotion
is no reason. Not for how a message travels: that is `pipelines.alerts.transports`.
"""

import shlex
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.alerts.transports import deliver
from pipelines.contracts.artifacts import (
    STAGES,
    Alert,
    AlertKind,
    AlertReceipt,
    ResolvedRun,
    StageFailure,
    StageRecord,
)
from pipelines.contracts.judgement import Comparison, Decision, Interval, Judgement
from pipelines.contracts.run_layout import failure_uri, manifest_uri
from pipelines.settings import Settings

if TYPE_CHECKING:
    import jinja2

DAG_ID = "homefeed_retrain"
REFUSED_EXIT_CODE = 77


@dataclass(frozen=True)
class RenderedAlert:
    """An alert as text: one subject line, a plain body, and the same body as HTML."""

    subject: str
    text: str
    html: str


def alert_on_failure(
    run_uri: str, settings: Settings, failed_task: str = "", reason: str = ""
) -> AlertReceipt:
    """Tell people about a run that broke. Called twice for the same failure, it tells once.

    Args:
        run_uri: the run folder, with the failed stage's `failure.json` if it could write one.
        settings: where to send it.
        failed_task: the task that Airflow saw failing; needed where a killed stage wrote nothing.
        reason: Airflow's word for it, e.g. 'timed_out'.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have it.
    """
    record = storage.read_model(manifest_uri(run_uri, "resolve_run"), StageRecord)
    run = ResolvedRun.model_validate(record.artifact)
    alert = compose_failure(find_failure(run_uri), run, settings, failed_task, reason)
    return AlertReceipt(alert=alert, delivered_to=deliver(alert, render(alert), settings))


def alert_on_unresolved(
    trigger: str, message: str, command: str, settings: Settings
) -> AlertReceipt:
    """Tell people about a run that broke before it had a folder.

    Args:
        trigger: Airflow's run id.
        message: what the exception said, or '' where nothing is known but the failure.
        command: repeats the failed step from a terminal.
        settings: where to send it.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have it.
    """
    alert = Alert(
        kind=AlertKind.BROKEN_RUN,
        run_id=trigger,
        title="Homefeed retrain broke in resolve_run",
        happened=message or "resolve_run did not end; its log in Airflow says more.",
        certainty="Certain: the task failed, and no later stage began.",
        done="Nothing was built, trained or promoted. The champion is what it was.",
        next_command=command,
        links=(("Airflow run", _airflow_link(trigger, settings)),),
    )
    return AlertReceipt(alert=alert, delivered_to=deliver(alert, render(alert), settings))


def find_failure(run_uri: str) -> StageFailure | None:
    """Return the newest failure that a stage of the run has left, or None."""
    uris = [failure_uri(run_uri, stage) for stage in STAGES]
    found = [storage.read_model(uri, StageFailure) for uri in uris if storage.exists(uri)]
    return max(found, key=lambda failure: failure.occurred_at, default=None)


def compose_verdict(judgement: Judgement, run: ResolvedRun, settings: Settings) -> Alert | None:
    """Return the alert that a verdict asks for; None when the challenger is to be promoted."""
    verdict, comparison = judgement.verdict, judgement.comparison
    if verdict.decision is Decision.PROMOTE:
        return None
    is_rejected = verdict.decision is Decision.REJECT
    label = comparison.challenger_model.label
    return Alert(
        kind=AlertKind.REGRESSION if is_rejected else AlertKind.INCONCLUSIVE,
        run_id=run.run_id,
        title=(
            f"Homefeed retrain {run.as_of:%Y-%m-%d}: {label} "
            + ("is worse and was rejected" if is_rejected else "is neither better nor worse")
        ),
        happened="\n".join(verdict.reasons),
        certainty=_certainty(comparison),
        done=f"{label} was not promoted. {_serving(run)}",
        next_command=_retrain_command(
            run, run.as_of if is_rejected else run.as_of + timedelta(days=7), "--no-promote"
        ),
        links=(("Verdict page", judgement.report_uri), *_links(run, settings)),
    )


def compose_failure(
    failure: StageFailure | None,
    run: ResolvedRun,
    settings: Settings,
    failed_task: str = "",
    reason: str = "",
) -> Alert:
    """Return the alert about a broken run.

    Args:
        failure: what the stage wrote; None when it was killed before it could.
        run: the cycle.
        settings: addresses for the links.
        failed_task: the task that Airflow saw failing, if it was Airflow.
        reason: Airflow's word for it.
    """
    # A failure of another stage than the failed one is left over from an earlier attempt.
    if failure is not None and failed_task and failure.stage != failed_task:
        failure = None
    stage = failure.stage if failure else failed_task or "an unknown stage"
    is_data_gate = failure is not None and failure.error_class == "DataGateFailedError"
    return Alert(
        kind=AlertKind.DATA_GATE_FAILED if is_data_gate else AlertKind.BROKEN_RUN,
        run_id=run.run_id,
        title=(
            f"Homefeed retrain {run.as_of:%Y-%m-%d}: "
            + ("the data gate refused the snapshot" if is_data_gate else f"{stage} broke")
        ),
        happened=_what_broke(failure, stage, reason),
        certainty=_how_final(failure),
        done=_what_stays(stage, run),
        next_command=_repair_command(failure, stage, run),
        links=_links(run, settings),
    )


def render(alert: Alert) -> RenderedAlert:
    """Return the alert as text and HTML. Everything in it is escaped in the HTML."""
    templates = _templates()
    return RenderedAlert(
        # One line whatever the title holds: a line break would end a mail's subject header.
        subject=" ".join(f"[homefeed] {alert.title}".split()),
        text=templates.get_template("alert.txt.j2").render(alert=alert),
        html=templates.get_template("alert.html.j2").render(alert=alert),
    )


@cache
def _templates() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )


def _certainty(comparison: Comparison) -> str:
    row = comparison.target
    rows = f"{comparison.num_users:,} users and {comparison.num_requests:,} requests"
    if row is None or row.relative_change is None:
        return f"{comparison.target_metric} could not be compared on {rows}; the gate fails closed."
    return (
        f"{comparison.target_metric}: {row.challenger:.4f} against {row.baseline:.4f} "
        f"({comparison.baseline_kind.value}), {_percent(row.relative_change)}, on {rows}. "
        f"This holdout shows changes of {comparison.detectable_change} and "
        f"more with 80 % power."
    )


def _percent(change: Interval) -> str:
    return (
        f"{100 * change.value:+.2f} % with a {100 * change.confidence:g} % interval of "
        f"{100 * change.low:+.2f} % to {100 * change.high:+.2f} %"
    )


def _what_broke(failure: StageFailure | None, stage: str, reason: str) -> str:
    if failure is None:
        return (
            f"{stage} ended without saying why ({reason or 'no reason given'}): killed, out of "
            f"memory, or out of time. Its log in Airflow shows the last lines."
        )
    return f"{failure.error_class} in {stage} at {failure.occurred_at:%Y-%m-%d %H:%M:%S} UTC:\n" + (
        failure.message
    )


def _how_final(failure: StageFailure | None) -> str:
    if failure is None:
        return "The stage left no reason, so the cause is not known; trying again may help."
    if failure.is_retryable:
        return "The cause may pass; the retries made so far did not help."
    return f"Trying again on the same input will fail the same way (exit code {failure.exit_code})."


def _what_stays(stage: str, run: ResolvedRun) -> str:
    if stage == "promote_challenger":
        return (
            "The promotion did not end; `homefeed serving` says which model serves now. "
            "Running the stage again completes it or refuses."
        )
    if stage == "alert":
        return (
            "Only the message about the verdict was not delivered everywhere; it lies in the "
            "outbox folder of the workspace."
        )
    return f"The run stopped there and promoted nothing. {_serving(run)}"


def _serving(run: ResolvedRun) -> str:
    if run.champion is None:
        return "There is no champion yet."
    return f"{run.champion.label} (as_of {run.champion.as_of:%Y-%m-%d}) stays champion."


def _repair_command(failure: StageFailure | None, stage: str, run: ResolvedRun) -> str:
    """Return the stage's own command, or a new cycle where the old one cannot be mended."""
    needs_new_run = failure is not None and (
        failure.error_class == "DataGateFailedError" or failure.exit_code == REFUSED_EXIT_CODE
    )
    if needs_new_run or stage not in STAGES:
        return _retrain_command(run, run.as_of, "--promote" if run.may_promote else "--no-promote")
    return f"homefeed stage {stage} --run {shlex.quote(run.run_uri)}"


def _retrain_command(run: ResolvedRun, as_of: object, promote: str) -> str:
    return (
        f"homefeed retrain --as-of {as_of:%Y-%m-%d} --recipe {shlex.quote(run.config.recipe)} "
        f"--devices {run.num_devices} {promote} --key {shlex.quote('again-' + run.run_id)}"
    )


def _links(run: ResolvedRun, settings: Settings) -> tuple[tuple[str, str], ...]:
    return (
        ("Airflow run", _airflow_link(run.trigger, settings)),
        ("MLflow", run.tracking_uri),
        ("Run folder", run.run_uri),
    )


def _airflow_link(trigger: str, settings: Settings) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    page = f"{settings.airflow_url.rstrip('/')}/dags/{DAG_ID}"
    return page if trigger == "command line" else f"{page}/runs/{quote(trigger, safe='')}"
