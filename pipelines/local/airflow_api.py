"""The few calls of Airflow's REST API (v2) that the local command needs. Not a general client.

Tested in tests/pipelines/local/test_real_airflow.py.
"""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from pipelines.local.home import ADMIN, ServiceError
from pipelines.settings import DAG_ID

FINAL_STATES = frozenset({"success", "failed"})
_DAG = f"/api/v2/dags/{DAG_ID}"


class AirflowApi:
    """A logged-in session with one Airflow."""

    def __init__(self, url: str, password: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)
        login = {"username": ADMIN, "password": password}
        token = self.call("POST", "/auth/token", login)["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def unpause(self, timeout_s: float = 120.0) -> None:
        """Wait until the DAG processor has read the DAG, and unpause it.

        Raises:
            ServiceError: the DAG file does not import, or the DAG does not appear.
        """
        deadline = time.monotonic() + timeout_s
        while self._find(_DAG) is None:
            errors = self.call("GET", "/api/v2/importErrors")["import_errors"]
            if errors or time.monotonic() > deadline:
                why = errors[0]["stack_trace"] if errors else f"not read in {timeout_s:.0f} s"
                raise ServiceError(
                    f"Airflow does not show {DAG_ID}; expected it among its DAGs; look into the "
                    f"dag-processor's log: {why}"
                )
            time.sleep(0.3)
        self.call("PATCH", _DAG, {"is_paused": False})

    def find_run(self, run_id: str) -> dict[str, Any] | None:
        """Return a DAG run, or None if there is none of that id."""
        return self._find(f"{_DAG}/dagRuns/{run_id}")

    def trigger(self, run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run without a logical date, as the trigger form may."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        return self.call("POST", f"{_DAG}/dagRuns", body)

    def clear_failed(self, run_id: str) -> None:
        """Have a failed run go on from the tasks that failed."""
        body = {"dag_run_id": run_id, "only_failed": True, "dry_run": False}
        self.call("POST", f"{_DAG}/clearTaskInstances", body)

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances, with task_id and state."""
        return list(self.call("GET", f"{_DAG}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Return the answer to any request.

        Raises:
            ServiceError: Airflow refused it.
        """
        answer = self._client.request(method, path, json=body)
        if answer.is_success:
            return dict(answer.json())
        raise ServiceError(
            f"{method} {answer.request.url.path} gave {answer.status_code}: {answer.text[:500]}"
        )

    def _find(self, path: str) -> dict[str, Any] | None:
        return None if self._client.get(path).status_code == 404 else self.call("GET", path)
