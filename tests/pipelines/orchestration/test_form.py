"""What Airflow shows of a DAG in words: the runbook's address, and what each recipe is for."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.orchestration.form import RUNBOOK, about_recipe, with_runbook
from pipelines.recipes import RECIPES
from pipelines.settings import Settings

PAGE = "https://git.example.com/homefeed/docs/runbook.md"


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
