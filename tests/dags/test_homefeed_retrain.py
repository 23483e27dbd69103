"""The DAG file: its edges, schedule, form and light stages, and how light it is to read."""

import json
import os
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowSkipException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from pipelines.contracts.alert import Alert, AlertReceipt, NextStep
from pipelines.contracts.judgement import Decision, Promoted
from pipelines.orchestration.retries import StageRetryPolicy, put_off
from pipelines.orchestration.runs import OPTIONS, alert_broken_run, tell_ended_run
from pipelines.orchestration.timetable import GridTimetable
from pipelines.recipes import RECIPES
from pipelines.stages import runner
from support.judgements import CHALLENGER, CHAMPION, make_judgement, make_promotion
from support.runs import make_run, save_artifact, save_run

DAGS = Path(__file__).parents[2] / "dags"
OUTSIDE = ("/shared/careful.yaml", "s3://bucket/more careful.yaml", "x.yml", "ours.deep:careful")
HEAVY_STAGES = {"build_snapshot", "check_snapshot", "train_challenger", "train_anchor"}
HEAVY_STAGES |= {"compare_with_champion"}
LAST = {"approve_promotion", "promote_challenger", "alert"}
ENDS = {"promoted", "anchor_promoted", "held_back", "rejected", "inconclusive"}
EDGES = {
    "resolve_run": HEAVY_STAGES | LAST | {"outcome"},
    "build_snapshot": {"check_snapshot"},
    "check_snapshot": {"train_challenger"},
    "train_challenger": {"train_anchor", "compare_with_champion"},
    "train_anchor": {"compare_with_champion"},
    "compare_with_champion": LAST | {"outcome"},
    "approve_promotion": {"promote_challenger"},
    "promote_challenger": {"outcome"},
    "alert": set(),
    "outcome": ENDS,
    **dict.fromkeys(ENDS, set()),
}
"""`resolve_run` precedes all: each of them takes the run's URI from it."""
HEAVY = {"torch", "pytorch_lightning", "mlflow", "pandas", "numpy", "pyarrow", "duckdb"}
HEAVY |= {"great_expectations", "matplotlib", "training", "validation"}


def read():
    """Read the file in the environment that a test has made."""
    return runpy.run_path(str(DAGS / "homefeed_retrain.py"))


@pytest.fixture(scope="module")
def namespace():
    return read()


@pytest.fixture(scope="module")
def dag(namespace):
    return namespace["homefeed_retrain"]


@pytest.fixture(scope="module")
def read_apart():
    """What two new processes say: the modules that reading all files imports, and the DAG."""
    script = (
        "import json, runpy, sys; read = [runpy.run_path(each) for each in sys.argv[1:]];"
        "imported = sorted({name.split('.')[0] for name in sys.modules});"
        "from airflow.serialization.serialized_objects import DagSerialization as S;"
        "print(json.dumps([imported, S.to_dict(read[0]['homefeed_retrain'])]))"
    )
    files = sorted(DAGS.glob("*.py"), key=lambda file: file.stem != "homefeed_retrain")
    command = [sys.executable, "-c", script, *map(str, files)]
    said = (
        subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    )
    return [json.loads(each.splitlines()[-1]) for each in said]


def test_reading_the_files_imports_nothing_heavy(read_apart):
    for imported, _ in read_apart:
        assert {"airflow", "pipelines"} <= {*imported}
        assert not {*imported} & HEAVY


def test_the_edges_the_schedule_and_who_is_told_are_these(dag, namespace):
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == EDGES
    assert isinstance(dag.timetable, GridTimetable)
    assert dag.timetable.period == timedelta(days=14)
    assert dag.start_date == datetime(2025, 12, 22, 6, tzinfo=UTC)  # a period before the first date
    assert dag.catchup is False and dag.max_active_runs == 1
    assert dag.on_failure_callback in (alert_broken_run, [alert_broken_run])
    assert dag.on_success_callback in (tell_ended_run, [tell_ended_run])
    assert not any(task.on_failure_callback or task.on_success_callback for task in dag.tasks)
    # A plain outlet would announce a new champion after every run.
    outlets = {task.task_id: task.outlets for task in dag.tasks if task.outlets}
    assert outlets == {"promote_challenger": [namespace["PROMOTED"]]}
    assert dag.get_task("resolve_run").inlets == [namespace["CHAMPION"]]


def test_reading_the_file_again_makes_no_other_version_of_the_dag(read_apart):
    (_, one), (_, other) = read_apart
    assert one == other


def test_every_task_has_its_retries_timeout_and_pool(dag):
    for task in dag.tasks:
        assert task.retries == 2 and isinstance(task.retry_policy, StageRetryPolicy)
        assert task.retry_exponential_backoff and task.execution_timeout
        assert task.pool == "default_pool" and task._pre_execute_hook is put_off
        may_be_skipped_before = task.task_id in ("promote_challenger", "outcome")
        rule = "none_failed_min_one_success" if may_be_skipped_before else "all_success"
        assert task.trigger_rule == rule
    worst = sum((task.execution_timeout for task in dag.tasks), timedelta())
    assert worst < dag.dagrun_timeout < dag.timetable.period


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("as_of", [None, "2017-06-12"], ["12 June", 5]),
        ("recipe", [*RECIPES, *OUTSIDE, "mistyped"], [None]),
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


def test_cadence_hardware_and_recipe_are_the_deployment_s(dag, monkeypatch):
    assert dag.params.get_param("recipe").schema["examples"] == sorted(RECIPES)
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", "3.5")
    monkeypatch.setenv("HOMEFEED_ACCELERATOR", "gpu")
    monkeypatch.setenv("HOMEFEED_DEVICES", "8")
    monkeypatch.setenv("HOMEFEED_NODES", "2")
    monkeypatch.setenv("HOMEFEED_RECIPE", "ours.ranking:careful")
    found = read()["homefeed_retrain"]
    assert found.timetable.period == timedelta(hours=84)
    assert [found.params[name] for name in ("accelerator", "devices", "nodes")] == ["gpu", 8, 2]
    assert found.params["recipe"] == "ours.ranking:careful"
    param = found.params.get_param("recipe")
    assert param.schema["examples"] == sorted([*RECIPES, "ours.ranking:careful"])
    assert "package.module:function, or a path or URI" in param.description
    monkeypatch.setenv("HOMEFEED_RECIPE", "mistyped")  # `resolve_run` tells of it, by an alert.
    assert read()["homefeed_retrain"].params["recipe"] == "mistyped"


@pytest.mark.parametrize("name", ["docker", "kubernetes"])
def test_trainings_elsewhere_run_side_by_side_on_the_hardware_of_the_run(monkeypatch, name):
    monkeypatch.setenv("HOMEFEED_STAGE_RUNNER", name)
    monkeypatch.setenv("HOMEFEED_STAGE_IMAGE", "an-image")
    template = DAGS.parent / "docker/kubernetes/stage-pod.yaml"
    monkeypatch.setenv("HOMEFEED_POD_TEMPLATE", str(template))
    found = read()["homefeed_retrain"]
    after = {task.task_id: task.downstream_task_ids for task in found.tasks}
    assert after["check_snapshot"] == {"train_challenger", "train_anchor"}
    assert after["train_challenger"] == after["train_anchor"] == {"compare_with_champion"}
    assert found.get_task("resolve_run").multiple_outputs  # each value crosses by its own name
    for stage in ("train_challenger", "train_anchor", "compare_with_champion"):
        hardware = found.get_task(stage).hardware
        assert (hardware.operator.task_id, hardware.key) == ("resolve_run", "hardware")
    stored = json.loads(json.dumps(DagSerialization.to_dict(found)))
    assert DagSerialization.from_dict(stored).task_dict.keys() == found.task_dict.keys()


@pytest.mark.parametrize(
    ("promoted", "decision", "is_moved", "end"),
    [
        ("challenger", "PROMOTE", True, "promoted"),
        ("anchor", "REJECT", True, "anchor_promoted"),
        ("challenger", "PROMOTE", False, "held_back"),  # nobody approved it, or a backfill
        ("none", "REJECT", False, "rejected"),
        ("none", "INCONCLUSIVE", False, "inconclusive"),
    ],
)
def test_one_of_the_ends_is_green_and_says_which_side_was_promoted(
    tmp_path, dag, promoted, decision, is_moved, end
):
    run, judged = save_run(make_run(tmp_path)), make_judgement(Decision(decision))
    verdict = judged.verdict.model_copy(update={"promoted": Promoted(promoted)})
    save_artifact(run, "compare_with_champion", judged.model_copy(update={"verdict": verdict}))
    save_artifact(run, "promote_challenger", make_promotion(is_moved))
    assert dag.get_task("outcome").python_callable(run.run_uri) == end


PROMOTION = make_promotion(reason="Because of a test.")
KEPT = PROMOTION.model_copy(update={"is_promoted": False, "champion_after": CHAMPION})
SAID = dict.fromkeys(("run_id", "title", "happened", "certainty", "done"), "It lost.")
ALERT = Alert(kind="regression", next_step=NextStep(sentence="Rest.", commands=()), **SAID)


@pytest.mark.parametrize(
    ("stage", "gives", "skipped"),
    [
        ("promote_challenger", PROMOTION, ""),
        ("promote_challenger", KEPT, "nothing was promoted: Because of a test."),
        ("alert", AlertReceipt(alert=ALERT, delivered_to=()), ""),
        ("alert", AlertReceipt(alert=None, delivered_to=()), "nobody had to be told"),
    ],
)
def test_a_light_stage_is_green_only_where_it_did_something(
    tmp_path, monkeypatch, dag, namespace, stage, gives, skipped
):
    run = save_run(make_run(tmp_path))
    save_artifact(run, stage, gives)
    monkeypatch.setattr(runner, "run_stage", lambda name, uri: f"{uri}/{name}/manifest.json")
    told, left = [], {}
    events = SimpleNamespace(add=lambda asset, extra: told.append((asset, extra)))
    given = {"outlet_events": {namespace["PROMOTED"]: events}} if stage != "alert" else {}
    ti = SimpleNamespace(xcom_push=left.__setitem__)
    perform = dag.get_task(stage).python_callable
    if skipped:
        with pytest.raises(AirflowSkipException, match=skipped):
            perform(run.run_uri, ti=ti, **given)
    else:
        assert perform(run.run_uri, ti=ti, **given) == left["return_value"]
    assert left == {"return_value": f"{run.run_uri}/{stage}/manifest.json"}
    extra = {"version": CHALLENGER.version, "reason": "Because of a test."}
    assert told == ([(namespace["CHAMPION"], extra)] if gives is PROMOTION else [])
