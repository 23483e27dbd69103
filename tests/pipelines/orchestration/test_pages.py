"""Words and buttons on Airflow's pages: the runbook, the recipes, and what a task has made."""

import runpy
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.alerts.links import IN_MLFLOW, mlflow_links
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.judgement import Decision
from pipelines.orchestration.operators import stage_operator
from pipelines.orchestration.pages import LINKS, OutcomeLink, about_recipe, with_runbook
from pipelines.recipes import RECIPES
from pipelines.settings import Settings
from support.judgements import make_judgement
from support.runs import make_run, save_artifact, save_run

RUNBOOK = "`docs/runbook.md`"
PAGE = "https://git.example.com/homefeed/docs/runbook.md"
STAGE = "compare_with_champion"


def addressed(page: str) -> Any:
    return SimpleNamespace(runbook_url=page)


@pytest.mark.parametrize("name", ["homefeed_retrain", "homefeed_rollback", "homefeed_gc"])
def test_each_dag_leads_to_the_runbook(repository: Path, name: str) -> None:
    said = runpy.run_path(str(repository / "dags" / f"{name}.py"))[name].doc_md
    assert RUNBOOK in said
    assert f"[docs/runbook.md](<{PAGE}>)" in with_runbook(said, addressed(PAGE))


@pytest.mark.parametrize("page", ["", "file:///srv/docs/runbook.md"])
def test_what_a_browser_would_not_open_is_no_link(page: str) -> None:
    assert with_runbook(f"See {RUNBOOK}.", addressed(page)) == f"See {RUNBOOK}."


def test_each_recipe_is_told_with_its_purpose() -> None:
    said = about_recipe(Settings(recipe="ours.ranking:careful"))
    assert "- **ours.ranking:careful**: this deployment's own." in said
    assert all(f"- **{name}**: " in said for name in RECIPES)
    assert "- **smoke**: " in said and "Return " not in said


def address_of(run_uri: str | None) -> str:
    """Return where the button leads in a task instance that has just ended."""
    resolved = {"run_uri": run_uri} if run_uri else None
    ended = SimpleNamespace(xcom_pull=lambda task_ids: resolved)
    return OutcomeLink(IN_MLFLOW).get_link(SimpleNamespace(task_id=STAGE), ti_key=ended)


def test_a_button_leads_to_where_the_outcome_says(tmp_path: Path) -> None:
    run, judgement = save_run(make_run(tmp_path)), make_judgement(Decision.REJECT)
    assert address_of(None) == address_of(run.run_uri) == ""  # nothing is resolved, or judged yet
    places = mlflow_links("http://127.0.0.1:5000/", "7", ("run4", "run3"))
    outcome = outcome_of(run, judgement, None, Settings(), places)
    save_artifact(run, STAGE, judgement.model_copy(update={"outcome": outcome}))
    assert address_of(run.run_uri) == (
        "http://127.0.0.1:5000/#/compare-runs?runs=%5B%22run4%22%2C%20%22run3%22%5D"
        "&experiments=%5B%227%22%5D&workflowType=machine_learning"
    )
    assert set(places) <= set(outcome.links)
    save_artifact(run, STAGE, judgement)
    assert address_of(run.run_uri) == ""


def test_where_no_server_runs_no_page_is_named() -> None:
    assert mlflow_links("sqlite:////w/mlflow.db", "7", ("run4", "run3")) == ()


def test_the_comparison_has_the_buttons_and_the_others_have_none(tmp_path: Path) -> None:
    for name in (STAGE, "build_snapshot"):
        task = stage_operator(name, "file:///w", timedelta(hours=1), Settings(home=str(tmp_path)))
        assert list(task.operator_extra_links) == LINKS.get(name, [])
