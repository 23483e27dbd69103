"""One Spark cluster and one S3 server behind a proxy, for the tests of snapshots by Spark."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.runs import make_run
from support.s3_server import BUCKET, environment, use_s3
from support.spark_cluster import SparkCluster, spark_cluster
from support.worlds import write_planted_world


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


@pytest.fixture
def in_bucket(
    tmp_path: Path, s3_url: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> ResolvedRun:
    """A run over a planted log, all of it in a bucket; the driver goes to it by no proxy."""
    use_s3(s3_url, monkeypatch)
    proxy.mend()
    proxy.met.clear()
    write_planted_world(tmp_path / "event_log", num_days=67)
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    storage.publish_folder(tmp_path / "event_log", f"{bucket}/event_log")
    places = {"event_log_uri": f"{bucket}/event_log", "workspace_uri": f"{bucket}/workspace"}
    return make_run(tmp_path, **places)
