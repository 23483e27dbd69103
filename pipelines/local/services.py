"""Starts MLflow and Airflow on this machine, and ends them for certain.

Not for whether they answer (`health`), nor for what is run in them (`retrain`), nor for production.
Tested in tests/pipelines/local/test_real_airflow.py and test_real_faults.py.
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
from functools import partial
from pathlib import Path

from pipelines import storage
from pipelines.local import processes
from pipelines.local.airflow_config import write_airflow_config
from pipelines.local.health import (
    START_TIMEOUT_S,
    HealthPage,
    failed,
    require_running,
    wait_until_up,
)
from pipelines.local.layout import LocalHome
from pipelines.local.mlflow_server import PLUGIN_FOLDER, MlflowServer, Say, mlflow_arguments
from pipelines.local.ports import Ports, claim_ports, last_ports
from pipelines.local.processes import Service, how_it_ended

AIRFLOW_HEALTH = "/api/v2/monitor/health"


@dataclass(frozen=True)
class RunningServices:
    """The services that are up, their ports, and the folder that they write to."""

    home: LocalHome
    ports: Ports
    airflow: tuple[Service, ...]
    mlflow: MlflowServer

    def look_after(self) -> None:
        """Start MLflow again if it has ended; raise if a part of Airflow has.

        Raises:
            ServiceError: with the end of the log of Airflow's part.
        """
        require_running(*self.airflow)
        self.mlflow.look_after()


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
            _say_other_ports(wanted, ports, say)
            mark = processes.new_mark(home.path)
            watch = processes.start_watch(mark)
            try:
                with _sigterm_as_exit():
                    yield _start_all(home, dags, say, extra or {}, mark, ports)
            finally:
                _end(mark, say)
                watch.communicate()  # closes its standard input, and waits


def _end(mark: str, say: Say) -> None:
    """End all processes of a mark, and say first what is waited for."""
    if num := len(processes.marked(mark)):
        say(
            f"waiting for {num} process(es) of Airflow and MLflow to end; what has not ended after "
            f"{processes.GRACE_S:g} s is killed"
        )
    processes.sweep(mark)


def _say_other_ports(wanted: Ports, ports: Ports, say: Say) -> None:
    for name, before, now in (
        ("Airflow", wanted.airflow, ports.airflow),
        ("MLflow", wanted.mlflow, ports.mlflow),
    ):
        if now != before:
            say(f"port {before} is taken; {name} uses {now}")


def _start_all(
    home: LocalHome, dags: Path, say: Say, extra: Mapping[str, str], mark: str, ports: Ports
) -> RunningServices:
    environment = make_environment(home, ports.airflow_url, ports.mlflow_url, extra)
    write_airflow_config(home, dags, ports.airflow)
    home.password()

    def start(name: str, *arguments: str) -> Service:
        command = [sys.executable, *arguments]
        return processes.start(name, command, environment, mark, home.logs)

    def start_mlflow(is_again: bool) -> Service:
        command = [sys.executable, *mlflow_arguments(home, ports)]
        its_own = environment | {"PYTHONPATH": str(PLUGIN_FOLDER)}
        return processes.start("mlflow", command, its_own, mark, home.logs, is_again)

    started = time.monotonic()
    say("starting MLflow and Airflow ...")
    mlflow = MlflowServer(start_mlflow, say)
    _migrate(home, start)
    airflow = _start_airflow(start, mlflow.service, ports)
    wait = partial(wait_until_up, require_alive=partial(require_running, mlflow.service, *airflow))
    wait(mlflow.service, HealthPage(ports.mlflow, "/health"), timeout_s=START_TIMEOUT_S)
    parts = ("metadatabase", "scheduler", "dag_processor")
    page = HealthPage(ports.airflow, AIRFLOW_HEALTH, parts)
    wait(airflow[0], page, timeout_s=START_TIMEOUT_S)
    say(f"they answer after {time.monotonic() - started:.0f} s")
    return RunningServices(home, ports, airflow, mlflow)


def _start_airflow(
    start: Callable[..., Service], mlflow: Service, ports: Ports
) -> tuple[Service, ...]:
    """Start Airflow's parts, the scheduler last; the api-server is the first that is returned.

    A scheduler goes on at once with what an interrupted run has left. A task that cannot reach the
    api-server has failed, so such a run would lose its attempts before the api-server answers.
    """
    # No triggerer is started, because no operator of the bash runner defers.
    first = (
        start("api-server", "-m", "airflow", "api-server"),
        start("dag-processor", "-m", "airflow", "dag-processor"),
    )
    page = HealthPage(ports.airflow, AIRFLOW_HEALTH, ("metadatabase",))
    wait_until_up(first[0], page, partial(require_running, mlflow, *first), START_TIMEOUT_S)
    return (*first, start("scheduler", "-m", "airflow", "scheduler", "--skip-serve-logs"))


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


def _migrate(home: LocalHome, start: Callable[..., Service]) -> None:
    """Make or upgrade Airflow's database; once per Airflow version, as it takes some seconds."""
    version = importlib.metadata.version("apache-airflow")
    done = home.airflow / f"migrated-{version}"
    if done.exists() and home.airflow_database.stat().st_size > 0:
        return
    service = start("migrate", "-m", "airflow", "db", "migrate")
    try:
        code = service.process.wait(START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise failed(service, f"did not end within {START_TIMEOUT_S:.0f} s") from None
    if code != 0:
        raise failed(service, how_it_ended(code))
    done.touch()


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Have SIGTERM unwind the stack as Ctrl-C does, so that the services end with us."""
    former = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
