"""The DAG file: its edges, its schedule, its form, and how light it is to read."""

import json
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from pipelines.orchestration.callbacks import alert_broken_run, tell_ended_run
from pipelines.orchestration.resolving import OPTIONS
from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.orchestration.timetable import GridTimetable
from pipelines.recipes import RECIPES

FILE = Path(__file__).parents[2] / "dags" / "homefeed_retrain.py"
OUTSIDE = ("/shared/careful.yaml", "s3://bucket/careful.toml")
EDGES = {
    "resolve_run": {
        "build_snapshot",
        "check_snapshot",
        "train_challenger",
        "train_anchor",
        "compare_with_champion",
        "approve_promotion",
        "promote_challenger",
        "alert",
    },
    "build_snapshot": {"check_snapshot"},
    "check_snapshot": {"train_challenger"},
    "train_challenger": {"train_anchor", "compare_with_champion"},
    "train_anchor": {"compare_with_champion"},
    "compare_with_champion": {"approve_promotion", "promote_challenger", "alert"},
    "approve_promotion": {"promote_challenger"},
    "promote_challenger": set(),
    "alert": set(),
}
"""`resolve_run` precedes all: each of them takes the run's URI from it."""

HEAVY = (
    "torch",
    "pytorch_lightning",
    "mlflow",
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "great_expectations",
    "matplotlib",
    "training",
    "validation",
)


@pytest.fixture(scope="module")
def namespace():
    return runpy.run_path(str(FILE))


@pytest.fixture(scope="module")
def dag(namespace):
    return namespace["homefeed_retrain"]


def read():
    """Read the file in the environment that a test has made."""
    return runpy.run_path(str(FILE))["homefeed_retrain"]


@pytest.fixture
def in_containers(repository, monkeypatch):
    monkeypatch.setenv("HOMEFEED_STAGE_RUNNER", "kubernetes")
    monkeypatch.setenv("HOMEFEED_STAGE_IMAGE", "an-image")
    monkeypatch.setenv("HOMEFEED_POD_TEMPLATE", f"{repository}/docker/kubernetes/stage-pod.yaml")


def test_the_edges_are_these(dag):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == EDGES


@pytest.mark.parametrize("name", ["homefeed_retrain", "homefeed_gc"])
def test_reading_it_imports_nothing_heavy(repository, name):
    script = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(repository / "dags" / f"{name}.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))
    assert {"airflow", "pipelines"} <= imported
    assert not imported & set(HEAVY)


def test_it_is_every_fortnight_and_never_catches_up(dag):
    assert isinstance(dag.timetable, GridTimetable)
    assert dag.timetable.period == timedelta(days=14)
    assert dag.start_date == datetime(2025, 12, 22, 6, tzinfo=UTC)  # a period before the first date
    assert dag.catchup is False
    assert dag.max_active_runs == 1


def test_the_first_task_knows_the_schedule_s_catchup(dag, monkeypatch):
    asked = {}
    function = dag.get_task("resolve_run").python_callable
    monkeypatch.setitem(
        function.__globals__,
        "start_cycle",
        lambda params, dag_run, ti, settings, catchup: asked.update(catchup=catchup),
    )
    function()
    assert asked == {"catchup": dag.catchup}


def test_its_schedule_survives_serialisation(dag):
    stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    found = DagSerialization.from_dict(stored)
    anchor = datetime(2026, 1, 5, 6, tzinfo=UTC)
    due = found.next_dagrun_info(last_automated_run_info=None).run_after
    assert (due - anchor).total_seconds() % (14 * 86400) == 0
    assert due >= datetime.now(UTC) - timedelta(hours=1)
    assert due <= datetime.now(UTC) + timedelta(days=14)


def test_every_task_has_its_retries_timeout_and_pool(dag):
    for task in dag.tasks:
        assert task.retries == 2
        assert isinstance(task.retry_policy, StageRetryPolicy)
        assert task.retry_exponential_backoff
        assert task.execution_timeout
        assert task.pool == "default_pool"
        may_be_skipped_before = task.task_id == "promote_challenger"
        rule = "none_failed_min_one_success" if may_be_skipped_before else "all_success"
        assert task.trigger_rule == rule
    worst = sum((task.execution_timeout for task in dag.tasks), timedelta())
    assert worst < dag.dagrun_timeout < dag.timetable.period


def test_how_a_run_ends_is_told_by_the_dag_and_no_task(dag):
    assert dag.on_failure_callback in (alert_broken_run, [alert_broken_run])
    assert dag.on_success_callback in (tell_ended_run, [tell_ended_run])
    assert not any(task.on_failure_callback or task.on_success_callback for task in dag.tasks)


def test_the_champion_asset_is_announced_through_an_alias_only(dag, namespace):
    outlets = {task.task_id: task.outlets for task in dag.tasks if task.outlets}
    assert outlets == {"promote_challenger": [namespace["PROMOTED"]]}
    assert dag.get_task("resolve_run").inlets == [namespace["CHAMPION"]]


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("as_of", [None, "2017-06-12"], ["12 June", 5]),
        (
            "recipe",
            [*RECIPES, *OUTSIDE],
            ["no_such_recipe", "os:getcwd", "a:b:c", "mine.json", None],
        ),
        ("promote", [True, False], ["maybe", None]),
        ("accelerator", ["cpu", "gpu"], ["tpu", None]),
        ("devices", [1, 64], [0, 65, 1.5, None]),
        ("nodes", [1, 64], [0, 65, 1.5, None]),
    ],
)
def test_the_trigger_form_takes_good_values_and_no_others(dag, name, good, bad):
    assert tuple(dag.params) == OPTIONS
    param = dag.params.get_param(name)
    for value in good:
        assert param.resolve(value) == value
    for value in bad:
        with pytest.raises(ParamValidationError):
            param.resolve(value)


def test_cadence_and_default_accelerator_are_settings(monkeypatch):
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", "3.5")
    monkeypatch.setenv("HOMEFEED_ACCELERATOR", "gpu")
    found = read()
    assert found.timetable.period == timedelta(hours=84)
    assert found.params["accelerator"] == "gpu"


def test_where_stages_have_machines_of_their_own_both_trainings_run_side_by_side(in_containers):
    found = read()
    after = {task.task_id: task.downstream_task_ids for task in found.tasks}
    assert after["check_snapshot"] == {"train_challenger", "train_anchor"}
    assert after["train_challenger"] == after["train_anchor"] == {"compare_with_champion"}


@pytest.mark.parametrize("runner", ["docker", "kubernetes"])
def test_the_hardware_of_the_run_reaches_the_trainings_that_run_elsewhere(
    in_containers, monkeypatch, runner
):
    monkeypatch.setenv("HOMEFEED_STAGE_RUNNER", runner)
    found = read()
    assert found.get_task("resolve_run").multiple_outputs  # each value crosses by its own name
    for name in ("train_challenger", "train_anchor"):
        hardware = found.get_task(name).hardware
        assert (hardware.operator.task_id, hardware.key) == ("resolve_run", "hardware")
    stored = json.loads(json.dumps(DagSerialization.to_dict(found)))
    assert DagSerialization.from_dict(stored).task_dict.keys() == found.task_dict.keys()


def test_the_form_offers_our_recipes_and_the_deployment_s_own(dag, monkeypatch):
    assert dag.params.get_param("recipe").schema["examples"] == sorted(RECIPES)
    monkeypatch.setenv("HOMEFEED_RECIPE", "ours.ranking:careful")
    found = read()
    param = found.params.get_param("recipe")
    assert found.params["recipe"] == "ours.ranking:careful"
    assert param.schema["examples"] == sorted([*RECIPES, "ours.ranking:careful"])
    assert "package.module:function, or a path or URI" in param.description
