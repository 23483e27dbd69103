"""`alert`: people are told what the verdict asks for, and that a cycle broke.

Not for what they are told: `pipelines.alerts`. The stage itself is tested in
tests/pipelines/alerts/test_compose.py.
"""

from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.alerts.compose import Ended


def alert(run: ResolvedRun, judgement: Judgement, settings: Settings) -> AlertReceipt:
    """Send the message that the verdict asks for, if it asks for one.

    Raises:
        AlertDeliveryError: a transport failed; the outbox and the other transports have it.
    """
    from pipelines.alerts.compose import compose_verdict
    from pipelines.alerts.outcomes import kept_outcome
    from pipelines.alerts.transports import deliver, deliver_waiting

    message = compose_verdict(kept_outcome(run, judgement, settings), judgement, run, settings)
    receipt = AlertReceipt(alert=None, delivered_to=())
    if message:
        judged = storage.read_model(manifest_uri(run.run_uri, "compare_with_champion"), StageRecord)
        receipt = deliver(message.model_copy(update={"at": judged.finished_at}), settings)
    deliver_waiting(settings)
    return receipt


def tell_failure(run_uri: str, settings: Settings, ended: "Ended") -> AlertReceipt:
    """Tell people about a run that broke, then end its MLflow runs with the reason.

    Raises what `pipelines.alerts.incidents.tell` does. What earlier alerts wait for comes last: in
    Airflow's DAG processor there is little time.
    """
    from pipelines.alerts.compose import alert_about_failure
    from pipelines.alerts.incidents import tell
    from pipelines.alerts.transports import AlertDeliveryError, deliver_waiting
    from pipelines.registry.tracking import end_failed
    from pipelines.stages.runner import read_artifact

    def end_runs(why: str) -> None:
        run = read_artifact(run_uri, "resolve_run", ResolvedRun)
        end_failed(run, f"{ended.stage} broke: {why}")

    try:
        receipt = tell(alert_about_failure(run_uri, settings, ended), settings)
    except AlertDeliveryError:
        # The outbox has it, so that the run broke all the same.
        end_runs(ended.reason or "see the alert in the outbox")
        raise
    if receipt.alert is not None:
        end_runs(receipt.alert.happened)
    deliver_waiting(settings)
    return receipt
