"""The links of alerts: none is dead, and the runbook's lead to a section that is there."""

import re
from pathlib import Path

import pytest

from pipelines.alerts.links import RUNS_IN_MLFLOW, mlflow_address, mlflow_links, runbook_link
from pipelines.contracts.alert import AlertKind
from pipelines.settings import Settings

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
HOSTED = Settings(runbook_url="https://git.example.com/homefeed/-/blob/main/docs/runbook.md")
CLASSIC = "workflowType=machine_learning"


def test_the_runbook_has_the_section_of_each_kind() -> None:
    headings = re.findall(r"^## (.*)$", RUNBOOK.read_text(), re.MULTILINE)
    # The names that GitHub gives to headings.
    there = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    for kind in AlertKind:
        page, _, anchor = runbook_link(kind, HOSTED).partition("#")
        assert page == HOSTED.runbook_url and anchor in there
    told = runbook_link(AlertKind.RECOVERED, Settings())
    assert told == "docs/runbook.md, section 'Alert: recovered'", "without an address no link"


@pytest.mark.parametrize(
    ("server", "experiment", "address"),
    [
        (
            *("http://mlflow:5000/", "A & B"),
            f"http://mlflow:5000/#/experiments?experimentSearchFilter=A%20%26%20B&{CLASSIC}",
        ),
        ("https://m", "it's", f"https://m/#/experiments?{CLASSIC}"),
        ("sqlite:////w/mlflow.db", "ranker", "sqlite:////w/mlflow.db"),
    ],
)
def test_mlflow_opens_where_it_lists_the_experiment_and_its_table_is_the_classic_one(
    server: str, experiment: str, address: str
) -> None:
    assert mlflow_address(server, experiment) == address
    places = dict(mlflow_links("http://mlflow:5000/", "7", ("a", "b")))
    assert places[RUNS_IN_MLFLOW] == f"http://mlflow:5000/#/experiments/7/runs?{CLASSIC}"
