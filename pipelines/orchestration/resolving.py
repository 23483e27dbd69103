"""What an Airflow run asks for, as a request for `resolve_run`, and what is left if it fails."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pipelines.contracts.alert import Cause, NextStep, Unresolved
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
)
from pipelines.contracts.time import floor_to_day, parse_instant
from pipelines.orchestration.containers import Hardware
from pipelines.recipes import canonical
from pipelines.recipes.references import require_triggerable
from pipelines.settings import Settings

OPTIONS = ("as_of", "recipe", "promote", "accelerator", "devices", "nodes")
"""What a run may be asked for: the names of the DAG's params."""
FAILURE_KEY = "failure"
"""XCom key under which `resolve_run` leaves an `Unresolved`."""


def unresolved_of(ti: Any) -> Unresolved | None:
    """Return what `resolve_run` left when it failed in a run; None where it left nothing."""
    left = ti.xcom_pull(task_ids="resolve_run", key=FAILURE_KEY)
    return Unresolved.model_validate(left) if left else None


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
    params: Mapping[str, Any], dag_run: Any, ti: Any, settings: Settings, catchup: bool = False
) -> dict[str, Any]:
    """Resolve the cycle that an Airflow run asks for; a scheduled one accounts for due dates first.

    Args:
        params: as the trigger form gave them.
        dag_run: the run.
        ti: where a failure is left for the alert, which finds no run here.
        settings: places and schedule.
        catchup: the DAG's own; with it a scheduled run is run however late it is.

    Returns:
        run_id, run_uri and as_of of the cycle, and the hardware that it trains on (a `Hardware`):
        all that the other tasks need.

    Raises:
        ConfigurationError: as `request_of` does; the recipe would run functions of a package that
            is not allowed here.
        HomefeedError: as `pipelines.stages.resolve_run.resolve_run` does.
        AirflowSkipException: as `pipelines.orchestration.schedule.account_for` does.
    """
    from pipelines.orchestration import schedule
    from pipelines.stages import runner

    request, day = None, None
    try:
        request = request_of(params, dag_run)
        require_triggerable(request.recipe, settings)
        if dag_run.run_type == "scheduled":
            schedule.account_for(dag_run, request, settings, catchup)
        try:
            run = runner.start_run(request, settings)
        except DataContractError:
            day = None if params["as_of"] else newest_day_to_enter(request, settings)
            if day is None:
                raise
            raise DataContractError(
                f"no as_of was entered, so that this run is as of {request.day:%Y-%m-%d}, and the "
                f"event log at {settings.event_log_location} ends with {day - timedelta(days=1)}; "
                f"trigger the cycle anew with {day} as As of in the form, or as_of in the conf; or "
                f"ingest newer days"
            ) from None
        require_triggerable(run.config.reference, settings, run.config)
    except HomefeedError as error:
        left = _left(error, request, day, settings)
        ti.xcom_push(FAILURE_KEY, left.model_dump(mode="json"))
        raise
    hardware = Hardware(accelerator=run.accelerator, devices=run.num_devices, nodes=run.num_nodes)
    as_of = f"{run.as_of:%Y-%m-%d}"
    return {"run_id": run.run_id, "run_uri": run.run_uri, "as_of": as_of, "hardware": hardware}


def _left(
    error: HomefeedError, request: RunRequest | None, day: date | None, settings: Settings
) -> Unresolved:
    """Return what people are told of a run without a cycle; `day` is one that would do."""
    from pipelines.alerts.compose import after_unresolved, cycle_of
    from pipelines.stages.runner import raised_by

    name, entered = type(error).__name__, f", with As of {day}" if day else ""
    step = NextStep(
        sentence=f"Nothing of this run can go on. Trigger the cycle anew{entered}.", commands=()
    )
    return Unresolved(
        message=f"{name}: {error}",
        cause=Cause(
            stage="resolve_run", error_class=name, raised_by=raised_by(error), about=error.about
        ),
        next_step=after_unresolved(request, settings) if request and not day else step,
        at=datetime.now(UTC),
        cycle=cycle_of(request) if request else None,
    )


def newest_day_to_enter(request: RunRequest, settings: Settings) -> date | None:
    """Return the day after a log's last, where the log has ended before what the recipe needs.

    A sample, or a log that nobody writes any more, has rows of its own time only.
    """
    from pipelines import storage
    from pipelines.event_log.log_files import open_event_log
    from pipelines.recipes import make_recipe
    from pipelines.snapshot.build import check_covered
    from pipelines.snapshot.plan import plan_of

    try:
        log = open_event_log(storage.to_uri(settings.event_log_location))
        newest = log.span("impressions")[1] + timedelta(days=1)
        recipe = make_recipe(request.recipe)
        check_covered(log, plan_of(recipe, datetime.combine(newest, time(), UTC)))
    except HomefeedError:
        return None  # what was refused says more
    try:
        check_covered(log, plan_of(recipe, request.day))
    except DataContractError:
        return newest if newest < request.day.date() else None
    return None
