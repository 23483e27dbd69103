"""The task of a training in a cluster (`support.small_cluster`): Jobs, their ends, and retries."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException

from pipelines.contracts.errors import TransientStorageError
from pipelines.orchestration.operators import stage_operator
from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.settings import Settings
from support.cluster_tasks import begin, pod_template, run, task_context, use_cluster
from support.small_cluster import SmallCluster, small_cluster

CONTEXT = ("homefeed_retrain", "train_challenger", "manual__x")
SCRIPT = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[0]).parent
own = folder / f"pod-{os.environ['JOB_COMPLETION_INDEX']}"
own.write_text("\\n".join(f"{name}={value}" for name, value in os.environ.items()))
print("arguments", sys.argv[1:], flush=True)
wanted = folder / "do"
exec(wanted.read_text() if wanted.exists() else "")
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCluster]:
    with small_cluster(tmp_path / "cluster", {"PATH": os.environ["PATH"]}) as found:
        use_cluster(found, monkeypatch)
        found.secrets["credentials"] = {"AWS_SECRET_ACCESS_KEY": "swordfish"}
        yield found


def task(tmp_path: Path, nodes: int = 2) -> Any:
    """Return the task, whose command is a script of the test in place of `homefeed`."""
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = Settings(
        stage_runner="kubernetes",
        stage_image="trainer:1",
        pod_template=pod_template(tmp_path),
        command=f"{sys.executable} {tmp_path}/script.py",
        workspace="s3://bucket/w",
    )
    hardware = {"accelerator": "cpu", "devices": 1, "nodes": nodes}
    made = stage_operator("train_challenger", "s3://w/runs/r", timedelta(1), settings, hardware)
    return made


def variables(tmp_path: Path, pod: int) -> dict[str, str]:
    lines = (tmp_path / f"pod-{pod}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_each_machine_knows_its_rank_and_where_the_first_one_is(cluster, tmp_path) -> None:
    run(task(tmp_path), CONTEXT)
    told = [variables(tmp_path, pod) for pod in range(2)]
    [job] = cluster.made
    assert [each["JOB_COMPLETION_INDEX"] for each in told] == ["0", "1"]
    assert {each["HOMEFEED_JOB_NAME"] for each in told} == {job["metadata"]["name"]}
    assert len({each["HOMEFEED_RENDEZVOUS"] for each in told}) == 1
    # The cluster's name server has put an address in place of <job>-0.homefeed-training.
    assert told[0]["HOMEFEED_RENDEZVOUS"].startswith("127.0.0.1:")
    assert {each["AWS_SECRET_ACCESS_KEY"] for each in told} == {"swordfish"}
    assert "swordfish" not in json.dumps(cluster.made)
    assert {each["HOMEFEED_WORKSPACE"] for each in told} == {"s3://bucket/w"}


@pytest.mark.parametrize(
    ("code", "action"), [(78, RetryAction.FAIL), (65, RetryAction.FAIL), (75, RetryAction.DEFAULT)]
)
def test_how_one_machine_ends_decides_whether_all_are_tried_again(
    cluster, tmp_path, code, action
) -> None:
    # The other machine would wait for long: the Job ends it.
    (tmp_path / "do").write_text(
        f"sys.exit({code}) if os.environ['JOB_COMPLETION_INDEX'] == '1' else time.sleep(600)"
    )
    started = time.monotonic()
    with pytest.raises(AirflowException) as caught:
        run(task(tmp_path), CONTEXT)
    assert time.monotonic() - started < 120
    decided = StageRetryPolicy().evaluate(caught.value, try_number=1, max_tries=3)
    assert decided.action is action


def test_a_job_that_an_earlier_attempt_left_is_ended_first(cluster, tmp_path) -> None:
    (tmp_path / "do").write_text("time.sleep(600)")
    begin(task(tmp_path), CONTEXT)  # the task is cleared, and nobody waits for it any more
    [earlier] = list(cluster.pods.values())[:1]
    (tmp_path / "do").write_text("")
    run(task(tmp_path), CONTEXT)
    assert earlier.exit_code == 128 + 15
    assert len(cluster.made) == 2 and len(cluster.jobs) == 1


def test_the_log_of_a_failed_machine_is_shown_by_the_task(cluster, tmp_path, capsys) -> None:
    (tmp_path / "do").write_text("print('out of memory on card 3', flush=True); sys.exit(70)")
    failing = task(tmp_path, nodes=1)
    with pytest.raises(AirflowException):
        run(failing, CONTEXT)
    assert "logs: out of memory on card 3" in capsys.readouterr().out


def test_a_machine_that_is_not_found_in_time_is_told_with_its_reason(cluster, tmp_path) -> None:
    (tmp_path / "do").write_text("time.sleep(600)")
    cluster.pending[1] = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    waiting = task(tmp_path)
    waiting.startup_timeout_seconds = 2
    with pytest.raises(TransientStorageError, match="1 of 2 pods.*Insufficient nvidia") as caught:
        waiting.execute(task_context(CONTEXT))
    assert cluster.jobs == {}  # else it would begin beside the next attempt
    decided = StageRetryPolicy().evaluate(caught.value, try_number=1, max_tries=3)
    assert decided.action is RetryAction.DEFAULT


def test_a_machine_that_comes_late_is_waited_for(cluster, tmp_path) -> None:
    cluster.pending[0] = "waiting for a machine"
    threading.Timer(1.5, cluster.pending.clear).start()
    run(task(tmp_path), CONTEXT)
    assert {"pod-0", "pod-1"} <= {path.name for path in tmp_path.iterdir()}
