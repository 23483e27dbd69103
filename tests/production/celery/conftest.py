"""One deployment with Celery workers, and two disturbed cycles in it, per session.

Its parts are those of `pipelines.local`, with other settings. What ends is started again, as a
container engine or systemd would. Passwords stand in files, never in an environment or an argument.
"""

import contextlib
import os
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.run_layout import manifest_uri
from pipelines.local import processes
from pipelines.local.airflow_api import FINAL_STATES, AirflowApi
from pipelines.local.home import LocalHome, ServiceError
from pipelines.local.processes import Service
from pipelines.local.services import RunningServices, mlflow_arguments, running
from support.database_server import DatabaseServer
from support.kills import wait_for_run_uri, wait_for_stage
from support.lab import DAGS, FAST, FIRST_DAY, NUM_DAYS, SECOND_DAY, Lab, Outcome
from support.listeners import Listeners
from support.redis_server import RedisServer
from support.serving import beside, wait_until
from support.worlds import write_planted_world

WORKERS = ("worker-1", "worker-2")
HEARTBEAT_TIMEOUT_S = 15
"""After so many seconds without a sign of life a task has lost its worker."""
QUEUED_TIMEOUT_S = 20
"""After so many seconds in which no worker has begun it, a task is queued again."""
_SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
    "AIRFLOW__CELERY__TASK_ACKS_LATE": "true",
    "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT_S),
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(QUEUED_TIMEOUT_S),
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
}


NOT_OF_WORKERS = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/airflow.db",
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__API__SECRET_KEY": "none",
    "AIRFLOW__API_AUTH__JWT_SECRET": "none",
}
"""What a worker has in place of the database's address and of keys: it runs the code of recipes."""


@dataclass
class Secrets:
    """Every password of the deployment, and the environment that leads to them."""

    words: dict[str, str]
    """The passwords, by what they are for."""
    environment: dict[str, str]
    in_environment: tuple[str, ...]
    """What has no file, because its client knows environment variables only."""
    files: tuple[Path, ...]


@dataclass
class Deployment(RunningServices):
    """The running parts, each with the way to start it again."""

    restarts: list[str] = field(default_factory=list)
    """Names of the parts that had ended and were started again."""
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen_arguments: set[str] = field(default_factory=set)
    """Every argument of every process of the deployment that was seen."""

    def start(self, name: str, *arguments: str) -> Service:
        self.arguments[name] = arguments
        if name not in WORKERS:
            return super().start(name, *arguments)
        own = {
            k: v
            for k, v in self.environment.items()
            if k.removesuffix("_CMD") not in NOT_OF_WORKERS
        }
        place = self.home, self.ports, own | NOT_OF_WORKERS, self.mark, self.services
        return RunningServices(*place).start(name, *arguments)

    @contextlib.contextmanager
    def looked_after(self) -> Iterator[None]:
        """Start every part again that ends while the block runs."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(0.5):
                self._look()

        with beside(watch, end=is_over.set):
            yield

    def _look(self) -> None:
        """Start every part again that has ended, and remember what stands in argument lists."""
        for name, service in list(self.services.items()):
            if service.process.poll() is not None:
                for process in processes.marked(processes.marks_of(self.home.path)):
                    with contextlib.suppress(ProcessLookupError, psutil.Error):
                        if os.getpgid(process.pid) == service.process.pid:
                            process.kill()  # what is left of the part may hold its port
                self.restarts.append(name)
                # What it said stays beside what it will say, for the search for secrets.
                said = self.home.logs / f"{name}.log"
                said.rename(said.with_name(f"{name}-until-{len(self.restarts)}.log"))
                self.start(name, *self.arguments[name])
        for process in processes.marked(processes.marks_of(self.home.path)):
            with contextlib.suppress(psutil.Error):
                self.seen_arguments.update(process.cmdline())

    def worker_of(self, stage: psutil.Process) -> str:
        """Return the name of the Celery worker that runs a stage."""
        above = {process.pid for process in stage.parents()}
        (name,) = (each for each in WORKERS if self.services[each].process.pid in above)
        return name

    def kill_worker(self, name: str, with_stage: bool) -> None:
        """Kill a Celery worker, and what runs in it: as a machine that fails, or as the kernel.

        Args:
            name: Of the worker.
            with_stage: Whether the stage's own processes are killed too. If not, they must end by
                themselves.
        """
        first = psutil.Process(self.services[name].process.pid)
        below = first.children(recursive=True)
        for process in (first, *(each for each in below if with_stage or _is_celery(each))):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        first.wait()


def _is_celery(process: psutil.Process) -> bool:
    """Return whether a process is one of the worker's own, and not one of a task."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return {"celery", "worker"} <= set(words) or "ForkPoolWorker" in " ".join(words)
    return False


class ProductionLab(Lab):
    """A session with the deployment, which goes on while parts of it are restarted."""

    @property
    def deployment(self) -> Deployment:
        return self.services

    def finish(self, run_id: str, num_clears: int = 1) -> tuple[Outcome, int]:
        """Wait for a run's end, while parts may not answer, and clear what has failed if need be.

        Return how often that was.
        """
        deadline, number = time.monotonic() + 600 * (num_clears + 1), 0
        while True:
            with contextlib.suppress(ServiceError, httpx.TransportError):
                found = self.api.find_run(run_id)
                if found and found["state"] in FINAL_STATES:
                    if found["state"] == "success" or number == num_clears:
                        tasks = {each["task_id"]: each for each in self.api.tasks(run_id)}
                        return Outcome(found["state"], tasks), number
                    self.api.clear_failed(run_id)
                    number += 1
            assert time.monotonic() < deadline, f"{run_id} has not ended"
            time.sleep(0.5)


@contextlib.contextmanager
def production_lab(
    home: LocalHome, event_log: Path, database: DatabaseServer, keys: Secrets
) -> Iterator[ProductionLab]:
    """Start the whole deployment, give a session with it, and end every process of it."""
    extra = FAST | _SETTINGS | keys.environment | {"HOMEFEED_EVENT_LOG": str(event_log)}
    with running(home, DAGS, print, extra, lambda services: None) as services:
        deployment = Deployment(**vars(services))
        _start_all(deployment, database)
        api = AirflowApi(deployment.ports.airflow_url, home.password())
        api.unpause()
        with deployment.looked_after():
            yield ProductionLab(deployment, api)


def make_secrets(folder: Path, database: DatabaseServer, broker: RedisServer) -> Secrets:
    """Write the passwords into files that Airflow, Celery and MLflow read them from."""
    words = {f"{user}'s database": database.passwords[user] for user in ("airflow", "mlflow")}
    words["Redis"] = broker.password
    # What a stage is given where MLflow asks for a login and the workspace is in a bucket.
    plain = {"MLFLOW_TRACKING_PASSWORD": "MLflow", "AWS_SECRET_ACCESS_KEY": "the bucket"}
    words |= {name: secrets.token_urlsafe(18) for name in plain.values()}
    contents = {"metadata": database.secret_address("airflow"), "broker": broker.secret_address}
    kept = {name: folder / name for name in contents}
    for name, path in kept.items():
        path.touch(mode=0o600)
        path.write_text(contents[name])
    read = {name: shlex.join(["cat", str(path)]) for name, path in kept.items()}
    of_mlflow = database.password_file("mlflow", folder)
    environment = {variable: words[name] for variable, name in plain.items()} | {
        "MLFLOW_TRACKING_USERNAME": "homefeed",
        "AWS_ACCESS_KEY_ID": "homefeed",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": read["metadata"],
        "AIRFLOW__CELERY__RESULT_BACKEND_CMD": read["broker"],
        "AIRFLOW__CELERY__BROKER_URL_CMD": read["broker"],
        "PGPASSFILE": str(of_mlflow),
    }
    return Secrets(words, environment, tuple(plain.values()), (*kept.values(), of_mlflow))


def _start_all(deployment: Deployment, database: DatabaseServer) -> None:
    words = mlflow_arguments(deployment.home, deployment.ports)
    words[words.index("--backend-store-uri") + 1] = database.address("mlflow")
    deployment.start("mlflow", *words)
    deployment.migrate()
    for name in ("api-server", "dag-processor"):
        deployment.start(name, "-m", "airflow", name)
    for name in WORKERS:
        words = ["-m", "airflow", "celery", "worker", "--skip-serve-logs"]
        deployment.start(name, *words, "--celery-hostname", name)
    deployment.wait_for("mlflow")
    deployment.wait_for("api-server", "metadatabase")
    deployment.start("scheduler", "-m", "airflow", "scheduler", "--skip-serve-logs")
    deployment.wait_for("api-server", "metadatabase", "scheduler", "dag_processor")


HEAVY = STAGES[1:6]
OUTAGE_S = 4.0
PATIENCE_S = 300.0
"""Before a stage there may be another one, and its second try."""


@dataclass
class Ended:
    """How a cycle ended, and what had been done to it."""

    outcome: Outcome
    num_clears: int
    workers: list[str] = field(default_factory=list)
    """The worker that ran each stage in which something was done."""
    restarts: list[str] = field(default_factory=list)
    """The parts of the deployment that had ended by then."""
    listeners: Listeners = field(default_factory=Listeners)
    """Where its processes listened while it ran."""


@pytest.fixture(scope="session")
def keys(
    tmp_path_factory: pytest.TempPathFactory, database: DatabaseServer, broker: RedisServer
) -> Secrets:
    return make_secrets(tmp_path_factory.mktemp("secrets"), database, broker)


@pytest.fixture(scope="session")
def lab(
    tmp_path_factory: pytest.TempPathFactory, database: DatabaseServer, keys: Secrets
) -> Iterator[ProductionLab]:
    folder = tmp_path_factory.mktemp("deployment")
    write_planted_world(folder / "event_log", num_users=120, num_days=NUM_DAYS)
    home = LocalHome(folder / "home")
    with production_lab(home, folder / "event_log", database, keys) as lab:
        yield lab


@pytest.fixture(scope="session")
def first(lab: ProductionLab, database: DatabaseServer, broker: RedisServer) -> Ended:
    """A cycle in which the broker is gone when a stage ends, and the database while two run."""
    lab.start("first", FIRST_DAY, promote=True)
    run_uri = wait_for_run_uri(lab, "first")
    wait_for_stage("build_snapshot", run_uri, PATIENCE_S)
    broker.end(signal.SIGKILL)
    uri = manifest_uri(run_uri, "build_snapshot")
    wait_until(lambda: storage.exists(uri), 120, lambda: f"{uri} is written")
    time.sleep(OUTAGE_S)
    broker.start()
    workers, listeners = [], Listeners()
    for stage in ("train_challenger", "compare_with_champion"):
        workers.append(lab.deployment.worker_of(wait_for_stage(stage, run_uri, PATIENCE_S)))
        listeners.look(processes.marked(processes.marks_of(lab.home.path)))
        database.restart(signal.SIGINT, pause_s=OUTAGE_S)
    outcome, num_clears = lab.finish("first")
    return Ended(outcome, num_clears, workers, list(lab.deployment.restarts), listeners)


@pytest.fixture(scope="session")
def second(lab: ProductionLab, first: Ended) -> Ended:
    """A cycle in which the worker of each heavy stage is killed, with its stage in every other."""
    assert first.outcome.state == "success"
    lab.deployment.restarts.clear()
    lab.start("second", SECOND_DAY, promote=True)
    run_uri = wait_for_run_uri(lab, "second")
    workers = []
    for number, stage in enumerate(HEAVY):
        workers.append(lab.deployment.worker_of(wait_for_stage(stage, run_uri, PATIENCE_S)))
        lab.deployment.kill_worker(workers[-1], with_stage=number % 2 == 0)
    outcome, num_clears = lab.finish("second")
    return Ended(outcome, num_clears, workers, list(lab.deployment.restarts))
