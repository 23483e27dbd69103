"""What happens where a cycle breaks: people are told, and its MLflow runs end with the reason.

Not for what they are told: `pipelines.alerts`. Tested in tests/pipelines/stages/test_breaking.py.
"""

from datetime import datetime

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judged.alert import AlertReceipt
from pipelines.settings import Settings


def tell_failure(
    run_uri: str,
    settings: Settings,
    stage: str,
    reason: str = "",
    since: datetime | None = None,
) -> AlertReceipt:
    """Tell people about a run that broke, then end its MLflow runs.

    Takes and raises what `pipelines.alerts.compose.alert_on_failure` does. Where that tells
    nothing, because another attempt is at work, the MLflow runs are that one's and stay open.
    """
    from pipelines.alerts.compose import alert_on_failure, find_failure
    from pipelines.alerts.transports import deliver_waiting
    from pipelines.registry.tracking import end_failed
    from pipelines.stages.runner import read_artifact

    deliver_waiting(settings)
    receipt = alert_on_failure(run_uri, settings, stage, reason, since)
    if receipt.alert is not None:
        failure = find_failure(run_uri, stage)
        why = f"{failure.error_class}: {failure.message}" if failure else reason or "killed"
        end_failed(read_artifact(run_uri, "resolve_run", ResolvedRun), f"{stage} broke: {why}")
    return receipt
