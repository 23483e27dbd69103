"""What the data gate found, among the artifacts of the challenger's MLflow run.

    data_gate/report.json            every expectation, with what was found
    data_gate/data_docs.html         the Data Docs of the snapshot
    data_gate/event_log.html         those of the event log's days, where these were judged

Tested in tests/pipelines/registry/in_mlflow/test_gate.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import DataReport, ResolvedRun
from pipelines.contracts.files import to_json
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.run_layout import DOCS_ARTIFACT
from pipelines.registry.in_mlflow.decoration import as_decoration

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER, DOCS_PAGE = DOCS_ARTIFACT.split("/")


def log_gate(
    client: "MlflowClient", run: ResolvedRun, mlflow_run_id: str, report: DataReport
) -> None:
    """Log a data report and its pages to an MLflow run; a page that was deleted is left out.

    Nothing of it is read by a cycle: a refusal is told, and the training goes on.

    Raises:
        HomefeedError: an error that may pass, of MLflow or of the pages' storage.
    """
    with as_decoration("what the data gate found"):
        _log(client, run, mlflow_run_id, report)


def _log(client: "MlflowClient", run: ResolvedRun, mlflow_run_id: str, report: DataReport) -> None:
    pages = {DOCS_PAGE: report.docs_uri, "event_log.html": report.log_docs_uri}
    with storage.scratch_folder(run.workspace_uri) as scratch:
        folder = Path(scratch) / FOLDER
        folder.mkdir()
        (folder / "report.json").write_bytes(to_json(report))
        for name, uri in pages.items():
            if uri and storage.exists(uri):
                (folder / name).write_bytes(storage.read_bytes(uri))
        with translated_outages(client.tracking_uri):
            client.log_artifacts(mlflow_run_id, str(folder), artifact_path=FOLDER)
