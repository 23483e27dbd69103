"""A real MLflow server on localhost for tests: local artifacts, and SQLite or PostgreSQL."""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from support.serving import Process, free_port

if TYPE_CHECKING:
    from support.database_server import DatabaseServer


@contextlib.contextmanager
def mlflow_server(
    folder: Path, database: "DatabaseServer | None" = None, num_workers: int = 1
) -> Iterator[str]:
    """Start a server, give its URL, and end it by its process id.

    Args:
        folder: Where its artifacts lie, and its database where it is SQLite.
        database: A PostgreSQL server; None: SQLite.
        num_workers: How many processes serve.
    """
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = database.address("mlflow") if database else f"sqlite:///{folder}/mlflow.db"
    command += ["--backend-store-uri", store, "--workers", str(num_workers)]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"]
    # Jobs of MLflow's own, which nothing here asks for, would be eight processes more.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if database is not None:
        environment["PGPASSFILE"] = str(database.password_file("mlflow", folder))
    url = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    server = Process(command, log, f"{url}/health", {"env": environment})
    with server.running():
        yield url


def copy_database(source: Path, target: Path) -> None:
    """Copy a store in one transaction, also into one that is open elsewhere."""
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30)) as this,
        contextlib.closing(sqlite3.connect(target, timeout=30)) as that,
    ):
        this.backup(that)
