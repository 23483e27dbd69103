"""`make retrain` and `make ui`: cycles in a real Airflow on this machine, and the two pages.

Each change of a run's tasks is a line. Not for running stages (Airflow does that) nor for starting
servers (`services`). Tested in tests/pipelines/local/test_retrain.py and test_real_airflow.py.
"""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.alerts.links import PREFIX
from pipelines.alerts.outcomes import what_serves
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.cycle import CycleFacts
from pipelines.contracts.judgement import ENDS
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.cycles.reading import find_cycle, lines_of
from pipelines.local.airflow_api import FINAL_STATES, AirflowApi
from pipelines.local.home import ADMIN, LocalHome
from pipelines.local.services import RunningServices, Say, running
from pipelines.recipes import key_of
from pipelines.settings import DAG_ID, Settings
from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
from pipelines.sources.publish import ingest

POLL_S = 0.5
_ORDER = (*STAGES[:-2], "approve_promotion", *STAGES[-2:], "outcome", *ENDS)
"""Of a run's tasks: the stages, the question to people before a promotion, what it came to."""


def run_id_of(recipe: str, day: str) -> str:
    """Return Airflow's id of a cycle's run, always the same, so that no cycle runs twice."""
    return f"retrain__{key_of(recipe)}__{day}"


def retrain(home: LocalHome, dags: Path, recipe: str, days: tuple[str, ...], say: Say) -> int:
    """Run the cycles one after the other in a real Airflow, show them, and sum up.

    A cycle that has ended well is not run again. A cycle that failed goes on from the tasks that
    failed. An event log is written first if there is none. Return 0, or 1 when a cycle failed.

    Raises:
        RunInProgressError: another copy is running in this home.
        ServiceError: Airflow or MLflow did not come up.
        HomefeedError: there is no event log and none could be made.
    """
    settings, has_ended = Settings(home=str(home.path)), True

    def find(day: str) -> CycleFacts | None:
        return find_cycle(settings.workspace_uri, run_id_of(recipe, day), settings, day)

    if all((cycle := find(day)) is not None and not cycle.next_stage for day in days):
        say("Every cycle has ended well before; nothing to run.")
    else:
        place = settings.event_log_uri
        if not set(storage.list_names(place)) >= set(EVENT_LOG_TABLES):
            say(f"writing the event log of the Complete Journey data to {place} ...")
            ingest(CompleteJourneyAdapter(), place)
        with running(home, dags, say) as services:
            show_addresses(services, say)
            api = AirflowApi(services.ports.airflow_url, home.password())
            api.unpause()
            has_ended = all(_run_cycle(api, services, recipe, day, say) for day in days)
    for day in days:
        cycle = find(day)
        say(next(lines_of(cycle)) if cycle else f"{run_id_of(recipe, day)}: did not begin")
        if cycle and cycle.page_uri:
            say(f"  {storage.local_path(cycle.page_uri)}")
    say(what_serves(settings.workspace_uri, settings.registered_model))
    say(f"see it all: make ui (login {ADMIN}, password in {home.passwords})")
    return int(not has_ended)


def _run_cycle(api: AirflowApi, services: RunningServices, recipe: str, day: str, say: Say) -> bool:
    """Trigger one cycle or take up an old one, follow it to its end, and tell what failed."""
    run_id, shown = run_id_of(recipe, day), dict[str, str]()
    say(run_id)
    found = api.find_run(run_id)
    if found is None:
        asked = {"as_of": day, "recipe": recipe, "promote": True, "devices": 1}
        found = api.trigger(run_id, asked)
    elif found["state"] == "failed":
        say(f"{run_id} failed before; going on from what failed")
        api.clear_failed(run_id)
        found = api.find_run(run_id) or found
    while found["state"] not in FINAL_STATES:
        services.look_after()
        show_changes(api.tasks(run_id), shown, say)
        time.sleep(POLL_S)
        found = api.find_run(run_id) or found
    show_changes(api.tasks(run_id), shown, say)
    say(f"{run_id}: {found['state']}")
    return bool(found["state"] == "success")


def show_changes(tasks: list[dict[str, Any]], shown: dict[str, str], say: Say) -> None:
    """Say which tasks' states have changed; add them to those that were `shown`, by task."""
    for task in sorted(tasks, key=lambda each: _ORDER.index(each["task_id"])):
        name, state = task["task_id"], task["state"] or "waiting"
        if state != shown.get(name, "waiting") and state not in ("scheduled", "queued"):
            shown[name] = state
            took = "" if state == "running" else f" {task.get('duration') or 0:6.0f} s"
            say(f"  {datetime.now(UTC):%H:%M:%S}  {name:22} {state:10}{took}".rstrip())


def keep_up(home: LocalHome, dags: Path, say: Say) -> None:
    """Keep Airflow and MLflow up until Ctrl-C or SIGTERM.

    Raises:
        RunInProgressError: they are up already.
        ServiceError: a service did not come up, or a part of Airflow ended.
    """
    with contextlib.suppress(KeyboardInterrupt), running(home, dags, say) as services:
        show_addresses(services, say)
        say("Ctrl-C ends both.")
        while True:
            services.look_after()
            time.sleep(1)


def show_addresses(services: RunningServices, say: Say) -> None:
    """Say both pages' addresses and the login, and what other commands must know of them."""
    ports = services.ports
    say(f"Airflow  {ports.airflow_url}/dags/{DAG_ID}")
    say(f"Login    {ADMIN}, with the password in {services.home.passwords}")
    say(f"Home     {ports.airflow_url}{PREFIX}/")
    say(f"MLflow   {ports.mlflow_url}")
    airflow, mlflow = ports.airflow_url, ports.mlflow_url
    say(f"For other commands: export HOMEFEED_AIRFLOW_URL={airflow} HOMEFEED_TRACKING_URI={mlflow}")
