"""The addresses that a task's buttons lead to are those of the cycle's outcome."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.alerts.links import IN_MLFLOW, mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.judgement import Decision
from pipelines.orchestration.links import LINKS, OutcomeLink
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Settings
from support.judgements import make_judgement
from support.runs import make_run, save_artifact, save_run

STAGE = "compare_with_champion"
TASK = SimpleNamespace(task_id=STAGE)


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    return save_run(make_run(tmp_path))


def asked(run_uri: str | None) -> Any:
    """Return a task instance that has just ended, of a run whose folder this is."""
    resolved = {"run_uri": run_uri} if run_uri else None
    return SimpleNamespace(xcom_pull=lambda task_ids: resolved)


def test_a_button_leads_to_where_the_outcome_says(run: ResolvedRun) -> None:
    judgement, link = make_judgement(Decision.REJECT), OutcomeLink(IN_MLFLOW)
    assert link.get_link(TASK, ti_key=asked(run.run_uri)) == ""  # nothing is judged yet
    places = mlflow_links("http://127.0.0.1:5000/", "7", ("run4", "run3"))
    outcome = outcome_of(run, judgement, None, Settings(), places)
    save_artifact(run, STAGE, judgement.model_copy(update={"outcome": outcome}))
    address = "http://127.0.0.1:5000/#/compare-runs?runs=%5B%22run4%22%2C%20%22run3%22%5D"
    assert link.get_link(TASK, ti_key=asked(run.run_uri)) == (
        f"{address}&experiments=%5B%227%22%5D&workflowType=machine_learning"
    )
    assert set(places) <= set(outcome.links)


def test_a_judgement_of_older_code_and_a_run_that_was_not_resolved_have_none(
    run: ResolvedRun,
) -> None:
    save_artifact(run, STAGE, make_judgement(Decision.REJECT))
    for run_uri in (run.run_uri, None):
        assert OutcomeLink(IN_MLFLOW).get_link(TASK, ti_key=asked(run_uri)) == ""


def test_where_no_server_runs_no_page_is_named() -> None:
    assert mlflow_links("sqlite:////w/mlflow.db", "7", ("run4", "run3")) == ()


def test_the_comparison_has_the_buttons_and_the_others_have_none(tmp_path: Path) -> None:
    from datetime import timedelta

    for name in (STAGE, "build_snapshot"):
        task = stage_operator(name, "file:///w", timedelta(hours=1), Settings(home=str(tmp_path)))
        assert tuple(task.operator_extra_links) == LINKS.get(name, ())
