"""What happens where a cycle breaks: people are told, and its MLflow runs end with the reason.

Not for what they are told: `pipelines.alerts`. Tested in tests/pipelines/stages/test_breaking.py.
"""

from typing import TYPE_CHECKING

from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.alerts.compose import Ended


def tell_failure(run_uri: str, settings: Settings, ended: "Ended") -> AlertReceipt:
    """Tell people about a run that broke, then end its MLflow runs.

    Takes and raises what `pipelines.alerts.incidents.alert_on_failure` does. Where that tells
    nothing, because another attempt is at work, the MLflow runs are that one's and stay open. What
    earlier alerts wait for comes last: in Airflow's DAG processor there is little time.
    """
    from pipelines.alerts.incidents import alert_on_failure
    from pipelines.alerts.transports import AlertDeliveryError, deliver_waiting
    from pipelines.contracts.errors import ConfigurationError

    try:
        receipt = alert_on_failure(run_uri, settings, ended)
    except (AlertDeliveryError, ConfigurationError):
        # The outbox has it, so that the run broke all the same.
        _end_runs(run_uri, ended.stage, ended.reason or "see the alert in the outbox")
        raise
    if receipt.alert is not None:
        _end_runs(run_uri, ended.stage, receipt.alert.happened)
    deliver_waiting(settings)
    return receipt


def _end_runs(run_uri: str, stage: str, why: str) -> None:
    from pipelines.registry.in_mlflow import end_failed
    from pipelines.stages.runner import read_artifact

    end_failed(read_artifact(run_uri, "resolve_run", ResolvedRun), f"{stage} broke: {why}")
