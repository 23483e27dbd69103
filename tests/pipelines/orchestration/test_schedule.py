"""Due instants are exact; what a simulated Airflow runs after outages and pauses, and is told."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest import mock

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.types import DagRunProtocol

from pipelines import storage
from pipelines.alerts import transports
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.orchestration.runs import start_cycle
from pipelines.orchestration.schedule import TICK, Grid, grid_of
from pipelines.orchestration.timetable import GridTimetable
from pipelines.settings import Settings
from pipelines.stages import runner
from support.commands import parse
from support.runs import make_run
from support.simulated_airflow import SimulatedAirflow

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
DUE = datetime(2026, 2, 2, 6, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PARAMS = {"as_of": None, "recipe": "smoke", "promote": True}
PARAMS |= {"devices": 1, "accelerator": "cpu", "nodes": 1}
TI = SimpleNamespace(xcom_push=lambda key, value: None)


class World:
    """A deployment with a simulated Airflow, in which each run starts as soon as it is created."""

    def __init__(self, patch, folder, days) -> None:
        self.settings = Settings(workspace=str(folder), cadence_days=days)
        self.patch, self.folder = patch, folder
        self.new_airflow()
        self.trained: list[str] = []
        self.skipped: list[str] = []
        patch.setattr(runner, "start_run", self._start_run)

    def new_airflow(self, *runs) -> None:
        """Begin with a new database of Airflow's, which may have runs."""
        schedule = GridTimetable(grid_of(self.settings))
        self.airflow = SimulatedAirflow(self.patch, schedule, START - schedule.period, False)
        self.airflow.runs += runs

    def _start_run(self, request, settings):
        self.trained.append(f"{request.day:%m-%d}")
        return make_run(self.folder, **request.options())

    def go(self, now: datetime, processor_first: bool = True) -> list[str]:
        """Let Airflow look at a moment until it has nothing to do; return the days trained."""
        self.trained.clear()
        self.airflow.set_clock(now)
        if processor_first:
            self.airflow.parse()
        while run := self.airflow.create_run():
            self.begin(run)
            self.airflow.parse()
        return list(self.trained)

    def begin(self, run) -> None:
        try:
            start_cycle(PARAMS, run, TI, self.settings)
        except AirflowSkipException:
            self.skipped.append(run.run_id)

    def told(self) -> list[str]:
        """Return every date that an alert names as skipped, sorted, as often as it is named."""
        alerts = [alert for _, alert in transports.read_outbox(self.settings)]
        assert {alert.kind for alert in alerts} <= {"missed_cycle"}
        dates = [date for alert in alerts for date in alert.about]
        return sorted(f"{datetime.fromisoformat(date):%m-%d %H}" for date in dates)

    def offered(self) -> list[str]:
        """Return which runs the alerts offer to begin by hand."""
        steps = [alert.next_step for _, alert in transports.read_outbox(self.settings)]
        offers = [parse(command) for step in steps for _, command in step.commands]
        return [each.params["key"] for each in offers if each.info_name == "retrain"]


@pytest.mark.parametrize(("days", "number"), [(14, -3), (14, 0), (14, 1000), (1 / 7, 255500)])
def test_due_instants_are_exact_and_do_not_drift_in_a_century(days, number):
    grid = Grid(START, timedelta(days=days))
    due = START + number * grid.period
    assert grid.at_or_after(due) == grid.at_or_before(due) == due
    assert grid.at_or_after(due + TICK) == grid.after(due) == due + grid.period
    assert grid.at_or_before(due - TICK) == due - grid.period
    assert grid.between(due, due + 3 * grid.period) == (due + grid.period, due + 2 * grid.period)
    assert grid.between(due - TICK, due + TICK) == (due,)
    assert grid.between(due - TICK, due) == grid.between(due, due - grid.period) == ()


def test_a_deployment_says_start_and_cadence(monkeypatch):
    monkeypatch.setenv("HOMEFEED_SCHEDULE_START", "2026-01-05T08:00:00+02:00")
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", "3.5")
    assert grid_of(Settings()) == Grid(START, timedelta(days=3.5))
    for written in ("Monday", "2026-01-05T06:00:00"):
        monkeypatch.setenv("HOMEFEED_SCHEDULE_START", written)
        with pytest.raises(ConfigurationError, match=f"HOMEFEED_SCHEDULE_START is '{written}'"):
            grid_of(Settings())


@pytest.mark.parametrize("processor", ["before the scheduler", "after it", "daily meanwhile"])
@pytest.mark.parametrize(
    ("days", "outage", "trained", "told", "next_date"),
    [
        (14, 0.5 * HOUR, ["02-02"], [], "02-16 06"),
        (14, 7 * DAY, ["02-02"], [], "02-16 06"),
        (14, 7 * DAY + timedelta(seconds=1), [], ["02-02 06"], "02-16 06"),
        (14, 20 * DAY, ["02-16"], ["02-02 06"], "03-02 06"),
        (14, 27 * DAY, [], ["02-02 06", "02-16 06"], "03-02 06"),
        (3.5, 2 * HOUR, ["02-02"], [], "02-05 18"),
        (3.5, 6.9 * DAY, [], ["02-02 06", "02-05 18"], "02-09 06"),
        (3.5, 7.1 * DAY, ["02-09"], ["02-02 06", "02-05 18"], "02-12 18"),
    ],
)
def test_after_an_outage_or_a_pause_the_newest_cycle_runs_late_or_is_told_and_offered(
    monkeypatch, tmp_path, days, outage, trained, told, next_date, processor
):
    world = World(monkeypatch, tmp_path, days)
    assert len(world.go(DUE - days * DAY)) == 1
    for day in range(outage.days if processor == "daily meanwhile" else 0):
        world.airflow.set_clock(DUE + day * DAY)
        world.airflow.parse()
    assert world.go(DUE + outage, processor == "before the scheduler") == trained
    assert world.told() == told
    # Nobody is asked to run an old cycle where a newer one follows.
    too_late = world.airflow.runs[-1:] if told and not trained else []
    assert world.offered() == [run.run_id for run in too_late]
    on_time = world.airflow.row.next_dagrun_create_after
    assert f"{on_time:%m-%d %H}" == next_date
    assert world.go(on_time) == [next_date[:5]]
    assert world.told() == told  # nothing is told twice, nor run twice


@pytest.fixture
def world(monkeypatch, tmp_path) -> World:
    """A fortnightly deployment that has run the cycle of 19 January on time."""
    made = World(monkeypatch, tmp_path, 14)
    assert made.go(DUE - 14 * DAY) == ["01-19"]
    return made


def begin_by_hand(world: World) -> None:
    known = {"run_id": "manual__x", "run_type": "manual", "conf": {}}
    dag_run = SimpleNamespace(data_interval_end=DUE, run_after=DUE, **known)
    start_cycle(PARAMS, dag_run, TI, world.settings)
    assert world.trained == ["01-19", "02-02"]


def put_on_record(world: World) -> None:
    storage.write_bytes(storage.to_uri(world.folder / "runs/2026-02-02--ab/x"), b"")


def make_it_weekly(world: World) -> None:
    world.settings = world.settings.model_copy(update={"cadence_days": 7})
    world.new_airflow(*world.airflow.runs)


@pytest.mark.parametrize(
    ("change", "looks"),
    [
        (begin_by_hand, [(14, ["02-16"], ["02-02 06"])]),
        (put_on_record, [(20, ["02-16"], [])]),
        # A new database waits for the next date, and finds the account of the old one.
        (World.new_airflow, [(2, [], []), (14, ["02-16"], ["02-02 06"])]),
        (make_it_weekly, [(0, ["02-02"], ["01-26 06"])]),
    ],
)
def test_only_a_date_of_the_schedule_without_a_cycle_on_record_is_told(world, change, looks):
    change(world)
    for days, trained, told in looks:
        assert world.go(DUE + days * DAY) == trained
        assert world.told() == told


def test_a_run_that_waited_for_too_long_is_skipped_and_told_once_unless_a_person_clears_it(world):
    world.airflow.set_clock(DUE)
    old, run = world.airflow.runs[-1], world.airflow.create_run()
    for days in (8, 9):  # Airflow lost its database, and starts the run again
        run.start_date = DUE + days * DAY
        world.begin(run)
    assert world.skipped == [run.run_id] * 2
    for cleared in (run, old):
        cleared.clear_number, cleared.start_date = 1, DUE + 9 * DAY
        world.begin(cleared)
    assert world.trained == ["01-19", "02-02", "01-19"]
    assert world.go(DUE + 14 * DAY) == ["02-16"]
    assert world.told() == ["02-02 06"]


def test_a_message_that_is_not_delivered_costs_no_cycle_and_fails_a_run_that_is_skipped(
    world, monkeypatch
):
    away = mock.Mock(side_effect=transports.AlertDeliveryError("no route"))
    with monkeypatch.context() as patched:
        patched.setattr(transports, "deliver", away)
        assert world.go(DUE + 20 * DAY) == ["02-16"]
        with pytest.raises(transports.AlertDeliveryError, match="no route"):
            world.go(DUE + 36 * DAY)
    world.begin(world.airflow.runs[-1])  # Airflow tries the task again
    assert (len(world.skipped), world.told()) == (1, ["03-02 06"])


def test_a_damaged_record_is_named_and_left_for_a_person(world):
    (world.folder / "schedule" / "record.json").write_text("{}")
    with pytest.raises(DataContractError, match=r"(?s)record\.json.*delete it and clear the task"):
        world.go(DUE)


def test_airflow_still_gives_a_task_the_facts_that_the_account_needs():
    needed = {"run_id", "run_type", "run_after", "data_interval_end", "start_date", "clear_number"}
    assert needed <= set(DagRunProtocol.__annotations__)
