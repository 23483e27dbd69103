"""What an Airflow run asks for, as a request for `resolve_run`, and what is left if it fails."""

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    LostRaceError,
)
from pipelines.contracts.time import floor_to_day, parse_instant
from pipelines.orchestration.containers import Hardware
from pipelines.orchestration.shown.form import hold_text
from pipelines.orchestration.shown.keys import FAILURE_KEY
from pipelines.recipes import canonical
from pipelines.recipes.triggering import require_triggerable, require_triggerable_features
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.contracts.judged.alert import NextStep

OPTIONS = ("as_of", "recipe", "promote", "accelerator", "devices", "nodes")
"""What a run may be asked for: the names of the DAG's params."""


def choose_as_of(param: str | None, interval_end: datetime | None, run_after: datetime) -> datetime:
    """Return a run's as_of: the param, else the data interval's end, else the run's own time.

    Args:
        param: a day as 'YYYY-MM-DD' or None, from the trigger form.
        interval_end: None in a manual run without a logical date.
        run_after: always set by Airflow.

    Returns:
        Midnight UTC of that day.

    Raises:
        ConfigurationError: the param is not a day.
    """
    chosen = parse_instant(param, "as_of") if param else interval_end or run_after
    return floor_to_day(chosen)


def start_cycle(
    params: Mapping[str, Any], dag_run: Any, ti: Any, settings: Settings, catchup: bool = False
) -> dict[str, Any]:
    """Resolve the cycle that an Airflow run asks for.

    A scheduled run first accounts for the due dates up to its own.

    Args:
        params: as the trigger form gave them.
        dag_run: its run_id names the cycle: a cleared or retried task finds the same one again.
        ti: where a failure is left for the alert, which finds no run here.
        settings: places and schedule.
        catchup: the DAG's own; with it a scheduled run is run however late it is.

    Returns:
        run_id, run_uri and as_of of the cycle, and the hardware that it trains on (a `Hardware`):
        all that the other tasks need.

    Raises:
        ConfigurationError: the run's conf has a key that is no option; the recipe would run
            functions of a package that is not allowed here.
        HomefeedError: as `pipelines.stages.resolve_run.resolve_run` does.
        AirflowSkipException: as `pipelines.orchestration.missed.account_for` does.
    """
    from pipelines.alerts.next_step import after_unresolved
    from pipelines.orchestration.missed import account_for
    from pipelines.stages.resolve_run import run_uri_of
    from pipelines.stages.runner import start_run

    _require_known(dag_run.conf or {}, ti)
    allowed = canonical(settings.recipe), settings.triggerable_packages
    request, has_day = _request_of(params, dag_run), bool(params["as_of"])
    is_looking = False
    try:
        require_triggerable(request.recipe, *allowed)
        if dag_run.run_type == "scheduled":
            account_for(dag_run, request, settings, catchup)
        as_of = choose_as_of(params["as_of"], dag_run.data_interval_end, dag_run.run_after)
        request = request.model_copy(update={"as_of": as_of})
        is_looking = True
        run = start_run(request, settings)
        require_triggerable_features(run.config, *allowed)
    except HomefeedError as error:
        if is_looking and not has_day and isinstance(error, DataContractError):
            _explain_ended_log(request, settings, ti)
        step = after_unresolved(request, settings)
        left = _left(f"{type(error).__name__}: {error}", step, request)
        if isinstance(error, LostRaceError):
            left["lost_in"] = run_uri_of(request, settings)
        ti.xcom_push(FAILURE_KEY, left)
        raise
    hold_text(settings)
    return {
        "run_id": run.run_id,
        "run_uri": run.run_uri,
        "as_of": f"{run.as_of:%Y-%m-%d}",
        "hardware": hardware_of(run),
    }


def _explain_ended_log(request: RunRequest, settings: Settings, ti: Any) -> None:
    """Refuse a run without a day on a log that has ended, with the day that can be entered.

    Raises:
        DataContractError: the log has ended, and a day can be entered.
    """
    from pipelines.contracts.judged.alert import NextStep
    from pipelines.orchestration.shown.ended_log import day_to_enter, explain

    day = day_to_enter(request, settings)
    if day is None:
        return
    error = DataContractError(explain(request, day, settings))
    # Clearing the task would ask for the same day again.
    said = f"Nothing of this run can go on. Trigger the cycle anew, with As of {day}."
    step = NextStep(sentence=said, commands=())
    ti.xcom_push(FAILURE_KEY, _left(f"{type(error).__name__}: {error}", step, request))
    raise error


def _left(message: str, step: "NextStep", request: RunRequest | None = None) -> dict[str, Any]:
    """Return what the alert finds of a run that has no folder.

    By its instant a failure of the same run that is like an earlier one is known to be another.
    """
    from pipelines.alerts.incidents import cycle_of

    left = {
        "message": message,
        "next_step": step.model_dump(mode="json"),
        "at": datetime.now(UTC).isoformat(),
    }
    return left | ({"cycle": cycle_of(request).model_dump(mode="json")} if request else {})


def _require_known(conf: Mapping[str, Any], ti: Any) -> None:
    """Refuse a run whose conf names what is no option: Airflow itself would pass it over.

    Raises:
        ConfigurationError: it names one, perhaps with a typing error.
    """
    from pipelines.contracts.judged.alert import NextStep

    unknown = [name for name in conf if name not in OPTIONS]
    if not unknown:
        return
    near = get_close_matches(str(unknown[0]), OPTIONS, n=1)
    hint = f" (perhaps {near[0]!r} is meant)" if near else ""
    message = (
        f"the run's conf has {', '.join(map(repr, unknown))}{hint}, which would change nothing; "
        f"expected only {', '.join(OPTIONS)}; trigger the cycle anew without it"
    )
    # Clearing the task would meet the same conf again.
    step = NextStep(sentence="Nothing of this run can go on. Trigger the cycle anew.", commands=())
    ti.xcom_push(FAILURE_KEY, _left(message, step))
    raise ConfigurationError(message)


def _request_of(params: Mapping[str, Any], dag_run: Any) -> RunRequest:
    """Return what the trigger form asks for; the form's day, which may be none, is not read yet."""
    return RunRequest(
        recipe=canonical(params["recipe"]),
        as_of=choose_as_of(None, dag_run.data_interval_end, dag_run.run_after),
        now=dag_run.run_after,
        may_promote=params["promote"] and dag_run.run_type != "backfill",
        num_devices=params["devices"],
        accelerator=params["accelerator"],
        num_nodes=params["nodes"],
        trigger=dag_run.run_id,
    )


def hardware_of(run: ResolvedRun) -> Hardware:
    """Return what a cycle trains on, as it crosses to the tasks that start its containers."""
    return {
        "accelerator": run.accelerator,
        "devices": run.num_devices,
        "nodes": run.num_nodes,
    }
