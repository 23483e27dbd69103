"""Where our options name no master, Spark takes its own; no process is left behind."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import storage
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


def run_code(
    code: str, folder: Path, *words: str, launcher: tuple[str, ...] = (), **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run code as a driver of its own."""
    (folder / "driver.py").write_text(code)
    return subprocess.run(
        [*(launcher or (sys.executable,)), str(folder / "driver.py"), *words],
        env=environment() | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_this_machine_is_the_cluster_where_it_is_named(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log", num_users=20)
    run = make_run(tmp_path, workspace_uri=storage.to_uri(tmp_path / "spark"))
    (tmp_path / "run.json").write_text(run.model_dump_json())
    options = {"HOMEFEED_SPARK_OPTIONS": '{"spark.master": "local[*]"}'}
    done = run_code(BUILD, tmp_path, str(tmp_path / "run.json"), **options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [write_snapshot(make_run(tmp_path)).digest, "0"]


@pytest.mark.parametrize("where", ["spark-submit", "spark-defaults.conf"])
def test_the_master_that_spark_itself_is_told_is_taken(where: str, tmp_path: Path) -> None:
    """Where our options name none. It is this machine with three threads here."""
    submit = (f"{environment()['SPARK_HOME']}/bin/spark-submit", "--master", "local[3]")
    (tmp_path / "spark-defaults.conf").write_text("spark.master local[3]\n")
    if where == "spark-submit":
        done = run_code(CONNECT, tmp_path, launcher=submit)
    else:
        done = run_code(CONNECT, tmp_path, SPARK_CONF_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "local[3] 127.0.0.1 homefeed snapshot"


@pytest.mark.exhaustive
def test_what_listens_and_is_no_master_is_named_when_spark_gives_up(tmp_path: Path) -> None:
    """Spark asks for a minute, and then gives a context that is closed already."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        master = f"spark://127.0.0.1:{server.getsockname()[1]}"
        options = {"HOMEFEED_SPARK_OPTIONS": json.dumps({"spark.master": master})}
        done = run_code(CONNECT, tmp_path, **options)
    assert done.returncode == 1
    assert f"TransientStorageError: no Spark master answers at {master} (" in done.stderr
