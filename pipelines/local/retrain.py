"""`make retrain` and `make ui`: cycles in a real Airflow on this machine, and the two pages.

A run's tasks are shown in a live table on a terminal, elsewhere with a line for each change. Not
for running stages (Airflow does that) nor for starting servers (`services`). Tested in
tests/pipelines/local/test_retrain.py and test_real_airflow.py.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines import storage
from pipelines.alerts.commands import runnable, serving_command
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.cycle import CycleFacts
from pipelines.contracts.errors import HomefeedError, RunInProgressError
from pipelines.contracts.files import holder_of
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.cycles.reading import find_cycle, lines_of
from pipelines.local.airflow_api import FINAL_STATES, AirflowApi
from pipelines.local.home import ADMIN, LocalHome, Ports, last_ports
from pipelines.local.processes import Service, open_log
from pipelines.local.services import RunningServices, running
from pipelines.recipes import key_of
from pipelines.settings import DAG_ID, Settings

RUN_FAILED_EXIT_CODE = 1
POLL_S = 0.5
_COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "bold red",
    "up_for_retry": "yellow",
    "upstream_failed": "red",
    "skipped": "dim",
}

_ORDER = (*STAGES[:-2], "approve_promotion", *STAGES[-2:])
"""Of a run's tasks: the stages, and the question to people before a promotion."""
_TRAININGS = ("train_challenger", "train_anchor")
NOTE_EVERY_S = 15.0
"""Seconds between two lines about training where there is no live table."""


class IngestError(HomefeedError):
    """The event log could not be written; the command's own output says why."""

    exit_code = 65


@dataclass(frozen=True)
class Cycle:
    """One cycle to run: its day and its recipe."""

    as_of: str
    recipe: str

    @property
    def run_id(self) -> str:
        """Airflow's id of the cycle's run, always the same, so that no cycle runs twice."""
        return f"retrain__{key_of(self.recipe)}__{self.as_of}"

    @property
    def conf(self) -> dict[str, Any]:
        """The parameters that a person would enter in the trigger form."""
        return {"as_of": self.as_of, "recipe": self.recipe, "promote": True, "devices": 1}


def retrain(home: LocalHome, dags: Path, recipe: str, days: tuple[str, ...]) -> int:
    """Run the cycles one after the other in a real Airflow, show them, and sum up.

    A cycle that has ended well is not run again. A cycle that failed goes on from the tasks that
    failed.

    Args:
        home: folder of everything that is written.
        dags: folder with the DAG file.
        recipe: recipe of every cycle.
        days: as_of of each cycle, in order.

    Returns:
        0, or 1 when a cycle failed.

    Raises:
        RunInProgressError: another copy is running in this home.
        ServiceError: Airflow or MLflow did not come up.
        IngestError: there is no event log and none could be made.
    """
    console = Console()
    cycles = [Cycle(day, recipe) for day in days]
    settings = Settings(home=str(home.path))
    workspace = settings.workspace_location
    has_failed = False
    found = [find_cycle(workspace, cycle.run_id, settings) for cycle in cycles]
    if all(cycle is not None and not cycle.next_stage for cycle in found):
        console.print("Every cycle has ended well before; nothing to run.")
    else:
        started = time.monotonic()
        try:
            has_failed = not _run_cycles(home, dags, cycles, settings.event_log_location, console)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from what had ended")
            raise
        console.print(f"{time.monotonic() - started:.0f} s with everything")
    show_summary(console, settings, [cycle.run_id for cycle in cycles])
    console.print(
        f"make ui opens Airflow and MLflow (login {ADMIN} / {home.password()})",
        soft_wrap=True,
        highlight=False,
    )
    return RUN_FAILED_EXIT_CODE if has_failed else 0


def _run_cycles(
    home: LocalHome, dags: Path, cycles: list[Cycle], event_log: str, console: Console
) -> bool:
    """Run the cycles in order; return whether all of them ended well."""
    with _event_log(home, event_log, console) as wait_for_event_log:
        with running(home, dags, console.print) as services:
            show_addresses(console, home, services.ports)
            api = AirflowApi(services.ports.airflow_url, home.password())
            api.wait_for_dag()
            wait_for_event_log()
            api.set_paused(False)
            return all(_run_cycle(api, services, cycle, console) for cycle in cycles)


def _run_cycle(api: AirflowApi, services: RunningServices, cycle: Cycle, console: Console) -> bool:
    """Trigger one cycle or take up an old one, and follow it to its end."""
    found = api.find_run(cycle.run_id)
    if found is None:
        found = api.trigger(cycle.run_id, cycle.conf)
    elif found["state"] == "failed":
        console.print(f"{cycle.run_id} failed before; going on from what failed")
        api.clear_failed(cycle.run_id)
        found = api.find_run(cycle.run_id) or found
    with TaskDisplay(console, cycle.run_id) as display:
        while found["state"] not in FINAL_STATES:
            services.look_after()
            display.show(api.tasks(cycle.run_id), training_progress(services.home.workspace))
            time.sleep(POLL_S)
            found = api.find_run(cycle.run_id) or found
        display.show(api.tasks(cycle.run_id))
    if found["state"] == "success":
        return True
    _show_failure(api, cycle, console)
    return False


def _show_failure(api: AirflowApi, cycle: Cycle, console: Console) -> None:
    """Print the end of the log of each task that failed."""
    for task in api.tasks(cycle.run_id):
        if task["state"] == "failed":
            lines = api.log_of(cycle.run_id, task["task_id"], task["try_number"])
            console.print(f"[bold red]{task['task_id']} of {cycle.run_id} failed:[/]")
            console.print("\n".join(lines[-25:]), markup=False, highlight=False)


@contextlib.contextmanager
def _event_log(home: LocalHome, location: str, console: Console) -> Iterator[Callable[[], None]]:
    """Start to write the event log in another process, if there is none.

    Yields a function that waits until the event log is written.
    """
    if set(storage.list_names(storage.to_uri(location))) >= set(EVENT_LOG_TABLES):
        yield lambda: None
        return
    home.create()
    console.print(f"writing the event log of the Complete Journey data to {location} ...")
    log_path = home.logs / "ingest.log"
    command = [sys.executable, "-m", "pipelines.cli", "ingest", "completejourney", "--to", location]
    with open_log(log_path) as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)

    def wait() -> None:
        if process.wait() != 0:
            tail = Service("ingest", process, log_path).tail(20)
            raise IngestError(
                f"the event log could not be written (exit code {process.returncode}); the end "
                f"of {log_path}:\n{tail}\nMend what it says, then run the same command again"
            )

    try:
        yield wait
    finally:
        process.terminate()  # does nothing where the process has ended
        process.wait()


def keep_up(home: LocalHome, dags: Path) -> None:
    """Keep Airflow and MLflow up until Ctrl-C or SIGTERM; where they are up, say where.

    Raises:
        ServiceError: a service did not come up, or a part of Airflow ended.
    """
    console = Console()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            with running(home, dags, console.print) as services:
                AirflowApi(services.ports.airflow_url, home.password()).wait_for_dag()
                show_addresses(console, home, services.ports)
                console.print("Ctrl-C ends both.")
                while True:
                    services.look_after()
                    time.sleep(1)
        except RunInProgressError:
            console.print(
                f"Airflow and MLflow of {home.path} are up or starting already, until process "
                f"{holder_of(home.lock)} ends:",
                soft_wrap=True,
                highlight=False,
            )
            show_addresses(console, home, last_ports(home))
            return
    console.print("ended")


def show_addresses(console: Console, home: LocalHome, ports: Ports) -> None:
    """Print both pages' addresses and the login, and what other commands must know of them."""
    lines = [
        f"Airflow  {ports.airflow_url}/dags/{DAG_ID}   login {ADMIN} / {home.password()}",
        f"MLflow   {ports.mlflow_url}",
    ]
    if ports.mlflow_url != Settings.model_fields["tracking_uri"].default:
        lines.append(f"For other commands: export HOMEFEED_TRACKING_URI={ports.mlflow_url}")
    # The lines are neither wrapped nor coloured, because people copy them.
    console.print(*lines, sep="\n", soft_wrap=True, highlight=False, markup=False)


def training_progress(workspace: Path) -> str:
    """Return the newest progress line that a training below the workspace has written, or ''."""
    logs = list(workspace.glob("runs/*/train_*/training/training.log"))
    if not logs:
        return ""
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    lines = newest.read_text(errors="replace").splitlines()
    steps = [line for line in lines if "] step " in line]
    return steps[-1][steps[-1].index("[") :] if steps else ""


class TaskDisplay:
    """The state of one run's tasks, kept up to date on a terminal."""

    def __init__(self, console: Console, run_id: str) -> None:
        self._console = console
        self._run_id = run_id
        self._shown: dict[str, str] = {}
        self._note, self._noted_at = "", 0.0
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> "TaskDisplay":
        """Begin to show."""
        self._console.rule(self._run_id)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        if self._live:
            self._live.stop()

    def show(self, tasks: list[dict[str, Any]], training: str = "") -> None:
        """Show these task instances, as Airflow's REST API gives them, and how training goes on."""
        tasks = sorted(tasks, key=lambda task: _ORDER.index(task["task_id"]))
        is_training = any(t["task_id"] in _TRAININGS and t["state"] == "running" for t in tasks)
        note = training if is_training else ""
        if self._live:
            self._live.update(Group(_table(tasks), Text(note, style="dim")))
            return
        for task in tasks:
            name, state = task["task_id"], task["state"] or "waiting"
            if state != self._shown.get(name, "waiting") and state not in ("scheduled", "queued"):
                self._shown[name] = state
                self._console.print(f"  {name:22} {state:12} {_duration(task)}")
        if note != self._note and time.monotonic() - self._noted_at > NOTE_EVERY_S:
            self._note, self._noted_at = note, time.monotonic()
            if note:
                self._console.print(f"    {note}", markup=False, highlight=False, soft_wrap=True)


def _table(tasks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="dim")
    for heading in ("stage", "state", "seconds", "attempt"):
        table.add_column(heading, justify="right" if heading in ("seconds", "attempt") else "left")
    for task in tasks:
        state = task["state"] or "waiting"
        colour = _COLOURS.get(state, "dim")
        attempt = str(task["try_number"] or "")
        table.add_row(task["task_id"], f"[{colour}]{state}[/]", _duration(task), attempt)
    return table


def _duration(task: dict[str, Any]) -> str:
    """Return the seconds that the present attempt has taken, or '' before it started."""
    if not task["start_date"]:
        return ""
    start = datetime.fromisoformat(task["start_date"])
    end = datetime.fromisoformat(task["end_date"]) if task["end_date"] else datetime.now(UTC)
    return f"{(end - start).total_seconds():.1f}"


def show_summary(console: Console, settings: Settings, triggers: Sequence[str]) -> None:
    """Print what each cycle came to and took, and how to ask what serves now."""
    for trigger in triggers:
        cycle = find_cycle(settings.workspace_location, trigger, settings)
        lines = [f"{trigger}: did not begin"] if cycle is None else describe(cycle)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    serving = f"which model serves now: {runnable(serving_command(settings))}"
    console.print(serving, markup=False, highlight=False, soft_wrap=True)


def describe(cycle: CycleFacts) -> Iterator[str]:
    """Yield the lines about one cycle, with its times."""
    yield from lines_of(cycle, is_whole=True)
    costs = cycle.costs
    times = ", ".join(f"{each.stage} {each.wall_s:.1f}" for each in costs.stages)
    yield (
        f"  elapsed {costs.elapsed_s:.1f} s, of it {100 * costs.overhead_share:.0f} % outside the "
        f"stages' own work; seconds: {times}"
    )
