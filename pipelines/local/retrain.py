"""`make retrain` and `make ui`: cycles in a real Airflow on this machine, and the two pages.

Each change of a run's tasks is a line, and so is the progress of a training. Not for running stages
(Airflow does that) nor for starting servers (`services`). Tested in
tests/pipelines/local/test_retrain.py and test_real_airflow.py.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pipelines import storage
from pipelines.alerts.commands import ask_who_serves
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.cycles.reading import find_cycle, lines_of
from pipelines.local.airflow_api import FINAL_STATES, AirflowApi
from pipelines.local.home import ADMIN, LocalHome, Ports
from pipelines.local.services import RunningServices, Say, running
from pipelines.recipes import key_of
from pipelines.settings import DAG_ID, Settings

RUN_FAILED_EXIT_CODE = 1
POLL_S, PROGRESS_EVERY_S = 0.5, 10.0
_ORDER = (*STAGES[:-2], "approve_promotion", *STAGES[-2:])
"""Of a run's tasks: the stages, and the question to people before a promotion."""


class Cycle(NamedTuple):
    """One cycle to run: its day and its recipe."""

    as_of: str
    recipe: str

    @property
    def run_id(self) -> str:
        """Airflow's id of the cycle's run, always the same, so that no cycle runs twice."""
        return f"retrain__{key_of(self.recipe)}__{self.as_of}"


def retrain(home: LocalHome, dags: Path, recipe: str, days: tuple[str, ...], say: Say) -> int:
    """Run the cycles one after the other in a real Airflow, show them, and sum up.

    A cycle that has ended well is not run again. A cycle that failed goes on from the tasks that
    failed. Return 0, or 1 when a cycle failed.

    Raises:
        RunInProgressError: another copy is running in this home.
        ServiceError: Airflow or MLflow did not come up.
        DataContractError: there is no event log and none could be made.
    """
    cycles = [Cycle(day, recipe) for day in days]
    settings, has_failed = Settings(home=str(home.path)), False
    found = [find_cycle(settings.workspace_location, each.run_id, settings) for each in cycles]
    if all(cycle is not None and not cycle.next_stage for cycle in found):
        say("Every cycle has ended well before; nothing to run.")
    else:
        try:
            has_failed = not _run_cycles(home, dags, cycles, settings.event_log_location, say)
        except KeyboardInterrupt:
            say("stopped; the same command goes on from what had ended")
            raise
    show_summary(settings, [cycle.run_id for cycle in cycles], say)
    say(f"make ui opens Airflow and MLflow (login {ADMIN} / {home.password()})")
    return RUN_FAILED_EXIT_CODE if has_failed else 0


def _run_cycles(home: LocalHome, dags: Path, cycles: list[Cycle], event_log: str, say: Say) -> bool:
    """Run the cycles in order, on an event log that is written first if there is none.

    Return whether all of them ended well.
    """
    if not set(storage.list_names(storage.to_uri(event_log))) >= set(EVENT_LOG_TABLES):
        say(f"writing the event log of the Complete Journey data to {event_log} ...")
        words = ["ingest", "completejourney", "--to", event_log]
        done = subprocess.run([sys.executable, "-m", "pipelines.cli", *words], check=False)
        if done.returncode != 0:
            raise DataContractError(
                f"the event log could not be written (exit code {done.returncode}); mend what is "
                f"said above, then run the same command again"
            )
    with running(home, dags, say) as services:
        show_addresses(home, services.ports, say)
        api = AirflowApi(services.ports.airflow_url, home.password())
        api.wait_for_dag()
        api.set_paused(False)
        return all(_run_cycle(api, services, cycle, say) for cycle in cycles)


def _run_cycle(api: AirflowApi, services: RunningServices, cycle: Cycle, say: Say) -> bool:
    """Trigger one cycle or take up an old one, follow it to its end, and tell what failed."""
    run_id, shown, workspace = cycle.run_id, dict[str, str](), services.home.workspace
    told, told_at = last_line(workspace), time.monotonic()
    say(run_id)
    found = api.find_run(run_id)
    if found is None:
        found = api.trigger(run_id, {**cycle._asdict(), "promote": True, "devices": 1})
    elif found["state"] == "failed":
        say(f"{run_id} failed before; going on from what failed")
        api.clear_failed(run_id)
        found = api.find_run(run_id) or found
    while found["state"] not in FINAL_STATES:
        services.look_after()
        show_changes(api.tasks(run_id), shown, say)
        if time.monotonic() - told_at > PROGRESS_EVERY_S:
            told_at, before, told = time.monotonic(), told, last_line(workspace)
            if told not in ("", before):
                say(f"    {told}")
        time.sleep(POLL_S)
        found = api.find_run(run_id) or found
    show_changes(api.tasks(run_id), shown, say)
    say(f"{run_id}: {found['state']}, see {services.ports.airflow_url}/dags/{DAG_ID}/runs/{run_id}")
    return bool(found["state"] == "success")


def show_changes(tasks: list[dict[str, Any]], shown: dict[str, str], say: Say) -> None:
    """Say which tasks' states have changed; add them to those that were `shown`, by task."""
    for task in sorted(tasks, key=lambda each: _ORDER.index(each["task_id"])):
        name, state = task["task_id"], task["state"] or "waiting"
        if state != shown.get(name, "waiting") and state not in ("scheduled", "queued"):
            shown[name] = state
            say(f"  {datetime.now(UTC):%H:%M:%S}  {name:22} {state}")


def last_line(workspace: Path) -> str:
    """Return the newest line in the logs of the trainings that go on below a workspace, or ''."""
    logs = sorted(
        workspace.glob("runs/*/train_*/training/training.log"), key=lambda log: log.stat().st_mtime
    )
    lines = logs[-1].read_text(errors="replace").splitlines() if logs else []
    return lines[-1] if lines else ""


def keep_up(home: LocalHome, dags: Path, say: Say) -> None:
    """Keep Airflow and MLflow up until Ctrl-C or SIGTERM.

    Raises:
        RunInProgressError: they are up already.
        ServiceError: a service did not come up, or a part of Airflow ended.
    """
    with contextlib.suppress(KeyboardInterrupt), running(home, dags, say) as services:
        AirflowApi(services.ports.airflow_url, home.password()).wait_for_dag()
        show_addresses(home, services.ports, say)
        say("Ctrl-C ends both.")
        while True:
            services.look_after()
            time.sleep(1)
    say("ended")


def show_addresses(home: LocalHome, ports: Ports, say: Say) -> None:
    """Say both pages' addresses and the login, and what other commands must know of them."""
    say(f"Airflow  {ports.airflow_url}/dags/{DAG_ID}   login {ADMIN} / {home.password()}")
    say(f"MLflow   {ports.mlflow_url}")
    if ports.mlflow_url != Settings.model_fields["tracking_uri"].default:
        say(f"For other commands: export HOMEFEED_TRACKING_URI={ports.mlflow_url}")


def show_summary(settings: Settings, triggers: Sequence[str], say: Say) -> None:
    """Say what each cycle came to, and how to ask what serves now."""
    for trigger in triggers:
        cycle = find_cycle(settings.workspace_location, trigger, settings)
        lines = [f"{trigger}: did not begin"] if cycle is None else lines_of(cycle)
        for line in lines:
            say(line)
    say(f"which model serves now: {ask_who_serves(settings)[1]}")
