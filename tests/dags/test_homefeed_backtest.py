"""The DAG file of the replay: what a person gives reaches the command, and no shell."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

GIVEN = {"start": "2017-05-01", "end": None, "every": 7, "gates": ["a.yaml", "s3://b/c.yml"]}


def dag_of(repository: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> Any:
    monkeypatch.setenv("HOMEFEED_COMMAND", command)
    return runpy.run_path(str(repository / "dags" / "homefeed_backtest.py"))["homefeed_backtest"]


def test_what_is_given_reaches_the_command(repository: Path, tmp_path: Path, monkeypatch) -> None:
    shown = "import sys, os; print(sys.argv[1:], os.environ['HOMEFEED_GATES'])"
    (script := tmp_path / "show.py").write_text(shown)
    dag = dag_of(repository, monkeypatch, f"{sys.executable} {script}")
    assert dag.schedule is None and dag.max_active_runs == 1
    [task] = dag.tasks
    task.render_template_fields({"params": GIVEN | {"start": "$(touch x)"}})
    ran = subprocess.run(
        ["bash", "-c", task.bash_command],
        env=os.environ | task.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    words = ["backtest", "--from", "$(touch x)", "--to", "", "--every", "7"]
    assert ran.stdout.strip() == f"{words} a.yaml s3://b/c.yml"
    assert not (tmp_path / "x").exists() and task.append_env


@pytest.mark.parametrize("gate", ["package.module:function", "two words.yaml", "completejourney"])
def test_a_gate_is_a_file(repository: Path, monkeypatch, gate: str) -> None:
    """A file is data: what anybody may trigger runs no function of a package."""
    gates: Param = dag_of(repository, monkeypatch, "homefeed").params.get_param("gates")
    assert gates.resolve(["mine/strict.yaml"]) == ["mine/strict.yaml"]
    with pytest.raises(ParamValidationError):
        gates.resolve([gate])
