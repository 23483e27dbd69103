"""Where no master is named, Spark runs on this machine, and leaves no process behind."""

import json
import socket
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
CONNECT = """
from pipelines.settings import Settings
from pipelines.snapshot.spark.session import open_spark
with open_spark(Settings()) as context:
    print(context.master, context.getConf().get("spark.driver.host"), context.appName)
"""


def test_this_machine_is_the_cluster_where_none_is_named(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log", num_users=20)
    run = make_run(tmp_path, smoke(), workspace_uri=storage.to_uri(tmp_path / "spark"))
    (tmp_path / "run.json").write_text(run.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "run.json")],
        env={**environment(), "HOMEFEED_SPARK_OPTIONS": '{"spark.master": "local[*]"}'},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    digest, num_children = done.stdout.split()
    assert digest == write_snapshot(make_run(tmp_path, smoke())).digest
    assert num_children == "0"


@pytest.mark.parametrize("where", ["spark-submit", "spark-defaults.conf"])
def test_the_master_that_spark_itself_is_told_is_taken(where: str, tmp_path: Path) -> None:
    """Where our options name none. It is this machine with three threads here."""
    (tmp_path / "connect.py").write_text(CONNECT)
    settings = environment()
    if where == "spark-submit":
        command = [f"{settings['SPARK_HOME']}/bin/spark-submit", "--master", "local[3]"]
    else:
        command = [sys.executable]
        (tmp_path / where).write_text("spark.master local[3]\n")
        settings["SPARK_CONF_DIR"] = str(tmp_path)
    done = subprocess.run(
        [*command, str(tmp_path / "connect.py")],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "local[3] 127.0.0.1 homefeed snapshot"


@pytest.mark.exhaustive
def test_what_listens_and_is_no_master_is_named_when_spark_gives_up(tmp_path: Path) -> None:
    """Spark asks for a minute, and then gives a context that is closed already."""
    (tmp_path / "connect.py").write_text(CONNECT)
    with socket.create_server(("127.0.0.1", 0)) as server:
        master = f"spark://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, str(tmp_path / "connect.py")],
            env={**environment(), "HOMEFEED_SPARK_OPTIONS": json.dumps({"spark.master": master})},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 1
    assert f"TransientStorageError: no Spark master answers at {master} (" in done.stderr
