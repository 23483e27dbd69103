"""Where what a message is about can be looked at: (label, address) pairs."""

import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from pipelines.contracts.alert import AlertKind
from pipelines.contracts.artifacts import DataReport, ResolvedRun
from pipelines.settings import DAG_ID, MLFLOW_VIEW, RUN_LIST, Settings

Links = tuple[tuple[str, str], ...]
HOME, IN_MLFLOW, LIST_IN_MLFLOW = "All cycles", "MLflow comparison", "All cycles in MLflow"
PREFIX, PAGES = "/homefeed", "pages"
"""Where Airflow's web server shows pages (`pipelines.orchestration.pages`), and those of a
workspace below that, by their paths in it."""
ACCOUNT = re.compile(r"(?<=://)(?!/)[^\s?#]*@")
"""Who logs in, in an address. Of one that is broken it is rather too much than too little."""


def runbook_link(kind: AlertKind, settings: Settings) -> str:
    """Return the runbook's section about an alert; in the repository, where no address is set."""
    # As GitHub, GitLab and most renderers of Markdown name a heading.
    return f"{settings.runbook_url or 'docs/runbook.md'}#alert-{kind.value}"


def links_of(run: ResolvedRun, settings: Settings, report: DataReport | None = None) -> Links:
    """Return the places of a run, with its Data Docs as far as the data gate's report has any."""
    places = {}
    if report is not None:
        places = {"Data Docs": report.docs_uri, "Data Docs of the event log": report.log_docs_uri}
    docs = [(n, page_link(uri, run.workspace_uri, settings)) for n, uri in places.items() if uri]
    return (
        ("Airflow run", airflow_link(run.trigger, settings)),
        (HOME, home_link(settings)),
        *docs,
    )


def mlflow_address(tracking_uri: str) -> str:
    """Return where MLflow lists the experiments that train models.

    MLflow's own first page is that for traces of language models. What is no server is returned as
    it is.
    """
    if not _is_server(tracking_uri):
        return tracking_uri
    return f"{tracking_uri.rstrip('/')}/#/experiments?{MLFLOW_VIEW}"


def mlflow_links(tracking_uri: str, experiment_id: str, run_ids: Sequence[str]) -> Links:
    """Return where MLflow shows a comparison; nothing without a server.

    The runs are the challenger's, the baseline's, and the anchor's if there is one, all of the
    experiment.
    """
    if not _is_server(tracking_uri):
        return ()
    server = tracking_uri.rstrip("/")
    runs, experiments = (quote(json.dumps(list(ids))) for ids in (run_ids, [experiment_id]))
    return (
        (IN_MLFLOW, f"{server}/#/compare-runs?runs={runs}&experiments={experiments}&{MLFLOW_VIEW}"),
        (LIST_IN_MLFLOW, cycles_address(tracking_uri, experiment_id)),
    )


def home_link(settings: Settings) -> str:
    """Return the page of what serves and of all cycles."""
    return f"{_airflow(settings)}{PREFIX}/"


def page_link(uri: str, workspace_uri: str, settings: Settings) -> str:
    """Return where a browser anywhere finds a page of the workspace; of another, its URI."""
    inside = uri.removeprefix(f"{workspace_uri.rstrip('/')}/")
    if inside == uri:
        return uri
    return f"{_airflow(settings)}{PREFIX}/{PAGES}/{quote(inside)}"


def _airflow(settings: Settings) -> str:
    # A link is read by many, and may not carry who logs in.
    return ACCOUNT.sub("", settings.airflow_url.rstrip("/"))


def cycles_address(tracking_uri: str, experiment_id: str, is_chart: bool = False) -> str:
    """Return where MLflow lists the runs of all cycles, or draws their changes."""
    chart = "&compareRunsMode=CHART" if is_chart else ""
    listed = f"{tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{listed}?viewStateShareKey={RUN_LIST}{chart}&{MLFLOW_VIEW}"


def _is_server(tracking_uri: str) -> bool:
    return tracking_uri.startswith(("http://", "https://"))


def airflow_link(trigger: str, settings: Settings) -> str:
    """Return the address of a run's page in Airflow, or of the DAG's where no Airflow ran it."""
    page = f"{_airflow(settings)}/dags/{DAG_ID}"
    return page if trigger == "command line" else f"{page}/runs/{quote(trigger, safe='')}"
