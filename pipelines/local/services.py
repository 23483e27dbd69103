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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pipelines import storage
from pipelines.local import processes
from pipelines.local.home import LocalHome, Ports, ServiceError, choose_ports, write_airflow_config
from pipelines.local.processes import Service

AIRFLOW_HEALTH, MLFLOW_HEALTH = "/api/v2/monitor/health", "/health"
START_TIMEOUT_S = 180.0
"""Seconds to wait for a service: a first start on a cold, busy machine took 40 s."""
PLUGIN_FOLDER = Path(__file__).parent / "mlflow_plugin"
"""What the server's PYTHONPATH must name, so that it finds the app `own-origins`."""
PATIENCE = {
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "60",
    # With Airflow's own 3, an api-server that is away for a minute ends what runs.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
}

Say = Callable[[str], None]


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


@dataclass
class RunningServices:
    """The services of one start by name, their ports, and the folder that they write to."""

    home: LocalHome
    ports: Ports
    environment: Mapping[str, str]
    mark: str
    services: dict[str, Service] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> Service:
        """Start a service: Python with these arguments."""
        own = {"PYTHONPATH": str(PLUGIN_FOLDER)} if name == "mlflow" else {}
        command, environment = [sys.executable, *arguments], {**self.environment, **own}
        service = processes.start(name, command, environment, self.mark, self.home.logs)
        self.services[name] = service
        return service

    def migrate(self) -> None:
        """Make Airflow's database, or bring it to the version of the Airflow that is installed.

        Raises:
            ServiceError: it failed, or takes too long.
        """
        migrate = self.start("migrate", "-m", "airflow", "db", "migrate")
        with contextlib.suppress(subprocess.TimeoutExpired):
            migrate.process.wait(START_TIMEOUT_S)
        if migrate.process.poll() != 0:
            raise failed(migrate, f"ended with {migrate.process.poll()}; expected 0 in time")
        del self.services["migrate"]

    def look_after(self) -> None:
        """Raise if a service has ended.

        Raises:
            ServiceError: with the end of its log.
        """
        for service in self.services.values():
            if (code := service.process.poll()) is not None:
                raise failed(service, f"ended with exit code {code}")

    def wait_for(self, name: str, *parts: str) -> None:
        """Wait until MLflow or the api-server answers, and its parts are healthy by what it says.

        Raises:
            ServiceError: a service ended, or this one does not answer in time.
        """
        is_mlflow = name == "mlflow"
        url = self.ports.mlflow_url if is_mlflow else self.ports.airflow_url
        address = url + (MLFLOW_HEALTH if is_mlflow else AIRFLOW_HEALTH)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            self.look_after()
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(address, timeout=5, trust_env=False)
                if answer.is_success:
                    if all(answer.json()[part]["status"] == "healthy" for part in parts):
                        return
            if time.monotonic() > deadline:
                raise failed(self.services[name], f"does not answer after {START_TIMEOUT_S:g} s")
            time.sleep(0.2)


def failed(service: Service, what: str) -> ServiceError:
    """Return the error that says what a service did, with the end of its log."""
    return ServiceError(
        f"{service.name} {what}; the end of {service.log_path}:\n{service.tail()}\n"
        f"Mend what it says, then run the same command again"
    )


def start_all(services: RunningServices) -> None:
    """Start MLflow and Airflow on SQLite, and wait until they answer.

    The triggerer has nothing to do under the runner bash; without it Airflow's first page is red.

    Raises:
        ServiceError: one does not come up.
    """
    home = services.home
    services.start("mlflow", *mlflow_arguments(home, services.ports))
    done = home.airflow / f"migrated-{importlib.metadata.version('apache-airflow')}"
    if not (done.exists() and home.airflow_database.exists()):
        services.migrate()
        done.touch()
    for name in ("api-server", "dag-processor"):
        services.start(name, "-m", "airflow", name)
    # A scheduler goes on at once with what an interrupted run has left. A task that cannot reach
    # the api-server has failed, so such a run would lose its attempts before that one answers.
    services.wait_for("api-server", "metadatabase")
    for name in ("scheduler", "triggerer"):
        services.start(name, "-m", "airflow", name, "--skip-serve-logs")
    services.wait_for("mlflow")
    services.wait_for("api-server", "metadatabase", "scheduler", "dag_processor")


@contextlib.contextmanager
def running(
    home: LocalHome,
    dags: Path,
    say: Say,
    extra: Mapping[str, str] | None = None,
    begin: Callable[[RunningServices], None] = start_all,
) -> Iterator[RunningServices]:
    """Keep MLflow and Airflow up while the block runs.

    Every process that is started here, and every process that those start, ends with the block: on
    success, on an error, on Ctrl-C, on SIGTERM, and also when this process is killed.

    They, and every stage that they run, get `extra` environment variables, e.g. HOMEFEED_EVENT_LOG.
    Settings of another Airflow in the caller's shell are left out; connections are kept, since
    alert transports need them. `begin` starts them.

    Raises:
        ConfigurationError: the home folder cannot be used.
        RunInProgressError: services of this home are running.
        ServiceError: a service does not come up.
    """
    home.create()
    with storage.exclusive_lock(str(home.path / "services"), "a local Airflow of this folder"):
        if num_left := processes.sweep(processes.marks_of(home.path)):
            say(f"ended {num_left} processes that an interrupted start had left")
        mark, ports = processes.new_mark(home.path), choose_ports(home)
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW__", "PYTHON"))
        }
        environment = {
            **inherited,
            "AIRFLOW_HOME": str(home.airflow),
            **PATIENCE,
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
            **(extra or {}),
        }
        write_airflow_config(home, dags, ports.airflow)
        home.password()  # is made before Airflow would make one
        services = RunningServices(home, ports, environment, mark)
        watch = processes.start_watch(mark)
        try:
            say("starting MLflow and Airflow ...")
            begin(services)
            yield services
        finally:
            longest = f"{processes.GRACE_S:g} s"
            say(f"ending Airflow and MLflow, up to {longest}; the same command goes on from there")
            processes.sweep(mark)
            watch.communicate()  # closes its standard input, and waits
