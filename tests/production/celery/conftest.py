"""One deployment with Celery workers, and two disturbed cycles in it, per session."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.run_layout import manifest_uri
from pipelines.local import processes
from pipelines.local.home import LocalHome
from support.database_server import DatabaseServer
from support.kills import wait_for_run_uri, wait_for_stage
from support.lab import FIRST_DAY, NUM_DAYS, SECOND_DAY, Outcome
from support.listeners import Listeners
from support.production_lab import ProductionLab, Secrets, make_secrets, production_lab
from support.redis_server import RedisServer
from support.serving import wait_until
from support.worlds import write_planted_world

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
