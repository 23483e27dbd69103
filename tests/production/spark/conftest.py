"""One Spark cluster and one S3 server behind a proxy, for the tests of snapshots by Spark."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.s3_server import environment
from support.spark_cluster import SparkCluster, spark_cluster


@pytest.fixture(scope="session")
def proxy(s3_url: str) -> Iterator[FaultyProxy]:
    """What stands between the executors and the object store."""
    with faulty_proxy(s3_url) as made:
        yield made


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, proxy: FaultyProxy) -> Iterator[SparkCluster]:
    """A master and two workers, whose executors find the object store behind the proxy."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    with spark_cluster(folder, environment(proxy.url)) as made:
        yield made


@pytest.fixture(scope="session")
def session(cluster: SparkCluster) -> Iterator[None]:
    """An application of this process on the cluster, which many builds use."""
    from pipelines.settings import Settings
    from pipelines.snapshot.spark.session import open_spark

    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.settings().items():
            patch.setenv(name, value)
        settings = Settings()
    with open_spark(settings):
        yield


@pytest.fixture
def by_spark(
    session: None, cluster: SparkCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let what this process builds be built on the cluster."""
    for name, value in cluster.settings().items():
        monkeypatch.setenv(name, value)
    yield
