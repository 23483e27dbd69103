"""Fixtures that several folders use: a real MLflow server, one per test session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mlflow_server import mlflow_server


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture
def unused_url() -> str:
    """An address where nothing listens."""
    return "http://127.0.0.1:9"


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parents[1]
