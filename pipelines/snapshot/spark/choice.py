"""The room's door: the cluster that builds a snapshot, or none where this machine does.

It is the deployment that chooses, and neither the recipe nor the run: the bytes are the same, so a
cycle that was begun here can be ended there. Nothing of Spark is imported where it is not chosen.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.snapshot.spark.cluster import Cluster


@contextlib.contextmanager
def chosen_cluster(snapshots_uri: str, scratch: Path) -> Iterator["Cluster | None"]:
    """Give a connection to Spark if HOMEFEED_SNAPSHOT_ENGINE says so, else None.

    Args:
        snapshots_uri: where snapshots lie.
        scratch: the driver's scratch folder.

    Raises:
        ConfigurationError: Spark is chosen, and PySpark or Java is missing.
        SparkUnavailableError: the cluster is out of reach.
    """
    settings = Settings()
    if settings.snapshot_engine == "local":
        yield None
        return
    from pipelines.snapshot.spark.cluster import Cluster
    from pipelines.snapshot.spark.placing import place_for_shards
    from pipelines.snapshot.spark.session import open_spark

    with open_spark(settings) as context, place_for_shards(snapshots_uri, scratch) as place:
        yield Cluster(context, place, scratch)
