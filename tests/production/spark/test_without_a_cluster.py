"""Where no master is named, Spark runs on this machine, and leaves no process behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from support.runs import make_run
from support.spark_cluster import environment
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
BUILD = """
import sys
import psutil
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.snapshot.build import write_snapshot
run = ResolvedRun.model_validate_json(open(sys.argv[1]).read())
print(write_snapshot(run).digest, len(psutil.Process().children(recursive=True)))
"""


def test_this_machine_is_the_cluster_where_none_is_named(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log", num_users=20)
    run = make_run(tmp_path, smoke(), workspace_uri=storage.to_uri(tmp_path / "spark"))
    (tmp_path / "run.json").write_text(run.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "run.json")],
        env={**environment(), "HOMEFEED_SNAPSHOT_ENGINE": "spark"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    digest, num_children = done.stdout.split()
    assert digest == write_snapshot(make_run(tmp_path, smoke())).digest
    assert num_children == "0"
