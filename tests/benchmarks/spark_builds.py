"""One build of a snapshot in a process of its own, by Spark or not, with time and peaks of memory.

For `spark_sizes`; it takes no log and no recipe of its own. The peak of an executor
is that of its Java process and its Python together, each with its part of what they share.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.contracts.artifacts import ResolvedRun
from support.spark_cluster import SparkCluster, environment

REQUIREMENTS = "pip install -r tests/production/requirements.txt"
_BUILD = """
import contextlib, json, logging, sys, time
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.spark.session import open_spark
if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("pipelines").setLevel(logging.INFO)
    run = ResolvedRun.model_validate_json(open(sys.argv[1]).read())
    settings, began = Settings(), time.monotonic()
    is_here = not settings.spark_options
    with contextlib.nullcontext() if is_here else open_spark(settings):
        connected = time.monotonic()
        snapshot = write_snapshot(run)
        seconds = time.monotonic() - connected
    told = {"digest": snapshot.digest, "start_s": connected - began, "seconds": seconds}
    print(json.dumps(told))
"""
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Build:
    """What one build took."""

    digest: str
    wall_s: float
    """Of the whole process, with its imports."""
    start_s: float
    """Until Spark has given a connection; its executors may come later."""
    seconds: float
    """Of the snapshot alone."""
    peaks_mib: Mapping[str, float]
    """By the driver, or the process with its pool, and each executor with its Python."""


def require_pyspark() -> None:
    """Refuse where Spark cannot be started.

    Raises:
        RuntimeError: PySpark is missing.
    """
    if not has_pyspark():
        raise RuntimeError(
            f"PySpark is not installed; expected it beside this project; install it with "
            f"`{REQUIREMENTS}` (and Java 17 or newer), or name other PARTS"
        )


def has_pyspark() -> bool:
    """Return whether PySpark can be imported."""
    try:
        import pyspark  # noqa: F401 - to see whether it is there
    except ImportError:
        return False
    return True


def build(
    folder: Path, run: ResolvedRun, cluster: SparkCluster, settings: Mapping[str, str]
) -> Build:
    """Build a snapshot in a process of its own, and look at memory meanwhile.

    Args:
        folder: for what the process is given.
        run: what is built.
        cluster: whose executors are looked at.
        settings: variables of the build; empty for this machine.

    Raises:
        RuntimeError: the build failed.
    """
    (folder / "run.json").write_text(run.model_dump_json())
    (folder / "build.py").write_text(_BUILD)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(folder / "build.py"), str(folder / "run.json")],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(), **settings},
    )
    peaks: dict[str, float] = {}
    here, name = psutil.Process(process.pid), "driver" if settings else "process and pool"
    try:
        while process.poll() is None:
            _raise_peak(peaks, name, here)
            for place, executor in enumerate(cluster.executors()):
                _raise_peak(peaks, f"executor {place}", executor)
            time.sleep(_PAUSE_S)
    finally:
        process.kill()
    if process.returncode != 0 or process.stdout is None:
        raise RuntimeError(f"the build ended with {process.returncode}; its log is above")
    told = json.loads(process.stdout.read().splitlines()[-1])
    return Build(wall_s=time.monotonic() - began, peaks_mib=peaks, **told)


def _raise_peak(peaks: dict[str, float], name: str, process: psutil.Process) -> None:
    """Note the memory of a process with its children, where it is more than before."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_full_info().pss
    except psutil.NoSuchProcess:
        return
    peaks[name] = max(peaks.get(name, 0.0), round(total / 2**20, 1))
