"""A Spark standalone cluster on localhost for tests: a master and two workers, all from PySpark.

Each is a Java process of its own, bound to 127.0.0.1, that is ended by its process id. Two
applications find room at a time, each with an executor of one core on either worker. A worker
starts another executor where one dies.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_WORKERS = 2
_JAVA_OPTIONS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""Java that starts quickly; what is tested is no matter of speed."""
_MASTER = re.compile(r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class SparkCluster:
    """Where the master answers, and the processes of the workers."""

    master: str
    workers: tuple[psutil.Process, ...]

    def settings(self, names_master: bool = True) -> dict[str, str]:
        """Return the variables by which a build is done here."""
        options = {
            **({"spark.master": self.master} if names_master else {}),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.driver.memory": "512m",
            "spark.cores.max": str(NUM_WORKERS),
            "spark.executor.cores": "1",
            "spark.executor.memory": "512m",
            "spark.shuffle.io.maxRetries": "1",
            "spark.task.maxFailures": "2",
            "spark.executor.extraJavaOptions": _JAVA_OPTIONS,
            "spark.driver.extraJavaOptions": _JAVA_OPTIONS,
        }
        return {"HOMEFEED_SPARK_OPTIONS": json.dumps(options)}

    def executors(self) -> list[psutil.Process]:
        """Return the executors' Java processes."""
        found = []
        for child in (child for worker in self.workers for child in worker.children()):
            with contextlib.suppress(psutil.NoSuchProcess):  # It has ended since.
                if any("CoarseGrainedExecutorBackend" in word for word in child.cmdline()):
                    found.append(child)
        return found


@contextlib.contextmanager
def spark_cluster(folder: Path, extra: Mapping[str, str]) -> Iterator[SparkCluster]:
    """Start a master and two workers, and end them.

    Args:
        folder: for their logs and the executors' work.
        extra: variables of the executors' environment.
    """
    with contextlib.ExitStack() as running:
        log = folder / "master.log"
        running.enter_context(_daemon(log, {}, "master.Master", "--port", "0"))
        master = _wait_for(log, _MASTER)
        workers = []
        for number in range(NUM_WORKERS):
            log, work = folder / f"worker-{number}.log", str(folder / f"work-{number}")
            options = ["--cores", "2", "--memory", "1g", "--work-dir", work, master]
            workers.append(running.enter_context(_daemon(log, extra, "worker.Worker", *options)))
        for number in range(NUM_WORKERS):
            _wait_for(folder / f"worker-{number}.log", re.compile(r"(Successfully registered)"))
        yield SparkCluster(master, tuple(workers))


def environment() -> dict[str, str]:
    """Return the environment of Spark's processes, in which the project is found."""
    import pyspark

    packages = str(Path(pyspark.__file__).parents[1])
    places = [str(REPOSITORY), str(REPOSITORY / "tests"), packages]
    return os.environ | {
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": _JAVA_OPTIONS,
        "PYTHONPATH": os.pathsep.join(places),
        "PYSPARK_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def _daemon(
    log: Path, extra: Mapping[str, str], name: str, *options: str
) -> Iterator[psutil.Process]:
    """Run one of Spark's daemons, whose page for browsers is bound to localhost too."""
    settings = environment()
    start = [f"{settings['SPARK_HOME']}/bin/spark-class", f"org.apache.spark.deploy.{name}"]
    places = ["--host", "127.0.0.1", "--webui-port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*start, *places, *options], stdout=output, stderr=output, env={**settings, **extra}
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        # A worker that is asked to end ends its executors.
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(log: Path, pattern: re.Pattern[str]) -> str:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        if found := pattern.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"{log} does not say {pattern.pattern}: {log.read_text()[-2000:]}")
