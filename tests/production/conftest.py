"""One PostgreSQL, one Redis, and what is planted, for the tests of a production's parts."""

from collections.abc import Iterator

import pytest

from support.airflow_home import use_temporary_airflow_home

use_temporary_airflow_home()

from support.database_server import DatabaseServer, database_server  # noqa: E402 - as above
from support.find_servers import left_out  # noqa: E402 - as above
from support.redis_server import RedisServer, redis_server  # noqa: E402 - as above

collect_ignore = left_out()


@pytest.fixture(scope="session")
def database() -> Iterator[DatabaseServer]:
    """A PostgreSQL server with a database and a user each for Airflow and MLflow."""
    with database_server() as server:
        yield server


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server with a password."""
    with redis_server(tmp_path_factory.mktemp("broker") / "redis") as server:
        yield server
