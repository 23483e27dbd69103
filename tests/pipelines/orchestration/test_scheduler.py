"""The scheduler and the DAG processor of Airflow themselves, on a database.

After an outage they create the right runs; where a run ends, its note says what became of it.
"""

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow import settings
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.sdk.serde import deserialize
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy import select

from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.judgement import ENDS
from pipelines.orchestration import run_note, timetable
from pipelines.orchestration.run_note import NOTE_KEY, SIGNATURE
from pipelines.orchestration.schedule import Grid
from pipelines.orchestration.timetable import GridTimetable
from pipelines.settings import DAG_ID
from support.simulated_airflow import SimulatedAirflow

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
DUE = datetime(2026, 2, 2, 6, tzinfo=UTC)
BEGIN = START - timedelta(days=14)
SCHEDULE = GridTimetable(Grid(START, timedelta(days=14)))
DAG_FILE = Path(__file__).parents[3] / "dags" / "homefeed_retrain.py"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class RealAirflow:
    """One DAG in Airflow's database; its scheduler and processor look when they are told to."""

    def __init__(self, patch: pytest.MonkeyPatch, dag_id: str) -> None:
        self.patch, self.dag_id = patch, dag_id
        if dag_id == DAG_ID:
            self.dag = runpy.run_path(str(DAG_FILE))[DAG_ID]
            return
        with DAG(dag_id, schedule=SCHEDULE, start_date=BEGIN, max_active_runs=1) as self.dag:
            pass

    def set_clock(self, now: datetime) -> None:
        self.patch.setattr(timetable, "utc_now", lambda: now)

    def parse(self) -> None:
        with create_session() as session:
            update_dag_parsing_results_in_db(
                *("tested", None, [LazyDeserializedDAG.from_dag(self.dag)], {}, 0.0, set()),
                session=session,
            )

    def create_run(self) -> None:
        """Look once, as the scheduler does when the stored date has come, and end the run."""
        with create_session() as session:
            row = session.get(DagModel, self.dag_id)
            SchedulerJobRunner(Job(), executors=[])._create_dag_runs([row], session)
            for run in session.scalars(select(DagRun).where(DagRun.dag_id == self.dag_id)):
                run.state = DagRunState.SUCCESS
            row.exceeds_max_non_backfill = False

    def end_run(self, left: dict[str, object], broken: str = "", note: str = "") -> str | None:
        """Let the scheduler see that all tasks of the newest run have ended; return its note.

        Args:
            left: By task, what it left for the note.
            broken: The task that failed; '' for none.
            note: What a person has written into the note before.
        """
        newest = select(DagRun).where(DagRun.dag_id == self.dag_id).order_by(DagRun.id.desc())
        with create_session() as session:
            run = session.scalars(newest).first()
            run.state, run.note = DagRunState.RUNNING, note or None
            session.get(DagModel, self.dag_id).relative_fileloc = DAG_FILE.name
            last = ("approve_promotion", "outcome", *ENDS)
            ends = {name: "success" for name in (*STAGES, *last)}
            if broken:
                ends |= {name: "upstream_failed" for name in STAGES[STAGES.index(broken) :]}
                ends[broken] = "failed"
            for ti in run.get_task_instances(session=session):
                ti.state = ends[ti.task_id]
            for task_id, value in left.items():
                XComModel.clear(dag_id=self.dag_id, task_id=task_id, run_id=run.run_id)
                at = {"dag_id": self.dag_id, "task_id": task_id, "run_id": run.run_id}
                session.add(XComModel(key=NOTE_KEY, value=value, dag_run_id=run.id, **at))
        with create_session() as session:
            run = session.scalars(newest).first()
            run.dag = DBDagBag().get_dag_for_run(dag_run=run, session=session)
            run.update_state(session=session, execute_callbacks=False)
            assert run.state == (DagRunState.FAILED if broken else DagRunState.SUCCESS)
        with create_session() as session:
            return session.scalars(newest).first().note

    def stored(self) -> tuple[list[str], datetime]:
        """Return the ids of the runs in the order of their dates, and the next date."""
        with create_session() as session:
            runs = session.scalars(select(DagRun).where(DagRun.dag_id == self.dag_id))
            ids = [run.run_id for run in sorted(runs, key=lambda run: run.run_after)]
            return ids, session.get(DagModel, self.dag_id).next_dagrun_create_after


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory):
    """Give Airflow an empty database, whatever AIRFLOW_HOME the tests are run in."""

    def connect() -> None:
        settings.dispose_orm(do_log=False)
        settings.configure_vars()
        settings.configure_orm()

    path = tmp_path_factory.mktemp("airflow") / "airflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{path}")
        connect()
        initdb()
        with create_session() as session:
            session.add(DagBundleModel(name="tested"))
        yield
    connect()


@pytest.mark.parametrize("processor_first", [True, False])
@pytest.mark.parametrize("outage", [2 * HOUR, 7.1 * DAY, 20 * DAY])
def test_after_an_outage_they_create_what_the_simulation_creates(
    monkeypatch, outage, processor_first
):
    real = RealAirflow(monkeypatch, f"real_{outage.total_seconds():.0f}_{processor_first}")
    simulated = SimulatedAirflow(monkeypatch, SCHEDULE, BEGIN, False)
    expected = [DUE - 14 * DAY, DUE, DUE + 14 * DAY] if outage > 14 * DAY else [DUE - 14 * DAY, DUE]
    if processor_first and outage > 14 * DAY:
        expected.remove(DUE)  # the processor has moved the stored date on
    for airflow in (simulated, real):
        simulated.set_clock(DUE - 14 * DAY)
        airflow.parse()
        airflow.create_run()
        simulated.set_clock(DUE + outage)
        if processor_first:
            airflow.parse()
        airflow.create_run()
        if not processor_first and outage > 14 * DAY:
            airflow.create_run()
    found, next_date = real.stored()
    assert found == [f"scheduled__{date.isoformat()}" for date in expected]
    assert found == [run.run_id for run in simulated.runs]
    assert next_date == simulated.row.next_dagrun_create_after == expected[-1] + 14 * DAY


@pytest.fixture
def cycle(monkeypatch):
    """A run of the DAG, whose tasks are there."""
    real = RealAirflow(monkeypatch, DAG_ID)
    real.set_clock(START)
    real.parse()
    real.create_run()
    return real


def test_the_very_first_cycle_has_its_tasks(cycle):
    assert cycle.stored() == ([f"scheduled__{START.isoformat()}"], START + 14 * DAY)
    with create_session() as session:
        tasks = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == DAG_ID))
        assert {task.task_id for task in tasks} == {*STAGES, "approve_promotion", "outcome", *ENDS}


VERDICT = "**REJECT**: v4 is worse\n\n**v3 serves.**"


def test_the_note_of_a_run_says_what_became_of_it(cycle):
    note = cycle.end_run({"compare_with_champion": VERDICT})
    assert note == f"{VERDICT}\n\n{SIGNATURE}"
    broken = {"compare_with_champion": VERDICT, "alert": "**BROKEN**: alert broke"}
    note = cycle.end_run(broken, broken="alert", note="Mine.")
    assert note == "\n\n".join(["**BROKEN**: alert broke", VERDICT, SIGNATURE, "Mine."])
    note = cycle.end_run({}, broken="train_challenger", note=note)
    assert note.startswith("**BROKEN**: the run failed: ")
    assert note.endswith(f"{SIGNATURE}\n\nMine.")
    assert note.count("BROKEN") == 1


def test_a_question_that_nobody_answers_in_time_is_closed_by_the_scheduler(cycle):
    asking = cycle.dag.get_task("approve_promotion")
    question = select(TaskInstance).where(
        TaskInstance.dag_id == DAG_ID, TaskInstance.task_id == asking.task_id
    )
    late = datetime.now(UTC) - timedelta(seconds=1)
    with create_session() as session:
        ti = session.scalars(question.order_by(TaskInstance.run_id.desc())).first()
        ti.state, ti.next_method, ti.trigger_timeout = "awaiting_input", "execute_complete", late
        put = {"options": asking.options, "defaults": asking.defaults, "subject": asking.subject}
        session.add(HITLDetail(ti_id=ti.id, params={}, **put))
        key = ti.id
    SchedulerJobRunner(Job(), executors=[]).check_awaiting_input_timeouts()
    with create_session() as session:
        ti = session.get(TaskInstance, key)
        assert (ti.state, ti.next_method) == ("scheduled", "execute_complete")
        event = deserialize(ti.next_kwargs)["event"]
    assert event["chosen_options"] == ["Reject"] and event["responded_by_user"] is None


def test_the_scheduler_counts_no_try_of_a_task_that_was_put_off(cycle):
    newest = select(DagRun).where(DagRun.dag_id == DAG_ID).order_by(DagRun.run_after.desc())
    found = []
    for state in ("up_for_reschedule", "up_for_retry"):
        with create_session() as session:
            run = session.scalars(newest).first()
            run.dag = DBDagBag().get_dag_for_run(dag_run=run, session=session)
            ti = run.get_task_instance("resolve_run", session=session)
            ti.state, ti.try_number, ti.task = state, 1, run.dag.get_task("resolve_run")
            session.flush()
            assert run.schedule_tis([ti], session=session) == 1
            session.refresh(ti)
            found.append((ti.state, ti.try_number))
    assert found == [("scheduled", 1), ("scheduled", 2)]


def test_whatever_happens_to_a_note_the_run_ends(cycle, monkeypatch, capsys):
    def broken(*_):
        raise OSError("no words today")

    monkeypatch.setattr(run_note, "merged", broken)
    assert cycle.end_run({"compare_with_champion": VERDICT}, note="Mine.") == "Mine."
    assert "no words today" in capsys.readouterr().out
