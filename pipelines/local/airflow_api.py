"""The few calls of Airflow's REST API (v2) that the local command needs. Not a general client."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from pipelines.contracts.errors import HomefeedError
from pipelines.local.layout import ADMIN

DAG_ID = "homefeed_retrain"
FINAL_STATES = frozenset({"success", "failed"})


class AirflowApiError(HomefeedError):
    """Airflow refused a request, or does not know the DAG."""

    exit_code = 69


class AirflowApi:
    """A logged-in session with one Airflow."""

    def __init__(self, url: str, password: str, dag_id: str = DAG_ID) -> None:
        self.url = url
        self.dag_id = dag_id
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)
        answer = self._client.post("/auth/token", json={"username": ADMIN, "password": password})
        self._check(answer)
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def wait_for_dag(self, timeout_s: float = 120.0) -> None:
        """Wait until the DAG processor has read the DAG.

        Raises:
            AirflowApiError: the DAG file does not import, or the DAG does not appear.
        """
        deadline = time.monotonic() + timeout_s
        while self._client.get(f"/api/v2/dags/{self.dag_id}").status_code == 404:
            errors = self._call("GET", "/api/v2/importErrors")["import_errors"]
            if errors:
                raise AirflowApiError(
                    f"Airflow cannot import {errors[0]['filename']}:\n{errors[0]['stack_trace']}"
                )
            if time.monotonic() > deadline:
                raise AirflowApiError(
                    f"Airflow does not show {self.dag_id} after {timeout_s:.0f} s; look into "
                    f"the dag-processor's log"
                )
            time.sleep(0.3)

    def set_paused(self, is_paused: bool) -> None:
        """Pause or unpause the DAG."""
        self._call("PATCH", f"/api/v2/dags/{self.dag_id}", {"is_paused": is_paused})

    def find_run(self, run_id: str) -> dict[str, Any] | None:
        """Return a DAG run, or None if there is none of that id."""
        answer = self._client.get(f"/api/v2/dags/{self.dag_id}/dagRuns/{run_id}")
        if answer.status_code == 404:
            return None
        return self._check(answer)

    def trigger(self, run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run without a logical date, as the trigger form may."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        return self._call("POST", f"/api/v2/dags/{self.dag_id}/dagRuns", body)

    def clear_failed(self, run_id: str) -> None:
        """Have a failed run go on from the tasks that failed."""
        body = {"dag_run_id": run_id, "only_failed": True, "dry_run": False}
        self._call("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)

    def runs(self) -> list[dict[str, Any]]:
        """Return the DAG's runs, newest first."""
        path = f"/api/v2/dags/{self.dag_id}/dagRuns?order_by=-run_after"
        return list(self._call("GET", path)["dag_runs"])

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances: task_id, state, start_date, end_date, try_number."""
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/{run_id}/taskInstances"
        return list(self._call("GET", path)["task_instances"])

    def log_of(self, run_id: str, task_id: str, try_number: int) -> list[str]:
        """Return the lines of one attempt's log."""
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        found = self._call("GET", f"{path}/logs/{try_number}?full_content=true")
        lines = []
        for entry in found["content"]:
            lines.append(str(entry.get("event", "")))
            lines += [f"{e['exc_type']}: {e['exc_value']}" for e in entry.get("error_detail") or ()]
        return lines

    def asset_events(self) -> list[dict[str, Any]]:
        """Return the events of all assets, oldest first."""
        found = self._call("GET", "/api/v2/assets/events?order_by=timestamp")
        return list(found["asset_events"])

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to any other question."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return self._check(self._client.request(method, path, json=body))

    def _check(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_success:
            return dict(answer.json())
        raise AirflowApiError(
            f"{answer.request.method} {answer.request.url.path} gave {answer.status_code}: "
            f"{answer.text[:500]}"
        )
