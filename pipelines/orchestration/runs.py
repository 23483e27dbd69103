"""A run of the DAG: what it asks for, and whom Airflow has told of its end.

A run that cannot be resolved has no folder: what is to be said of it is left in an XCom. It is
tested in a real Airflow too: tests/pipelines/local/test_real_airflow.py and test_real_faults.py.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipelines.contracts.alert import Unresolved
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.errors import ASKED, ConfigurationError, HomefeedError
from pipelines.contracts.time import floor_to_day, parse_instant
from pipelines.orchestration.containers import Hardware
from pipelines.plain_text import as_markdown, one_line, shortened
from pipelines.recipes import canonical
from pipelines.recipes.references import require_triggerable
from pipelines.settings import Settings

OPTIONS = ("as_of", "recipe", "promote", "accelerator", "devices", "nodes")
"""What a run may be asked for: the names of the DAG's params."""
NOTE_KEY, LIMIT = "run_note", 1000
"""XCom key under which a task leaves its part of the run's note, in Markdown; characters of a note
that Airflow keeps."""
FAILURE_KEY = "failure"
"""XCom key under which `resolve_run` leaves an `Unresolved`."""


def request_of(params: Mapping[str, Any], dag_run: Any) -> RunRequest:
    """Return what an Airflow run asks for.

    Its as_of is the form's day, else the data interval's end, else the run's own time; midnight
    UTC. A manual run may have no interval. A backfill never promotes.

    Args:
        params: As the trigger form gave them; `as_of` is 'YYYY-MM-DD', None or ''.
        dag_run: Its run_id names the cycle: a cleared or retried task finds the same one again.

    Raises:
        ConfigurationError: the day is none; the run's conf has a key that is no option, which
            Airflow itself would pass over.
    """
    if unknown := [name for name in dag_run.conf or {} if name not in OPTIONS]:
        raise ConfigurationError(
            f"the run's conf has {', '.join(map(repr, unknown))}, which would change nothing; "
            f"expected only {', '.join(OPTIONS)}; trigger the cycle anew without it"
        )
    day = parse_instant(params["as_of"], "as_of") if params["as_of"] else None
    return RunRequest(
        recipe=canonical(params["recipe"]),
        as_of=floor_to_day(day or dag_run.data_interval_end or dag_run.run_after),
        now=dag_run.run_after,
        may_promote=params["promote"] and dag_run.run_type != "backfill",
        num_devices=params["devices"],
        accelerator=params["accelerator"],
        num_nodes=params["nodes"],
        trigger=dag_run.run_id,
    )


def start_cycle(
    params: Mapping[str, Any], dag_run: Any, ti: Any, settings: Settings
) -> dict[str, Any]:
    """Resolve the cycle that an Airflow run asks for; a scheduled one accounts for due dates first.

    Args:
        params: as the trigger form gave them.
        dag_run: the run.
        ti: where a failure is left for the alert, which finds no run here.
        settings: places and schedule.

    Returns:
        run_uri of the cycle, and the hardware that it trains on (a `Hardware`): all that the other
        tasks need.

    Raises:
        ConfigurationError: as `request_of` does; the recipe would run functions of a package that
            is not allowed here.
        HomefeedError: as `pipelines.stages.light.resolve_run` does.
        AirflowSkipException: as `pipelines.orchestration.schedule.account_for` does; a person has
            triggered what cannot be, such as a day that the log does not reach. That pages nobody:
            the run's note says what would do.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from pipelines.orchestration import schedule
    from pipelines.stages import runner

    request = None
    os.umask(int(settings.umask, 8))  # The workspace's first folder may be made by this process.
    try:
        request = request_of(params, dag_run)
        require_triggerable(request.recipe, settings)
        if dag_run.run_type == "scheduled":
            schedule.account_for(dag_run, request, settings)
        run = runner.start_run(request, settings)
        require_triggerable(run.config.reference, settings, run.config)
    except HomefeedError as error:
        if dag_run.run_type == "manual" and (request is None or error.kind == ASKED):
            told = as_markdown(one_line(str(error)))
            day = f"**{request.day:%Y-%m-%d}** " if request else ""
            ti.xcom_push(NOTE_KEY, f"{day}**NOT BEGUN**: {shortened(told, LIMIT // 2)}")
            raise AirflowSkipException(f"not begun: {error}") from error
        left = runner.unresolved(error, request, settings)
        ti.xcom_push(FAILURE_KEY, left.model_dump(mode="json"))
        raise
    hardware = Hardware(accelerator=run.accelerator, devices=run.num_devices, nodes=run.num_nodes)
    return {"run_uri": run.run_uri, "hardware": hardware}


def unresolved_of(ti: Any) -> Unresolved | None:
    """Return what `resolve_run` left when it failed in a run; None where it left nothing."""
    left = ti.xcom_pull(task_ids="resolve_run", key=FAILURE_KEY)
    return Unresolved.model_validate(left) if left else None


def alert_broken_run(context: Mapping[str, Any]) -> None:
    """Alert once about a run that failed; Airflow calls this in its DAG processor.

    Airflow sees the whole run, so this also hears of a killed worker and of a run that timed out.
    """
    from pipelines.alerts import compose
    from pipelines.alerts.incidents import tell
    from pipelines.stages.light import tell_failure
    from pipelines.stages.runner import read_artifact

    ti, settings = context.get("ti"), Settings()
    dag_run: Any = context.get("dag_run")
    if ti and (resolved := ti.xcom_pull(task_ids="resolve_run")):
        # With its instant: the same run that ends so again has failed again.
        reason, began = str(context.get("reason")), getattr(ti, "start_date", None)
        ended = compose.Ended(ti.task_id, reason, began, dag_run.end_date)
        run = read_artifact(resolved["run_uri"], "resolve_run", ResolvedRun)
        tell_failure(run, settings, ended)
        return
    left = unresolved_of(ti) if ti else None
    # Whoever clears a run begins it anew. Where the task never starts again, Airflow still has what
    # an earlier attempt left.
    if left is None or (dag_run.start_date and left.at < dag_run.start_date):
        left = Unresolved(at=getattr(dag_run, "end_date", None) or datetime.now(UTC))
    tell(compose.compose_unresolved(context["run_id"], left, settings), settings)


def tell_ended_run(context: Mapping[str, Any]) -> None:
    """Tell people that a run has ended well after runs that broke; Airflow calls this for each."""
    from pipelines.alerts.incidents import tell_recovered

    ti = context.get("ti")
    # A run that was skipped has ended well, too, and says nothing.
    if ti and (resolved := ti.xcom_pull(task_ids="resolve_run")):
        tell_recovered(resolved["run_uri"], Settings())
