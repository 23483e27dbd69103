"""Part `spark_sizes` of bench_snapshot: growing logs by a Spark cluster on this machine.

    snapshot_50m_spark   5 M, 20 M and 50 M actions: linear time within a budget of each process

A standalone master and two workers with an executor of one core each. The smallest log is built by
one machine too, and both must give one digest. The time is that of the snapshot, without the start
of the driver's Java, which is told besides: it is the same for every size and would hide growth.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import snapshot_peers as peers
from record import Row, row
from sample import make_run
from spark_builds import Build, build, require_pyspark
from synthetic import SEED, write_log

from pipelines import storage
from pipelines.contracts.config import RunConfig
from support.spark_cluster import SparkCluster, spark_cluster

EXECUTOR_MEMORY = "1g"
"""Of an executor's Java process; its Python comes besides."""
GOAL_LINEAR, BUDGET_GIB = 1.1, 3.0


def measure_sizes(sizes: Sequence[int], config_of: Callable[[int], RunConfig], folder: Path) -> Row:
    """Build snapshots of growing logs; the figure is the largest one's rows per second.

    Args:
        sizes: millions of actions, growing.
        config_of: the recipe for so many millions.
        folder: for logs and everything else; what is made there is deleted.

    Raises:
        RuntimeError: PySpark is missing, a build failed, or the engines disagree.
    """
    require_pyspark()
    folder.mkdir(parents=True, exist_ok=True)
    per_row, said = [], []
    with tempfile.TemporaryDirectory(dir=folder.resolve()) as name:
        place = Path(name)
        # Beside the logs and not in /tmp, because the shuffle is as large as they are.
        local_dirs = {"SPARK_LOCAL_DIRS": str(place / "shuffle")}
        with spark_cluster(place, local_dirs, worker_memory="8g") as cluster:
            settings = cluster.settings(EXECUTOR_MEMORY) | local_dirs
            for millions in sizes:
                log = place / "log"
                num_rows = write_log(log, peers.shape_of(millions * 1_000_000))
                config = config_of(millions)
                if millions == sizes[0]:
                    digest = _build(place, log, config, cluster, {}).digest
                found = _build(place, log, config, cluster, settings)
                if millions == sizes[0] and found.digest != digest:
                    raise RuntimeError(f"Spark gave {found.digest}, one machine {digest}")
                per_row.append(found.seconds / num_rows)
                said.append(_told(millions, found))
    return row(
        f"snapshot_{sizes[-1]}m_spark",
        1 / per_row[-1],
        "rows/s",
        ratio=per_row[-1] / per_row[0],
        peer=f"the time of a row at {sizes[0]} M actions",
        spread="one run of each size",
        rows=num_rows,
        seed=str(SEED),
        note=f"{'; '.join(said)}; a master and two workers on this machine, an executor of one "
        f"core and {EXECUTOR_MEMORY} of Java on each; goals: ratio <= {GOAL_LINEAR}, driver and "
        f"each executor with its Python <= {BUDGET_GIB:g} GiB, with their part of mapped files; "
        f"the digest at {sizes[0]} M is that of one machine",
    )


def _build(
    place: Path, log: Path, config: RunConfig, cluster: SparkCluster, settings: dict[str, str]
) -> Build:
    """Build one snapshot in an empty workspace, which is deleted afterwards."""
    workspace = place / "workspace"
    run = make_run(config, peers.GENERATED_AS_OF, workspace, storage.to_uri(log))
    try:
        return build(place, run, cluster, settings)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _told(millions: int, found: Build) -> str:
    """Return one size's part of the note."""
    peaks = {name: f"{mib / 1024:.2f}" for name, mib in sorted(found.peaks_mib.items())}
    driver = peaks.pop("driver")
    return (
        f"{millions} M actions: {found.seconds:.1f} s and {found.start_s:.1f} s until Java stood, "
        f"driver {driver} GiB, executors {' and '.join(peaks.values())} GiB"
    )
