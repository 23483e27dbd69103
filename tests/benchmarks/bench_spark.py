"""A snapshot by one machine and by a Spark cluster on this machine: time, and peaks of memory.

    python tests/benchmarks/bench_spark.py EVENT_LOG --as-of 2024-02-10 --recipe world

It needs Java and `pip install -r tests/production/requirements.txt`, starts a master and two
workers by itself, and prints a line of JSON for each build. The peak of an executor is that of its
Java process and its Python together, each with its part of what they share. Both engines must give
one digest. Not part of `make bench`, since it takes a log of one's own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipelines import storage
from pipelines.recipes import make_recipe
from support.runs import make_run
from support.spark_cluster import SparkCluster, environment, spark_cluster

_BUILD = """
import logging, sys
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.snapshot.build import write_snapshot
if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("pipelines").setLevel(logging.INFO)
    print(write_snapshot(ResolvedRun.model_validate_json(open(sys.argv[1]).read())).digest)
"""
_PAUSE_S = 0.2


def main() -> None:
    """Build by each engine in turn, as often as was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("event_log")
    parser.add_argument("--as-of", required=True)
    parser.add_argument("--recipe", default="world")
    parser.add_argument("--num-shards", type=int, default=0, help="The recipe's own where 0.")
    parser.add_argument("--executor-memory", default="1g", help="Of an executor's Java process.")
    parser.add_argument("--engines", nargs="+", default=["local", "spark", "local", "spark"])
    asked = parser.parse_args()
    digests = set()
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        with spark_cluster(Path(folder), {}, worker_memory="8g") as cluster:
            for number, engine in enumerate(asked.engines):
                measured = measure(Path(folder), number, engine, asked, cluster)
                digests.add(measured["digest"])
                sys.stdout.write(f"{json.dumps(measured)}\n")
    if len(digests) != 1:
        sys.exit(f"the engines gave {sorted(digests)}; expected one digest")


def measure(
    folder: Path, number: int, engine: str, asked: argparse.Namespace, cluster: SparkCluster
) -> dict[str, object]:
    """Return what one build in a process of its own took."""
    config = make_recipe(asked.recipe)
    if asked.num_shards:
        changed = config.snapshot.model_copy(update={"num_shards": asked.num_shards})
        config = config.model_copy(update={"snapshot": changed})
    run = make_run(
        folder,
        config,
        datetime.fromisoformat(asked.as_of).replace(tzinfo=UTC),
        event_log_uri=storage.to_uri(asked.event_log),
        workspace_uri=storage.to_uri(folder / f"workspace-{number}"),
    )
    (folder / "run.json").write_text(run.model_dump_json())
    (folder / "build.py").write_text(_BUILD)
    settings = cluster.settings(asked.executor_memory) if engine == "spark" else {}
    began = time.monotonic()
    build = subprocess.Popen(
        [sys.executable, str(folder / "build.py"), str(folder / "run.json")],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(), **settings},
    )
    peaks: dict[str, float] = {}
    here, name = psutil.Process(build.pid), "driver" if engine == "spark" else "process and pool"
    try:
        while build.poll() is None:
            _raise_peak(peaks, name, here)
            for place, executor in enumerate(cluster.executors()):
                _raise_peak(peaks, f"executor {place}", executor)
            time.sleep(_PAUSE_S)
    finally:
        build.kill()
    assert build.returncode == 0 and build.stdout is not None
    wall_s = time.monotonic() - began
    digest = build.stdout.read().strip()
    return {"engine": engine, "wall_s": round(wall_s, 1), "peak_mib": peaks, "digest": digest}


def _raise_peak(peaks: dict[str, float], name: str, process: psutil.Process) -> None:
    """Note the memory of a process with its children, where it is more than before."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_full_info().pss
    except psutil.NoSuchProcess:
        return
    peaks[name] = max(peaks.get(name, 0.0), round(total / 2**20, 1))


if __name__ == "__main__":
    main()
