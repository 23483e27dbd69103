"""Starts MLflow and Airflow on this machine, waits until they answer, and ends them for certain.

Not for what is run in them (`retrain`), nor for production (`docker/`).
"""

import contextlib
import importlib.metadata
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx

from pipelines import storage
from pipelines.contracts.errors import HomefeedError
from pipelines.local import processes
from pipelines.local.airflow_config import write_airflow_config
from pipelines.local.layout import AIRFLOW_PORT, MLFLOW_PORT, LocalHome, choose_port
from pipelines.local.processes import Service

log = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0
"""A first start on a cold, busy machine took 40 s; beyond this it will not come."""

Say = Callable[[str], None]


class ServiceError(HomefeedError):
    """A local service did not start or ended early; its log says why."""

    exit_code = 69


@dataclass(frozen=True)
class RunningServices:
    """Addresses of the services, and what is needed to use them."""

    home: LocalHome
    airflow_url: str
    mlflow_url: str
    environment: Mapping[str, str]
    services: tuple[Service, ...]

    def require_alive(self) -> None:
        """Raise if a service has ended.

        Raises:
            ServiceError: with the end of its log.
        """
        for service in self.services:
            _require_running(service)


@contextlib.contextmanager
def running(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str] | None = None
) -> Iterator[RunningServices]:
    """Keep MLflow and Airflow up for the time being.

    Everything started, and everything that started, ends with the block: on success, on an error,
    on Ctrl-C, on SIGTERM, and also when this process is killed.

    Args:
        home: folder of everything.
        dags: folder with the DAG file.
        say: takes a line for people.
        extra: environment variables for the services, e.g. HOMEFEED_EVENT_LOG.

    Raises:
        RunInProgressError: services of this home are running.
        ServiceError: a service does not come up.
    """
    home.create()
    with storage.exclusive_lock(str(home.path / "services"), "a local Airflow of this folder"):
        if num_left := processes.sweep(f"{home.path}#"):
            say(f"ended {num_left} processes that an interrupted start had left")
        mark = processes.new_mark(home.path)
        watch = processes.start_watch(mark)
        try:
            with _sigterm_as_exit():
                yield _start_all(home, dags, say, extra or {}, mark)
        finally:
            processes.sweep(mark)
            if watch.stdin is not None:
                watch.stdin.close()
            watch.wait()


def _start_all(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str], mark: str
) -> RunningServices:
    airflow_port, mlflow_port = choose_port(AIRFLOW_PORT), choose_port(MLFLOW_PORT)
    for name, wanted, port in (
        ("Airflow", AIRFLOW_PORT, airflow_port),
        ("MLflow", MLFLOW_PORT, mlflow_port),
    ):
        if port != wanted:
            say(f"port {wanted} is taken; {name} uses {port}")
    airflow_url, mlflow_url = (f"http://127.0.0.1:{p}" for p in (airflow_port, mlflow_port))
    environment = make_environment(home, airflow_url, mlflow_url, extra)
    write_airflow_config(home, dags, airflow_port)
    home.password()

    def start(name: str, *command: str) -> Service:
        return processes.start(name, [sys.executable, *command], environment, mark, home.logs)

    started = time.monotonic()
    say("starting MLflow and Airflow ...")
    mlflow = start("mlflow", *_mlflow_command(home, mlflow_port))
    _migrate(home, start)
    # Without a triggerer: no operator of the bash runner defers.
    airflow = [
        start("api-server", "-m", "airflow", "api-server"),
        start("scheduler", "-m", "airflow", "scheduler", "--skip-serve-logs"),
        start("dag-processor", "-m", "airflow", "dag-processor"),
    ]
    found = RunningServices(home, airflow_url, mlflow_url, environment, (mlflow, *airflow))
    _wait_until(found, mlflow, lambda: _answers(f"{mlflow_url}/health"))
    _wait_until(found, airflow[0], lambda: _is_airflow_healthy(airflow_url))
    say(f"they answer after {time.monotonic() - started:.0f} s")
    return found


def make_environment(
    home: LocalHome, airflow_url: str, mlflow_url: str, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the services, and of every stage that they run.

    Settings of another Airflow in the caller's shell are left out; connections are kept, since
    alert transports need them.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW__", "PYTHON"))}
    return {
        **inherited,
        "AIRFLOW_HOME": str(home.airflow),
        "HOMEFEED_HOME": str(home.path),
        "HOMEFEED_TRACKING_URI": mlflow_url,
        "HOMEFEED_AIRFLOW_URL": airflow_url,
        "HOMEFEED_COMMAND": f"{shlex.quote(sys.executable)} -m pipelines.cli",
        # setproctitle would overwrite the mark by which a process is found and ended
        "SPT_NOENV": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        # A proxy must not come between services of one machine.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        **extra,
    }


def _mlflow_command(home: LocalHome, port: int) -> list[str]:
    return [
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{home.mlflow / 'mlflow.db'}"),
        *("--serve-artifacts", "--artifacts-destination", str(home.mlflow / "artifacts")),
    ]


def _migrate(home: LocalHome, start: Callable[..., Service]) -> None:
    """Make or upgrade Airflow's database; once per Airflow version, as it takes some seconds."""
    version = importlib.metadata.version("apache-airflow")
    done = home.airflow / f"migrated-{version}"
    if done.exists() and (home.airflow / "airflow.db").exists():
        return
    service = start("migrate", "-m", "airflow", "db", "migrate")
    try:
        code = service.process.wait(START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _failed(service, f"did not end within {START_TIMEOUT_S:.0f} s") from None
    if code != 0:
        raise _failed(service, f"ended with exit code {code}")
    done.touch()


def _wait_until(found: RunningServices, waited_for: Service, is_up: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_up():
        found.require_alive()
        if time.monotonic() > deadline:
            raise _failed(waited_for, f"does not answer after {START_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def _require_running(service: Service) -> None:
    code = service.process.poll()
    if code is not None:
        raise _failed(service, f"ended with exit code {code}")


def _failed(service: Service, what: str) -> ServiceError:
    return ServiceError(
        f"{service.name} {what}; the end of {service.log_path}:\n{service.tail()}\n"
        f"Mend what it says, then run the same command again"
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _is_airflow_healthy(airflow_url: str) -> bool:
    """Return whether database, scheduler and DAG processor all report a recent heartbeat."""
    try:
        answer = httpx.get(f"{airflow_url}/api/v2/monitor/health", timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    parts = answer.json()
    return all(
        parts[name]["status"] == "healthy"
        for name in ("metadatabase", "scheduler", "dag_processor")
    )


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Have SIGTERM unwind the stack as Ctrl-C does, so that the services end with us."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
