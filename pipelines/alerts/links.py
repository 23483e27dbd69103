"""Where what a message is about can be looked at: (label, address) pairs."""

import json
import re
from urllib.parse import quote

from pipelines.contracts.artifacts import DataReport, ResolvedRun
from pipelines.contracts.run_layout import VERDICT_PAGE
from pipelines.settings import DAG_ID, MLFLOW_VIEW, Settings

Links = tuple[tuple[str, str], ...]
PAGE_IN_MLFLOW, IN_MLFLOW = "Verdict page in MLflow", "MLflow comparison"


def links_of(run: ResolvedRun, settings: Settings) -> Links:
    """Return the places of a run."""
    return (
        ("Airflow run", airflow_link(run.trigger, settings)),
        ("MLflow", run.tracking_uri),
        ("Run folder", run.run_uri),
    )


def data_links(report: DataReport | None) -> Links:
    """Return the Data Docs of a cycle's snapshot and of its event log, as far as there are any."""
    if report is None:
        return ()
    found = (("Data Docs", report.docs_uri), ("Data Docs of the event log", report.log_docs_uri))
    return tuple((label, uri) for label, uri in found if uri)


def mlflow_links(tracking_uri: str, experiment_id: str, run_ids: tuple[str, str]) -> Links:
    """Return where MLflow shows a comparison; nothing where no server does.

    Args:
        tracking_uri: Of the server.
        experiment_id: Of both runs.
        run_ids: The challenger's and the baseline's.
    """
    server = tracking_uri.rstrip("/")
    if not server.startswith(("http://", "https://")):
        return ()
    runs, experiments = (quote(json.dumps(list(ids))) for ids in (run_ids, [experiment_id]))
    page = f"experiments/{experiment_id}/runs/{run_ids[0]}/artifacts/comparison/{VERDICT_PAGE}"
    return (
        (IN_MLFLOW, f"{server}/#/compare-runs?runs={runs}&experiments={experiments}&{MLFLOW_VIEW}"),
        (PAGE_IN_MLFLOW, f"{server}/#/{page}?{MLFLOW_VIEW}"),
    )


def airflow_link(trigger: str, settings: Settings) -> str:
    """Return the address of a run's page in Airflow, or of the DAG's where no Airflow ran it."""
    # A link is read by many, and may not carry who logs in.
    server = re.sub(r"(?<=://)[^/@]*@", "", settings.airflow_url.rstrip("/"))
    page = f"{server}/dags/{DAG_ID}"
    return page if trigger == "command line" else f"{page}/runs/{quote(trigger, safe='')}"
