"""Starts MLflow and Airflow on this machine, waits until they answer, and ends them for certain.

MLflow is started again when it ends: a training goes on without it meanwhile. Without a part of
Airflow nothing goes on. Not for what is run in them (`retrain`), nor for production. Tested in
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
from typing import NamedTuple

import httpx

from pipelines import storage
from pipelines.contracts.errors import HomefeedError
from pipelines.local import processes
from pipelines.local.home import (
    LocalHome,
    Ports,
    choose_port,
    claim_ports,
    last_ports,
    sqlite_uri,
    write_airflow_config,
)
from pipelines.local.processes import Service, end_rest, how_it_ended, is_listening

AIRFLOW_HEALTH = "/api/v2/monitor/health"
START_TIMEOUT_S = 180.0
"""Seconds to wait for a service: a first start on a cold, busy machine took 40 s."""
MAX_RESTARTS = 3
"""So many times MLflow is started again while the services are up; then it is left alone."""

PLUGIN_FOLDER = Path(__file__).parent / "mlflow_plugin"
"""What the server's PYTHONPATH must name, so that it finds the app `own-origins`."""

Say = Callable[[str], None]


class ServiceError(HomefeedError):
    """A local service did not start or ended early; its log says why."""

    exit_code = 69


class HealthPage(NamedTuple):
    """A server's page that says whether it is up."""

    port: int  # of 127.0.0.1
    path: str
    parts: tuple[str, ...] = ()  # in its JSON, whose status must be "healthy"; (): it must answer

    def is_good(self) -> bool:
        """Return whether a server answers, with a recent heartbeat of each of the parts."""
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{self.port}{self.path}", timeout=5, trust_env=False
            )
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and all(
            answer.json()[part]["status"] == "healthy" for part in self.parts
        )


def wait_until_up(
    service: Service,
    page: HealthPage,
    needed: Iterable[Service],
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Wait until a service listens on its port and its page is good.

    Args:
        service: the one that is waited for.
        page: where it answers. Another program's server on that port is not taken for it.
        needed: services that must not end meanwhile.
        timeout_s: how long to wait.

    Raises:
        ServiceError: one ended, it does not answer in time, or another program took its port.
    """
    deadline = time.monotonic() + timeout_s
    while not (is_listening(service, page.port) and page.is_good()):
        if service.process.poll() is not None and choose_port(page.port) != page.port:
            raise ServiceError(
                f"port {page.port} was free, and another program took it while {service.name} "
                f"started; run the same command again: it uses another port"
            )
        require_running(*needed)
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
            raise failed(service, how_it_ended(code))


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
        *("--backend-store-uri", sqlite_uri(home.mlflow_database)),
        # A URI, so that "#" and "%" in the path mean themselves.
        *("--serve-artifacts", "--artifacts-destination", (home.mlflow / "artifacts").as_uri()),
        *("--allowed-hosts", ",".join(hosts)),
        *("--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)),
    ]


@dataclass
class RunningServices:
    """The services that are up, their ports, and the folder that they write to."""

    home: LocalHome
    ports: Ports
    say: Say
    start_mlflow: Callable[[bool], Service]
    """Starts the server; it is told whether the log goes on."""
    mlflow: Service
    airflow: tuple[Service, ...]
    num_restarts: int = 0

    def look_after(self) -> None:
        """Start MLflow again if it has ended, and say so; raise if a part of Airflow has.

        Raises:
            ServiceError: with the end of the log of Airflow's part.
        """
        require_running(*self.airflow)
        code = self.mlflow.process.poll()
        if code is None or self.num_restarts > MAX_RESTARTS:
            return
        # The process that serves is a child, and holds the port where only its parent was killed.
        end_rest(self.mlflow)
        self.num_restarts += 1
        ended = f"MLflow {how_it_ended(code)}"
        if self.num_restarts > MAX_RESTARTS:
            self.say(
                f"{ended} for the {self.num_restarts}th time, and is not started again; Airflow "
                f"goes on, but stages that need MLflow will fail; mend what "
                f"{self.mlflow.log_path} says, then end this command and run it again"
            )
            return
        self.say(f"{ended}; starting it again, and Airflow goes on")
        self.mlflow = self.start_mlflow(True)


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
        ConfigurationError: the home folder cannot be used.
        RunInProgressError: services of this home are running.
        ServiceError: a service does not come up.
    """
    home.create()
    with storage.exclusive_lock(str(home.lock.with_suffix("")), "a local Airflow of this folder"):
        if num_left := processes.sweep(processes.marks_of(home.path)):
            say(f"ended {num_left} processes that an interrupted start had left")
        wanted = last_ports(home)
        # The claims outlive the sweep: a server that is about to bind must not meet another's.
        with claim_ports(home) as ports:
            for name in ("airflow", "mlflow"):
                if (now := getattr(ports, name)) != (before := getattr(wanted, name)):
                    say(f"port {before} is taken; the server of {name} uses {now}")
            mark = processes.new_mark(home.path)
            watch = processes.start_watch(mark)
            try:
                yield _start_all(home, dags, say, extra or {}, mark, ports)
            finally:
                if num := len(processes.marked(mark)):
                    say(
                        f"waiting for {num} process(es) of Airflow and MLflow to end; what has not "
                        f"ended after {processes.GRACE_S:g} s is killed"
                    )
                processes.sweep(mark)
                watch.communicate()  # closes its standard input, and waits


def _start_all(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str], mark: str, ports: Ports
) -> RunningServices:
    environment = make_environment(home, ports.airflow_url, ports.mlflow_url, extra)
    write_airflow_config(home, dags, ports.airflow)
    home.password()  # is made before Airflow would make one

    def start(name: str, *arguments: str) -> Service:
        command = [sys.executable, "-m", "airflow", *arguments]
        return processes.start(name, command, environment, mark, home.logs)

    def start_mlflow(is_again: bool) -> Service:
        command = [sys.executable, *mlflow_arguments(home, ports)]
        its_own = environment | {"PYTHONPATH": str(PLUGIN_FOLDER)}
        return processes.start("mlflow", command, its_own, mark, home.logs, is_again)

    started = time.monotonic()
    say("starting MLflow and Airflow ...")
    mlflow = start_mlflow(False)
    done = home.airflow / f"migrated-{importlib.metadata.version('apache-airflow')}"
    if not (done.exists() and home.airflow_database.stat().st_size > 0):
        migrate = start("migrate", "db", "migrate")
        try:
            code = migrate.process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise failed(migrate, f"did not end within {START_TIMEOUT_S:.0f} s") from None
        if code != 0:
            raise failed(migrate, how_it_ended(code))
        done.touch()
    # No triggerer is started, because no operator of the bash runner defers.
    first = (start("api-server", "api-server"), start("dag-processor", "dag-processor"))
    # A scheduler goes on at once with what an interrupted run has left. A task that cannot reach
    # the api-server has failed, so such a run would lose its attempts before that one answers.
    page = HealthPage(ports.airflow, AIRFLOW_HEALTH, ("metadatabase",))
    wait_until_up(first[0], page, (mlflow, *first))
    airflow = (*first, start("scheduler", "scheduler", "--skip-serve-logs"))
    wait_until_up(mlflow, HealthPage(ports.mlflow, "/health"), (mlflow, *airflow))
    page = page._replace(parts=("metadatabase", "scheduler", "dag_processor"))
    wait_until_up(airflow[0], page, (mlflow, *airflow))
    say(f"they answer after {time.monotonic() - started:.0f} s")
    return RunningServices(home, ports, say, start_mlflow, mlflow, airflow)


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
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "60",
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
