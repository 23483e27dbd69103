"""Due instants are exact; what a simulated Airflow runs after outages and pauses, and is told."""

import json
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
from pipelines.recipes import smoke
from pipelines.settings import Settings
from pipelines.stages import runner
from support.commands import parse
from support.simulated_airflow import SimulatedAirflow

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
DUE = datetime(2026, 2, 2, 6, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PARAMS = {"as_of": None, "recipe": "smoke", "promote": True}
PARAMS |= {"devices": 1, "accelerator": "cpu", "nodes": 1}
HARDWARE = ("accelerator", "num_devices", "num_nodes")
TI = SimpleNamespace(xcom_push=lambda key, value: None)


class World:
    """A deployment with a simulated Airflow, in which each run starts as soon as it is created."""

    def __init__(self, patch, workspace, days=14.0) -> None:
        self.settings = Settings(workspace=str(workspace), cadence_days=days)
        self.patch, self.outbox = patch, workspace / "outbox"
        self.airflow = self.new_airflow()
        self.trained: list[str] = []
        self.skipped: list[str] = []
        patch.setattr(runner, "start_run", self._start_run)

    def new_airflow(self) -> SimulatedAirflow:
        schedule = GridTimetable(grid_of(self.settings))
        return SimulatedAirflow(self.patch, schedule, START - schedule.period, False)

    def _start_run(self, request, settings):
        self.trained.append(f"{request.day:%m-%d}")
        hardware = {name: getattr(request, name) for name in HARDWARE}
        named = {"run_id": request.run_id, "run_uri": "uri", "as_of": request.day}
        return SimpleNamespace(config=smoke(), **named, **hardware)

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

    def alerts(self) -> list[dict]:
        paths = sorted(self.outbox.glob("*.json"))
        return [json.loads(path.read_text())["alert"] for path in paths]

    def told(self) -> list[str]:
        """Return every date that an alert names as skipped, sorted, as often as it is named."""
        assert {alert["kind"] for alert in self.alerts()} <= {"missed_cycle"}
        dates = [date for alert in self.alerts() for date in alert["about"]]
        return sorted(f"{datetime.fromisoformat(date):%m-%d %H}" for date in dates)


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


@pytest.fixture
def world(monkeypatch, tmp_path) -> World:
    """A fortnightly deployment that has run the cycle of 19 January on time."""
    made = World(monkeypatch, tmp_path / "workspace")
    assert made.go(DUE - 14 * DAY) == ["01-19"]
    return made


@pytest.mark.parametrize("processor_first", [True, False])
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
def test_after_an_outage_the_newest_cycle_runs_late_or_is_told(
    monkeypatch, tmp_path, days, outage, trained, told, next_date, processor_first
):
    world = World(monkeypatch, tmp_path / "workspace", days=days)
    assert len(world.go(DUE - days * DAY)) == 1
    assert world.go(DUE + outage, processor_first) == trained
    assert world.told() == told
    on_time = world.airflow.row.next_dagrun_create_after
    assert f"{on_time:%m-%d %H}" == next_date
    assert world.go(on_time) == [next_date[:5]]
    assert world.told() == told  # nothing is told twice, nor run twice


def test_a_pause_is_told_when_a_person_ends_it(monkeypatch, tmp_path):
    world = World(monkeypatch, tmp_path / "workspace", days=3.5)
    world.go(DUE - 3.5 * DAY)
    for day in range(57):  # paused: the DAG processor goes on, the scheduler creates nothing
        world.airflow.set_clock(DUE + day * DAY)
        world.airflow.parse()
    assert world.go(DUE + 56.1 * DAY) == ["03-30"]
    (alert,) = world.alerts()
    assert "due dates from 2026-02-02 06:00 UTC to 2026-03-26" in alert["happened"]
    assert len(world.told()) == 16


@pytest.mark.parametrize("now", [DUE + HOUR, DUE + 9 * DAY, DUE + 300 * DAY])
def test_a_fresh_installation_tells_nothing_and_waits_for_its_date(monkeypatch, tmp_path, now):
    world = World(monkeypatch, tmp_path / "workspace")
    assert world.go(now + HOUR) == []
    first = world.airflow.row.next_dagrun_create_after
    assert first > now and (first - START).total_seconds() % (14 * 86400) == 0
    assert world.go(first) == [f"{first:%m-%d}"]
    assert world.alerts() == []


def test_a_new_airflow_database_finds_the_account_of_the_old_one(world):
    world.airflow = world.new_airflow()
    assert world.go(DUE + 2 * DAY) == []  # a new database waits for the next date
    assert world.told() == []
    assert world.go(DUE + 14 * DAY) == ["02-16"]
    assert world.told() == ["02-02 06"]


def test_a_run_that_waited_in_the_queue_for_too_long_is_skipped_and_a_retry_says_the_same_once(
    world,
):
    world.airflow.set_clock(DUE)
    run = world.airflow.create_run()
    for days in (8, 9):  # Airflow lost its database, and starts the run again
        run.start_date = DUE + days * DAY
        world.begin(run)
    assert (world.skipped, world.told()) == ([run.run_id] * 2, ["02-02 06"])


def test_a_run_that_is_cleared_is_run_and_misses_nothing(world):
    old = world.airflow.runs[-1]
    world.go(DUE + 8 * DAY)
    for run in (world.airflow.runs[-1], old):  # one that was skipped, and one that has run
        run.clear_number, run.start_date = 1, DUE + 9 * DAY
        world.begin(run)
    assert (world.trained, world.told()) == (["02-02", "01-19"], ["02-02 06"])
    assert world.go(DUE + 14 * DAY) == ["02-16"]
    assert world.told() == ["02-02 06"]


def test_a_manual_run_is_never_too_late_and_accounts_for_nothing(world):
    dag_run = SimpleNamespace(
        run_id="manual__x", run_type="manual", data_interval_end=DUE, run_after=DUE, conf={}
    )
    start_cycle(PARAMS, dag_run, TI, world.settings)
    assert world.trained == ["01-19", "02-02"]
    assert world.go(DUE + 14 * DAY, processor_first=False) == ["02-16"]
    assert world.told() == ["02-02 06"]


def test_a_day_of_which_a_cycle_is_on_record_is_not_told(world, tmp_path):
    storage.write_bytes(
        storage.join(storage.to_uri(tmp_path / "workspace"), "runs/2026-02-02--ab/x"), b""
    )
    assert world.go(DUE + 20 * DAY) == ["02-16"]
    assert world.alerts() == []


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


def test_after_a_change_of_cadence_dates_of_the_new_one_count(world):
    world.settings = world.settings.model_copy(update={"cadence_days": 7})
    runs, world.airflow = world.airflow.runs, world.new_airflow()
    world.airflow.runs = runs
    assert world.go(DUE) == ["02-02"]
    assert world.told() == ["01-26 06"]


def test_a_damaged_record_is_named_and_left_for_a_person(world):
    uri = storage.join(storage.to_uri(world.settings.workspace_location), "schedule/record.json")
    storage.write_bytes(uri, b"{}")
    with pytest.raises(DataContractError, match=r"(?s)record\.json.*delete it and clear the task"):
        world.go(DUE)


@pytest.mark.parametrize(
    ("days", "processor_first", "offered"),
    [
        (8, True, ["retrain", "serving"]),
        # After a long outage nobody is asked to run an old cycle.
        (20, True, ["serving"]),
        (20, False, ["serving"]),
        (34, False, ["serving"]),
    ],
)
def test_an_old_cycle_is_offered_only_where_no_newer_one_follows(
    world, days, processor_first, offered
):
    world.go(DUE + days * DAY, processor_first)
    parsed = [parse(command) for _, command in world.alerts()[0]["next_step"]["commands"]]
    assert [context.info_name for context in parsed] == offered
    if "retrain" in offered:
        assert parsed[0].params["as_of"] == "2026-02-02"
        assert parsed[0].params["key"] == world.airflow.runs[-1].run_id


def test_airflow_still_gives_a_task_the_facts_that_the_account_needs():
    needed = {"run_id", "run_type", "run_after", "data_interval_end", "start_date", "clear_number"}
    assert needed <= set(DagRunProtocol.__annotations__)
