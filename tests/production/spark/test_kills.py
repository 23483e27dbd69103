"""Executors and drivers are killed (SIGKILL) midway; nothing is lost, and nothing half-published.

The driver is the stage itself, as Airflow's BashOperator or `spark-submit` starts it.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.snapshot_files import verify_files
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.stages.runner import read_artifact, run_stage
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.spark_cluster import REPOSITORY, SparkCluster, environment
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
NUM_SHARDS = 24
COMMAND_LINE = REPOSITORY / "pipelines" / "cli" / "__main__.py"
_TIMEOUT_S = 240.0


CONFIG = smoke().model_copy(
    update={"snapshot": smoke().snapshot.model_copy(update={"num_shards": NUM_SHARDS})}
)


@dataclass(frozen=True)
class Cycle:
    """A resolved run over a planted log, and what its snapshot is on one machine."""

    folder: Path
    run: ResolvedRun
    digest: str

    @property
    def snapshots(self) -> Path:
        return storage.local_path(self.run.workspace_uri) / "snapshots"

    def num_shards_built(self) -> int:
        """Return how many shards the executors of a build have put in their place."""
        return len(list(self.snapshots.glob(".scratch-*/attempts/shard-*")))

    def assert_whole(self) -> None:
        """Check that the one snapshot is that of one machine, and that nothing else is left."""
        made = read_artifact(self.run.run_uri, "build_snapshot", Snapshot)
        assert made.digest == self.digest
        verify_files(made, storage.local_path(made.uri))
        folders = [path.name for path in self.snapshots.iterdir() if path.is_dir()]
        assert folders == [made.digest[:16]]


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    write_planted_world(tmp_path / "event_log", num_users=240, num_days=67)
    digest = write_snapshot(make_run(tmp_path, CONFIG)).digest
    workspace_uri = storage.to_uri(tmp_path / "by_spark")
    run = save_run(make_run(tmp_path, CONFIG, PLANTED_AS_OF, workspace_uri=workspace_uri))
    return Cycle(tmp_path, run, digest)


@contextlib.contextmanager
def driver(cycle: Cycle, cluster: SparkCluster, *launcher: str) -> Iterator[subprocess.Popen]:
    """Start the stage, and end it by its process id at the latest when the block ends.

    Args:
        cycle: whose snapshot is built.
        cluster: where.
        launcher: what starts the stage and names the master, in place of the environment.
    """
    log = cycle.folder / "driver.log"
    settings = cluster.settings(names_master=not launcher)
    command = [*(launcher or (sys.executable,)), str(COMMAND_LINE)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "stage", "build_snapshot", cycle.run.run_uri],
            stdout=output,
            stderr=output,
            env={**environment(), **settings},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_until_midway(cycle: Cycle, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not cycle.num_shards_built():
        log = (cycle.folder / "driver.log").read_text()
        assert process.poll() is None and time.monotonic() < deadline, log[-3000:]
        time.sleep(0.005)


def test_a_killed_executor_changes_nothing(cycle: Cycle, cluster: SparkCluster) -> None:
    before = {each.pid for each in cluster.executors()}
    # `spark-submit` starts the driver here, and it alone names the master.
    submit = os.path.join(environment()["SPARK_HOME"], "bin", "spark-submit")
    with driver(cycle, cluster, submit, "--master", cluster.master) as process:
        wait_until_midway(cycle, process)
        ours = [each for each in cluster.executors() if each.pid not in before]
        ours[0].kill()
        assert cycle.num_shards_built() < NUM_SHARDS  # It was not too late.
        code = process.wait(timeout=_TIMEOUT_S)
        assert code == 0, (cycle.folder / "driver.log").read_text()[-3000:]
    assert len(ours) == 2
    cycle.assert_whole()


def test_a_killed_driver_publishes_nothing_and_the_next_one_does(
    cycle: Cycle, cluster: SparkCluster, by_spark: None
) -> None:
    before = {each.pid for each in cluster.executors()}
    with driver(cycle, cluster) as process:
        wait_until_midway(cycle, process)
        ours = [each for each in cluster.executors() if each.pid not in before]
        process.kill()
        assert process.wait() == -9
    assert list(cycle.snapshots.glob("*/manifest.json")) == []
    assert ours and psutil.wait_procs(ours, timeout=30)[1] == []  # No executor outlives it.
    run_stage("build_snapshot", cycle.run.run_uri)
    cycle.assert_whole()
