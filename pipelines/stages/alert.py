"""`alert`: people are told when the verdict keeps the champion, or when a loss is certain.

A run that broke is told by the DAG's callback or by the command line, not here. Tested in
tests/pipelines/alerts/test_compose.py.
"""

from pipelines import storage
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Judgement
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.settings import Settings


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
