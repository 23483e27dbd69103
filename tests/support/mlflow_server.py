"""A real MLflow server on localhost for tests: local artifacts, and SQLite or PostgreSQL."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from support.database_server import DatabaseServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:  # a busy machine; how MLflow ends is not tested here
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"MLflow ended with {server.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"MLflow did not answer at {url}: {log.read_text()[-2000:]}")
