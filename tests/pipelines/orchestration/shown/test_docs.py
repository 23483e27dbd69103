"""The DAGs' documentation names the runbook, and links it where it has an address."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.orchestration.shown.docs import RUNBOOK, with_runbook

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
