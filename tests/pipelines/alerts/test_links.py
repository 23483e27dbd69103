"""The links of alerts: none is dead, and the runbook's lead to a section that is there."""

import re
from pathlib import Path

import pytest

from pipelines.alerts.links import (
    CODES_IN_RUNBOOK,
    RUNS_IN_MLFLOW,
    links_of,
    mlflow_links,
    runbook_links,
)
from pipelines.contracts.alert import AlertKind
from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings
from support.runs import make_run

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
HOSTED = Settings(runbook_url="https://git.example.com/homefeed/-/blob/main/docs/runbook.md")


def anchors() -> list[str]:
    """The names that GitHub gives to the runbook's headings."""
    headings = re.findall(r"^## (.*)$", RUNBOOK.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]


@pytest.mark.parametrize("kind", AlertKind)
def test_the_runbook_has_the_section_that_is_linked(kind: AlertKind) -> None:
    there = anchors()
    for code in (*CODES_IN_RUNBOOK, None):
        for _, uri in runbook_links(kind, HOSTED, code):
            page, _, anchor = uri.partition("#")
            assert page == HOSTED.runbook_url and anchor in there


def test_each_exit_code_of_the_runbook_is_linked() -> None:
    codes = {int(each.rpartition("-")[2]) for each in anchors() if each.startswith("exit-code-")}
    by_shell = {64, 137, 143}  # no stage notes them as the reason of its failure
    assert set(CODES_IN_RUNBOOK) == codes - by_shell
    assert len(runbook_links(AlertKind.BROKEN_RUN, HOSTED, 1)) == 1


def test_without_an_address_it_is_no_link() -> None:
    [(_, told)] = runbook_links(AlertKind.RECOVERED, Settings())
    assert told == "docs/runbook.md, section 'Alert: recovered'"


@pytest.mark.parametrize(
    "address", ["runbook.md", "https://me:secret@git.example.com/r", "https://x/r#a", "ftp://x/r"]
)
def test_an_address_that_is_no_page_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="HOMEFEED_RUNBOOK_URL.*address of a page"):
        Settings(runbook_url=address)


@pytest.mark.parametrize(
    ("server", "experiment", "address"),
    [
        (
            "http://mlflow:5000/",
            "A & B",
            "http://mlflow:5000/#/experiments?experimentSearchFilter=A%20%26%20B&workflowType="
            "machine_learning",
        ),
        ("https://m", "it's", "https://m/#/experiments?workflowType=machine_learning"),
        ("sqlite:////w/mlflow.db", "ranker", "sqlite:////w/mlflow.db"),
    ],
)
def test_mlflow_opens_where_it_lists_the_experiment(
    tmp_path: Path, server: str, experiment: str, address: str
) -> None:
    run = make_run(tmp_path, tracking_uri=server, experiment=experiment)
    assert dict(links_of(run, Settings()))["MLflow"] == address


def test_the_runs_table_is_the_classic_one() -> None:
    places = dict(mlflow_links("http://mlflow:5000/", "7", ("a", "b")))
    table = "http://mlflow:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert places[RUNS_IN_MLFLOW] == table
