"""A snapshot by one machine and by a Spark cluster on this machine: time, and peaks of memory.

    python tests/benchmarks/try_spark.py EVENT_LOG --as-of 2024-02-10 --recipe world

It needs Java and `pip install -r tests/production/requirements.txt`, starts a master and two
workers by itself, and prints a line of JSON for each build (`spark_builds.Build`). Both engines
must give one digest. Not part of `make bench`, since it takes a log of one's own.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

# `tests` holds `support`. The root stands beside it, as `tests/pipelines` would hide `pipelines`.
sys.path[:0] = [str(folder) for folder in Path(__file__).parents[1:3]]

from spark_builds import Build, build, require_pyspark  # noqa: E402

from pipelines import storage  # noqa: E402
from pipelines.recipes import make_recipe  # noqa: E402
from support.runs import make_run  # noqa: E402
from support.spark_cluster import SparkCluster, spark_cluster  # noqa: E402


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
    require_pyspark()
    digests = set()
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        with spark_cluster(Path(folder), {}, worker_memory="8g") as cluster:
            for number, engine in enumerate(asked.engines):
                measured = measure(Path(folder), number, engine, asked, cluster)
                digests.add(measured.digest)
                told = {"engine": engine, **dataclasses.asdict(measured)}
                sys.stdout.write(f"{json.dumps(told)}\n")
    if len(digests) != 1:
        sys.exit(f"the engines gave {sorted(digests)}; expected one digest")


def measure(
    folder: Path, number: int, engine: str, asked: argparse.Namespace, cluster: SparkCluster
) -> Build:
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
    settings = cluster.settings(asked.executor_memory) if engine == "spark" else {}
    return build(folder, run, cluster, settings)


if __name__ == "__main__":
    main()
