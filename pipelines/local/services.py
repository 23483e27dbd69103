"""Starts MLflow and Airflow on this machine, waits until they answer, and ends them for certain.

Where one of them ends, the rest is ended, too: the same command goes on from what had ended well.
Not for what is run in them (`retrain`), nor for production. Tested in
tests/pipelines/local/test_services.py, test_real_airflow.py and test_real_faults.py.
"""

import contextlib
import importlib.metadata
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from pipelines import storage
from pipelines.contracts.errors import HomefeedError
from pipelines.local import processes
from pipelines.local.home import (
    LocalHome,
    Ports,
    choose_ports,
    write_airflow_config,
)
from pipelines.local.processes import Service

AIRFLOW_HEALTH, MLFLOW_HEALTH = "/api/v2/monitor/health", "/health"
START_TIMEOUT_S = 180.0
"""Seconds to wait for a service: a first start on a cold, busy machine took 40 s."""
PLUGIN_FOLDER = Path(__file__).parent / "mlflow_plugin"
"""What the server's PYTHONPATH must name, so that it finds the app `own-origins`."""

Say = Callable[[str], None]


class ServiceError(HomefeedError):
    """A local service did not start or ended early; its log says why."""

    exit_code = 69


def wait_until_up(
    service: Service,
    address: str,
    parts: Iterable[str],
    needed: Iterable[Service],
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Wait until a service answers at its page of health.

    The `parts` must be healthy by the page's JSON, e.g. by a recent heartbeat, and no service that
    is `needed` may end meanwhile.

    Raises:
        ServiceError: one ended, or it does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        require_running(*needed)
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(address, timeout=5, trust_env=False)
            if answer.is_success:
                if all(answer.json()[part]["status"] == "healthy" for part in parts):
                    return
        if time.monotonic() > deadline:
            raise failed(service, f"does not answer after {timeout_s:.0f} s")
        time.sleep(0.2)


def require_running(*services: Service) -> None:
    """Raise if a service has ended.

    Raises:
        ServiceError: with the end of its log.
    """
    for service in services:
        if (code := service.process.poll()) is not None:
            raise failed(service, f"ended with exit code {code}")


def failed(service: Service, what: str) -> ServiceError:
    """Return the error that says what a service did, with the end of its log."""
    return ServiceError(
        f"{service.name} {what}; the end of {service.log_path}:\n{service.tail()}\n"
        f"Mend what it says, then run the same command again"
    )


def mlflow_arguments(home: LocalHome, ports: Ports) -> list[str]:
    """Return the arguments of Python that run the server, for its own pages only.

    Its environment needs `PLUGIN_FOLDER` as PYTHONPATH.
    """
    hosts = [f"{name}:{ports.mlflow}" for name in ("127.0.0.1", "localhost")]
    return [
        *("-m", "mlflow", "server", "--app-name", "own-origins", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(ports.mlflow)),
        *("--backend-store-uri", f"sqlite:///{home.mlflow_database}"),
        # A URI, so that "#" and "%" in the path mean themselves.
        *("--serve-artifacts", "--artifacts-destination", (home.mlflow / "artifacts").as_uri()),
        *("--allowed-hosts", ",".join(hosts)),
        *("--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)),
    ]


@dataclass(frozen=True)
class RunningServices:
    """The services that are up, their ports, and the folder that they write to."""

    home: LocalHome
    ports: Ports
    services: tuple[Service, ...]

    def look_after(self) -> None:
        """Raise as `require_running` does, if a service has ended."""
        require_running(*self.services)


@contextlib.contextmanager
def running(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str] | None = None
) -> Iterator[RunningServices]:
    """Keep MLflow and Airflow up while the block runs.

    Every process that is started here, and every process that those start, ends with the block: on
    success, on an error, on Ctrl-C, on SIGTERM, and also when this process is killed.

    They get `extra` environment variables, e.g. HOMEFEED_EVENT_LOG.

    Raises:
        ConfigurationError: the home folder cannot be used.
        RunInProgressError: services of this home are running.
        ServiceError: a service does not come up.
    """
    home.create()
    with storage.exclusive_lock(str(home.lock.with_suffix("")), "a local Airflow of this folder"):
        if num_left := processes.sweep(processes.marks_of(home.path)):
            say(f"ended {num_left} processes that an interrupted start had left")
        mark, ports = processes.new_mark(home.path), choose_ports(home)
        watch = processes.start_watch(mark)
        try:
            yield _start_all(home, dags, say, extra or {}, mark, ports)
        finally:
            say(f"ending Airflow and MLflow, which takes up to {processes.GRACE_S:g} s")
            processes.sweep(mark)
            watch.communicate()  # closes its standard input, and waits


def _start_all(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str], mark: str, ports: Ports
) -> RunningServices:
    environment = make_environment(home, ports, extra)
    write_airflow_config(home, dags, ports.airflow)
    home.password()  # is made before Airflow would make one

    def start(name: str, *arguments: str, **more: str) -> Service:
        command = [sys.executable, *(arguments or ("-m", "airflow", name))]
        return processes.start(name, command, environment | more, mark, home.logs)

    started = time.monotonic()
    say("starting MLflow and Airflow ...")
    mlflow = start("mlflow", *mlflow_arguments(home, ports), PYTHONPATH=str(PLUGIN_FOLDER))
    done = home.airflow / f"migrated-{importlib.metadata.version('apache-airflow')}"
    if not (done.exists() and home.airflow_database.exists()):
        migrate = start("migrate", "-m", "airflow", "db", "migrate")
        try:
            code = migrate.process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise failed(migrate, f"did not end within {START_TIMEOUT_S:.0f} s") from None
        if code != 0:
            raise failed(migrate, f"ended with exit code {code}")
        done.touch()
    # No triggerer is started, because no operator of the bash runner defers.
    first = (mlflow, start("api-server"), start("dag-processor"))
    # A scheduler goes on at once with what an interrupted run has left. A task that cannot reach
    # the api-server has failed, so such a run would lose its attempts before that one answers.
    health = f"{ports.airflow_url}{AIRFLOW_HEALTH}"
    wait_until_up(first[1], health, ("metadatabase",), first)
    services = (*first, start("scheduler", "-m", "airflow", "scheduler", "--skip-serve-logs"))
    wait_until_up(mlflow, f"{ports.mlflow_url}{MLFLOW_HEALTH}", (), services)
    wait_until_up(first[1], health, ("metadatabase", "scheduler", "dag_processor"), services)
    say(f"they answer after {time.monotonic() - started:.0f} s")
    return RunningServices(home, ports, services)


def make_environment(home: LocalHome, ports: Ports, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the services, and of every stage that they run.

    Settings of another Airflow in the caller's shell are left out; connections are kept, since
    alert transports need them.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW__", "PYTHON"))}
    return {
        **inherited,
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "60",
        "HOMEFEED_HOME": str(home.path),
        "HOMEFEED_TRACKING_URI": ports.mlflow_url,
        "HOMEFEED_AIRFLOW_URL": ports.airflow_url,
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
