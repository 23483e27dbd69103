"""Airflow's scheduling of one DAG without a database, on a clock that a test moves.

The rows, the calculation of the next date and the DAG's stored form are Airflow's own. What the
scheduler and the DAG processor do with them is repeated here: `_create_dag_runs` of
`airflow.jobs.scheduler_job_runner` and `update_dags` of `airflow.dag_processing.collection`.
"""

import json
from datetime import datetime

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.types import DagRunType

from pipelines.orchestration import timetable


class SimulatedAirflow:
    """One DAG in a simulated Airflow: its row, and the scheduled runs that were created."""

    def __init__(self, patch: pytest.MonkeyPatch, schedule, start: datetime, catchup: bool) -> None:
        with DAG("simulated", schedule=schedule, start_date=start, catchup=catchup) as dag:
            pass
        self.dag = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        self.row = DagModel(dag_id="simulated")
        self.runs: list[DagRun] = []
        self._patch = patch

    def set_clock(self, now: datetime) -> None:
        self.now = now
        self._patch.setattr(timetable, "utc_now", lambda: now)

    def parse(self) -> None:
        """Do what the DAG processor does each time that it has read the DAG file."""
        newest = max(self.runs, key=lambda run: run.logical_date, default=None)
        self.row.calculate_dagrun_date_fields(self.dag, reference_run=newest)

    def create_run(self) -> DagRun | None:
        """Create the run whose date has come, as one look of the scheduler does."""
        due = self.row.next_dagrun_create_after
        if due is None or due > self.now:
            return None
        # An exception here is logged by the scheduler, which goes on without a run.
        info = self.dag.timetable.next_run_info_from_dag_model(dag_model=self.row)
        run = DagRun(
            dag_id="simulated",
            run_id=f"scheduled__{info.run_after.isoformat()}",
            logical_date=info.logical_date,
            data_interval=info.data_interval,
            run_after=info.run_after,
            run_type=DagRunType.SCHEDULED,
            start_date=self.now,
        )
        self.runs.append(run)
        self.row.calculate_dagrun_date_fields(self.dag, reference_run=run)
        return run
