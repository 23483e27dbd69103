"""A real scheduler runs the DAG with a snapshot by Spark: nothing changes but settings.

A master and two workers of their own, which are ended while Airflow goes on. The master comes from
a connection of Airflow's. A training is not waited for: it knows nothing of Spark.
"""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.snapshot_files import verify_files
from pipelines.local import processes
from pipelines.snapshot.build import write_snapshot
from pipelines.stages.runner import read_artifact
from support.kills import wait_for_run_uri
from support.lab import FIRST_DAY, SECOND_DAY, Lab, open_lab
from support.spark_cluster import NUM_WORKERS, environment, spark_cluster
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
NUM_DAYS = 76  # up to the second cycle
PATIENCE_S = 180.0
DONE = {"success", "failed", "up_for_retry", "upstream_failed"}


@dataclass
class Seen:
    """Two cycles up to their snapshots, the second without a cluster, and what was left."""

    resolved: ResolvedRun
    made: Snapshot
    checked: str
    """How the data gate's task ended in the first cycle."""
    log: list[str]
    folder: Path
    master: str
    state_without: str
    log_without: list[str]
    seconds_without: float
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("dag")
    write_planted_world(folder / "event_log", num_users=120, num_days=NUM_DAYS)
    with contextlib.ExitStack() as running, contextlib.ExitStack() as cluster_running:
        cluster = cluster_running.enter_context(spark_cluster(folder, {}))
        settings = cluster.settings() | {
            # Where the project is not installed, the stage finds it where executors do.
            "PYTHONPATH": environment()["PYTHONPATH"],
        }
        lab = running.enter_context(open_lab(folder / "home", folder / "event_log", settings))
        lab.start("there", FIRST_DAY)
        run_uri = wait_for_run_uri(lab, "there")
        assert ended(lab, "there", "build_snapshot") == "success", said(lab, "there")
        checked = ended(lab, "there", "check_snapshot")
        end_run(lab, "there")
        cluster_running.close()
        lab.start("gone", SECOND_DAY)
        state_without = ended(lab, "gone", "build_snapshot")
        attempt = lab.get("dags/homefeed_retrain/dagRuns/gone/taskInstances/build_snapshot/tries/1")
        found = Seen(
            resolved=read_artifact(run_uri, "resolve_run", ResolvedRun),
            made=read_artifact(run_uri, "build_snapshot", Snapshot),
            checked=checked,
            log=said(lab, "there"),
            folder=folder,
            master=cluster.master,
            state_without=state_without,
            log_without=said(lab, "gone"),
            seconds_without=float(attempt["duration"]),
            left=[],
        )
    found.left = processes.marked(processes.marks_of(folder / "home"))
    return found


def ended(lab: Lab, run_id: str, task_id: str) -> str:
    """Return the state of a task as soon as its first attempt has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        states = {each["task_id"]: str(each["state"]) for each in lab.api.tasks(run_id)}
        if states.get(task_id) in DONE:
            return states[task_id]
        assert time.monotonic() < deadline, states
        lab.services.look_after()
        time.sleep(0.2)


def said(lab: Lab, run_id: str) -> list[str]:
    """Return the log of the first attempt at the snapshot."""
    return lab.api.log_of(run_id, "build_snapshot", 1)


def end_run(lab: Lab, run_id: str) -> None:
    """Mark a cycle as failed, which ends the task that runs, and lets the next cycle begin."""
    lab.api.call("PATCH", f"/api/v2/dags/homefeed_retrain/dagRuns/{run_id}", {"state": "failed"})


def test_the_cluster_that_a_connection_names_builds_the_snapshot(seen: Seen) -> None:
    assert any(f"Spark 4.3.0 at {seen.master}" in line for line in seen.log), seen.log
    assert any("shards go to Spark" in line for line in seen.log), seen.log
    for number in range(NUM_WORKERS):
        assert list((seen.folder / f"work-{number}").glob("app-*/*/stderr")), "no executor ran"


def test_it_is_the_snapshot_of_one_machine_and_passes_the_data_gate(
    seen: Seen, tmp_path: Path
) -> None:
    verify_files(seen.made, storage.local_path(seen.made.uri))
    here = {"workspace_uri": storage.to_uri(tmp_path)}
    local = write_snapshot(seen.resolved.model_copy(update=here))
    assert seen.made.model_copy(update={"uri": local.uri}) == local
    assert seen.checked == "success"


def test_a_master_out_of_reach_fails_the_task_soon_and_says_what_to_change(seen: Seen) -> None:
    text = "\n".join(seen.log_without)
    assert seen.state_without in ("up_for_retry", "failed")
    assert "exit code 75" in text, text
    address = seen.master.removeprefix("spark://")
    assert f"no Spark master answers at {address} (Connection refused)" in text, text
    assert "spark.master in HOMEFEED_SPARK_OPTIONS" in text, text
    assert seen.seconds_without < 45, "Spark itself would have waited for more than a minute"


def test_no_process_of_the_cycles_is_left(seen: Seen) -> None:
    assert seen.left == []
