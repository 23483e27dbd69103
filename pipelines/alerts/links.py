"""Where what a message is about can be looked at: (label, address) pairs."""

from urllib.parse import quote

from pipelines.contracts.artifacts import DataReport, ResolvedRun
from pipelines.settings import DAG_ID, Settings

Links = tuple[tuple[str, str], ...]


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


def airflow_link(trigger: str, settings: Settings) -> str:
    """Return the address of a run's page in Airflow, or of the DAG's where no Airflow ran it."""
    page = f"{settings.airflow_url.rstrip('/')}/dags/{DAG_ID}"
    return page if trigger == "command line" else f"{page}/runs/{quote(trigger, safe='')}"
