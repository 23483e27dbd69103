"""Fixtures that several folders use, and which tests `make test` runs in one process."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from pipelines.contracts import mlflow_errors
from support.database_server import database_server
from support.mlflow_server import mlflow_server
from support.s3_server import BUCKET, s3_server, use_s3

pytest_plugins = ("support.plain_gate",)
SHARED_FOLDERS = (
    "tests/pipelines/local",
    "tests/training",
    "tests/production/celery",
    "tests/production/postgres",
    "tests/production/spark",
)
"""Their files share what takes long to make: a running Airflow, a trained model."""


LONGEST_FIRST = (
    "tests/production/celery",
    "tests/production/s3/test_faults_on_the_way.py",
    "tests/training",
    "tests/pipelines/local",
    "tests/production/s3",
    "tests/production/kubernetes",
    "tests/production/spark",
    "tests/pipelines/stages/test_faults_in_cycles.py",
    "tests/pipelines/registry/test_killed_moves.py",
    "tests/pipelines/stages",
    "tests/pipelines/reproduction",
    "tests/pipelines/registry",
    "tests/pipelines/alerts",
)
"""What takes minutes is begun first, so that no process is left alone with it at the end."""
SLOW = (
    "tests/training/launch",
    "tests/training/bundle/test_serving_check.py",
    "tests/pipelines/registry/test_killed_moves.py",
    "tests/pipelines/registry/test_moves_in_faults.py",
    "tests/pipelines/sources/completejourney/test_adapter.py",
)
"""Start trainings or processes that are killed by the dozen, or write the whole sample's
log; for `make test-all`."""
SERVERS = {"tracking_uri", "s3_url", "database_uri", "lab", "retrained"}
"""Fixtures that start a server; a test that takes one is a test of services."""


class ByFolder(LoadScopeScheduling):
    """Gives a file's tests to one process, and those of a shared folder too."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return next((shared for shared in SHARED_FOLDERS if path.startswith(shared)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    """Let `make test` run some processes, in which no test meets a fixture made twice."""
    return ByFolder(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves out, and put the longest files and folders first."""
    listed = (*SLOW, *LONGEST_FIRST, *SHARED_FOLDERS)
    if gone := [path for path in listed if not (config.rootpath / path).exists()]:
        raise pytest.UsageError(f"tests/conftest.py lists {gone}, which are not there")
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("services")

    def rank(item: pytest.Item) -> int:
        places = (n for n, path in enumerate(LONGEST_FIRST) if item.nodeid.startswith(path))
        return next(places, len(LONGEST_FIRST))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def brief_waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask an MLflow that is not there as often as ever, and at once: 4 s each went by on that."""
    if request.node.get_closest_marker("services") is None:
        monkeypatch.setattr(mlflow_errors, "WAITS_S", (0.01,) * len(mlflow_errors.WAITS_S))


@pytest.fixture
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request to a server that is not there fail at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


@pytest.fixture(scope="session", autouse=True)
def no_stray_database() -> Iterator[None]:
    """Find the test, or the product, that left it to MLflow where things are kept."""
    yield
    stray = Path("mlflow.db").absolute()
    assert not stray.exists(), (
        f"{stray} was made by MLflow, which somebody gave no address; remove it"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make test-all` run tests over another database, and `make test` one smoke cycle."""
    parser.addoption(
        "--mlflow-database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what the MLflow server of the tests keeps its tables in",
    )
    parser.addoption(
        "--smoke-cycles",
        type=int,
        choices=(1, 2),
        default=2,
        help="how many cycles `homefeed local retrain` runs in a real Airflow; 1 in `make test`",
    )


@pytest.fixture(scope="session")
def tracking_uri(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    is_postgresql = pytestconfig.getoption("--mlflow-database") == "postgresql"
    with (
        database_server() if is_postgresql else contextlib.nullcontext() as database,
        mlflow_server(tmp_path_factory.mktemp("mlflow"), database) as uri,
    ):
        yield uri


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def s3_uri(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of a real S3 server that nobody else uses; the environment leads to the server."""
    use_s3(s3_url, monkeypatch)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def unused_url() -> str:
    """An address where nothing listens."""
    return "http://127.0.0.1:9"


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parents[1]
