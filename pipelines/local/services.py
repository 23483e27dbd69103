"""Starts MLflow and Airflow on this machine, waits until they answer, and ends them for certain.

Not for what is run in them (`retrain`), nor for production. Tested in
tests/pipelines/local/test_real_airflow.py and test_real_faults.py.
"""

import contextlib
import importlib.metadata
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from pipelines import storage
from pipelines.contracts.errors import HomefeedError
from pipelines.local import processes
from pipelines.local.airflow_config import write_airflow_config
from pipelines.local.layout import AIRFLOW_PORT, MLFLOW_PORT, LocalHome, claim_port
from pipelines.local.processes import Service

START_TIMEOUT_S = 180.0
"""Seconds to wait for a service: a first start on a cold, busy machine took 40 s."""

Say = Callable[[str], None]


class ServiceError(HomefeedError):
    """A local service did not start or ended early; its log says why."""

    exit_code = 69


class Ports(NamedTuple):
    """The ports of 127.0.0.1 that the services listen on."""

    airflow: int
    mlflow: int


@dataclass(frozen=True)
class RunningServices:
    """The services that are up, their addresses, and the folder that they write to."""

    home: LocalHome
    airflow_url: str
    mlflow_url: str
    services: tuple[Service, ...]

    def require_alive(self) -> None:
        """Raise if a service has ended.

        Raises:
            ServiceError: with the end of its log.
        """
        for service in self.services:
            if (code := service.process.poll()) is not None:
                raise _failed(service, f"ended with exit code {code}")


@contextlib.contextmanager
def running(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str] | None = None
) -> Iterator[RunningServices]:
    """Keep MLflow and Airflow up while the block runs.

    Every process that is started here, and every process that those start, ends with the block: on
    success, on an error, on Ctrl-C, on SIGTERM, and also when this process is killed.

    Args:
        home: folder of everything that the services write.
        dags: folder with the DAG file.
        say: is called with each line that a person should read.
        extra: environment variables for the services, e.g. HOMEFEED_EVENT_LOG.

    Raises:
        RunInProgressError: services of this home are running.
        ServiceError: a service does not come up.
    """
    home.create()
    with storage.exclusive_lock(str(home.path / "services"), "a local Airflow of this folder"):
        if num_left := processes.sweep(f"{home.path}#"):
            say(f"ended {num_left} processes that an interrupted start had left")
        # The claims outlive the sweep: a server that is about to bind must not meet another's.
        with claim_port(AIRFLOW_PORT) as airflow, claim_port(MLFLOW_PORT) as mlflow:
            mark = processes.new_mark(home.path)
            watch = processes.start_watch(mark)
            try:
                with _sigterm_as_exit():
                    yield _start_all(home, dags, say, extra or {}, mark, Ports(airflow, mlflow))
            finally:
                processes.sweep(mark)
                watch.communicate()  # closes its standard input, and waits


def _start_all(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str], mark: str, ports: Ports
) -> RunningServices:
    for name, wanted, port in (
        ("Airflow", AIRFLOW_PORT, ports.airflow),
        ("MLflow", MLFLOW_PORT, ports.mlflow),
    ):
        if port != wanted:
            say(f"port {wanted} is taken; {name} uses {port}")
    airflow_url, mlflow_url = (f"http://127.0.0.1:{port}" for port in ports)
    environment = make_environment(home, airflow_url, mlflow_url, extra)
    write_airflow_config(home, dags, ports.airflow)
    home.password()

    def start(name: str, *command: str) -> Service:
        return processes.start(name, [sys.executable, *command], environment, mark, home.logs)

    started = time.monotonic()
    say("starting MLflow and Airflow ...")
    mlflow = start("mlflow", *_mlflow_command(home, ports.mlflow))
    _migrate(home, start)
    # No triggerer is started, because no operator of the bash runner defers.
    airflow = [
        start("api-server", "-m", "airflow", "api-server"),
        start("scheduler", "-m", "airflow", "scheduler", "--skip-serve-logs"),
        start("dag-processor", "-m", "airflow", "dag-processor"),
    ]
    found = RunningServices(home, airflow_url, mlflow_url, (mlflow, *airflow))
    _wait_until_up(found, mlflow, f"{mlflow_url}/health")
    parts = ("metadatabase", "scheduler", "dag_processor")
    _wait_until_up(found, airflow[0], f"{airflow_url}/api/v2/monitor/health", parts)
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
        # Without this, setproctitle overwrites the mark by which a process is found and ended.
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


def _wait_until_up(
    found: RunningServices, waited_for: Service, health_url: str, parts: tuple[str, ...] = ()
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_up(health_url, parts):
        found.require_alive()
        if time.monotonic() > deadline:
            raise _failed(waited_for, f"does not answer after {START_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def _failed(service: Service, what: str) -> ServiceError:
    return ServiceError(
        f"{service.name} {what}; the end of {service.log_path}:\n{service.tail()}\n"
        f"Mend what it says, then run the same command again"
    )


def _is_up(health_url: str, parts: tuple[str, ...]) -> bool:
    """Return whether a server answers, and reports a recent heartbeat of each of these parts."""
    try:
        answer = httpx.get(health_url, timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and all(
        answer.json()[part]["status"] == "healthy" for part in parts
    )


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Have SIGTERM unwind the stack as Ctrl-C does, so that the services end with us."""
    former = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
