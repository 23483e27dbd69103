"""Buttons on a task's page in Airflow that lead to what it has made.

Airflow stores an address when the task ends, so that the pages read nothing of the workspace.
Tested in tests/pipelines/orchestration/test_links.py, and in a browser with a real Airflow in
tests/pipelines/local/test_real_browser.py.
"""

from typing import Any

from airflow.sdk import BaseOperatorLink

from pipelines.alerts.links import DOCS_IN_MLFLOW, IN_MLFLOW, PAGE_IN_MLFLOW


class OutcomeLink(BaseOperatorLink):
    """A link of a cycle's outcome, as the alert and the page have it."""

    def __init__(self, label: str) -> None:
        self._label = label

    @property
    def name(self) -> str:
        """What the button says."""
        return self._label

    @property
    def xcom_key(self) -> str:
        """Where Airflow keeps the address."""
        return f"link_{self._label.lower().replace(' ', '_')}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, '' where the cycle was not judged or no server shows it.

        Args:
            operator: The task.
            ti_key: The task instance that has just ended.
        """
        from pipelines import storage
        from pipelines.contracts.judgement import Judgement
        from pipelines.contracts.run_layout import manifest_uri
        from pipelines.stages.runner import read_artifact

        resolved = ti_key.xcom_pull(task_ids="resolve_run")
        # Airflow also asks when an attempt has failed, and would log an error of this one.
        if not resolved or not storage.exists(manifest_uri(resolved["run_uri"], operator.task_id)):
            return ""
        judged = read_artifact(resolved["run_uri"], operator.task_id, Judgement)
        return dict(judged.outcome.links).get(self._label, "") if judged.outcome else ""


LINKS = {
    "compare_with_champion": tuple(
        OutcomeLink(label) for label in (IN_MLFLOW, PAGE_IN_MLFLOW, DOCS_IN_MLFLOW)
    )
}
"""The links of each stage that has any."""
