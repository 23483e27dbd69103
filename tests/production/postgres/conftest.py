"""One MLflow server on PostgreSQL, served by two processes as in production."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.database_server import DatabaseServer
from support.desk import Desk
from support.mlflow_server import mlflow_server


@pytest.fixture(scope="session")
def registry_url(
    tmp_path_factory: pytest.TempPathFactory, database: DatabaseServer
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow-on-postgresql")
    with mlflow_server(folder, database, num_workers=2) as url:
        yield url


@pytest.fixture
def desk(tmp_path: Path, registry_url: str) -> Desk:
    """A registered model of its own."""
    return Desk(tmp_path, registry_url)
