"""A real Airflow and MLflow over a planted world, for the tests that need the whole."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.local.airflow_api import FINAL_STATES, AirflowApi
from pipelines.local.home import LocalHome, choose_port
from pipelines.local.services import RunningServices

REPOSITORY = Path(__file__).resolve().parents[2]
DAGS = REPOSITORY / "dags"
FIRST_DAY, SECOND_DAY, THIRD_DAY = "2017-03-02", "2017-03-16", "2017-04-20"
NUM_DAYS = 110
DAY_OF_THIN_DATA = "2017-04-28"  # a week after the log ends: the holdout is almost empty
FAST = {
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "HOMEFEED_RECIPE": "smoke",
    "OMP_NUM_THREADS": "1",
    # Short, so that a killed worker is noticed within a test.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    # A scheduler that looks for work every second takes an eighth of a core, always.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "2",
    # The DAG files are read once, at the start: no test changes them.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
}


@dataclass(frozen=True)
class Outcome:
    """A DAG run's end."""

    state: str
    tasks: dict[str, dict[str, Any]]

    def state_of(self, task_id: str) -> str:
        return str(self.tasks[task_id]["state"])

    def tries_of(self, task_id: str) -> int:
        return int(self.tasks[task_id]["try_number"])


@dataclass(frozen=True)
class Lab:
    """Running services, and a session with Airflow."""

    services: RunningServices
    api: AirflowApi

    @property
    def home(self) -> LocalHome:
        return self.services.home

    def get(self, path: str) -> dict[str, Any]:
        """Return Airflow's answer to a question that only tests ask."""
        return self.api.call("GET", f"/api/v2/{path}")

    def run_ids(self) -> list[str]:
        """Return the ids of the DAG's runs, newest first."""
        found = self.get("dags/homefeed_retrain/dagRuns?order_by=-run_after")
        return [run["dag_run_id"] for run in found["dag_runs"]]

    def start(self, run_id: str, as_of: str, **conf: Any) -> None:
        defaults = {"as_of": as_of, "recipe": "smoke", "promote": False, "devices": 1}
        self.api.trigger(run_id, defaults | conf)

    def finish(self, run_id: str, timeout_s: float = 900.0) -> Outcome:
        """Wait for a run's end."""
        deadline = time.monotonic() + timeout_s
        while (found := self.api.find_run(run_id)) is None or found["state"] not in FINAL_STATES:
            assert time.monotonic() < deadline, self.api.tasks(run_id)
            self.services.look_after()
            time.sleep(1)  # each question costs the api-server more than it costs to ask
        return Outcome(found["state"], {t["task_id"]: t for t in self.api.tasks(run_id)})

    def run(self, run_id: str, as_of: str, **conf: Any) -> Outcome:
        self.start(run_id, as_of, **conf)
        return self.finish(run_id)

    def alerts(self, part: str, wait_s: float = 0.0) -> list[dict[str, Any]]:
        """Return the outbox's alerts whose text holds `part`; wait until there is one."""
        deadline = time.monotonic() + wait_s
        while True:
            entries = sorted((self.home.path / "workspace" / "outbox").glob("*.json"))
            found = [json.loads(path.read_text())["alert"] for path in entries]
            found = [alert for alert in found if part in json.dumps(alert)]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.2)


def homefeed_local(
    *arguments: str, event_log: Path | None = None, timeout_s: float = 1200.0
) -> "subprocess.CompletedProcess[str]":
    """Run `homefeed local ...` as a person would, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "local", *arguments, "--dags", str(DAGS)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **FAST, "HOMEFEED_EVENT_LOG": str(event_log or "")},
        check=False,
        umask=0o022,
    )


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of 127.0.0.1 now."""
    return choose_port(port) == port


def ports_in(output: str) -> set[int]:
    """The ports of the addresses that were shown."""
    return {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", output)}
