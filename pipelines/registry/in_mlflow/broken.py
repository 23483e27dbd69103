"""A broken cycle's MLflow runs end with the reason, which the experiment's description shows too.

Tested in tests/pipelines/stages/test_breaking.py.
"""

import logging
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.registry import tracking
from pipelines.registry.in_mlflow.experiment import describe_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def end_failed(run: ResolvedRun, reason: str) -> None:
    """End the MLflow runs of a broken cycle that are open still, with the reason.

    Where MLflow does not answer they stay open: it must not keep anybody from being told.

    Args:
        run: The cycle.
        reason: One sentence.
    """
    from mlflow.exceptions import MlflowException

    with tracking.giving_up_after(5):
        try:
            client = tracking.connect(run.tracking_uri)
            with translated_outages(run.tracking_uri):
                _end_open_runs(client, run, reason)
            describe_experiment(client, run)
        except (HomefeedError, MlflowException) as error:
            log.warning("the cycle's MLflow runs stay open: %s", error)


def _end_open_runs(client: "MlflowClient", run: ResolvedRun, reason: str) -> None:
    if (experiment := client.get_experiment_by_name(run.experiment)) is None:
        return
    query = f"tags.{tracking.CYCLE} = '{run.run_id}' and attributes.status = 'RUNNING'"
    for found in client.search_runs([experiment.experiment_id], query):
        client.set_tag(found.info.run_id, tracking.FAILURE, reason[: tracking.LONGEST_TAG])
        client.set_terminated(found.info.run_id, "FAILED")
