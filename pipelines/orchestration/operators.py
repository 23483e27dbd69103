"""What the DAG is wired from: stages as commands under Airflow's operators, retries, callbacks.

Not for what a stage does (`pipelines.stages`), nor for the wiring (`dags/homefeed_retrain.py`).
Imported by the DAG file: nothing heavy here.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator, RetryDecision, RetryPolicy

from pipelines.contracts.errors import PERMANENT_EXIT_CODES, ConfigurationError, HomefeedError
from pipelines.settings import Settings

_EXIT_CODE = re.compile(r"(?:exit[ _]code|StatusCode)\W{0,4}(\d+)", re.IGNORECASE)
"""How the three operators name a command's exit code in the message of their exception."""

FAILURE_KEY = "failure"
"""XCom key under which `resolve_run` leaves why it failed."""


class StageRetryPolicy(RetryPolicy):
    """Fails a task at once when trying again cannot help; leaves everything else to `retries`.

    A light stage's own exception says so itself; a heavy stage says it by its exit code.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        """Return FAIL for bad data (65), a refusal (77), bad configuration (78), bad usage (64)."""
        exit_code = exit_code_of(exception)
        if exit_code in PERMANENT_EXIT_CODES:
            return RetryDecision.fail(f"exit code {exit_code}: trying again cannot help")
        return RetryDecision.default()


def exit_code_of(exception: BaseException) -> int | None:
    """Return the exit code that a stage's exception stands for, or None if it carries none."""
    if isinstance(exception, HomefeedError):
        return exception.exit_code
    found = _EXIT_CODE.search(str(exception))
    return int(found.group(1)) if found else None


_END_WITH_WORKER = """
worker() {
  while read -r key value; do [ "$key" = PPid: ] && echo "$value"; done < "/proc/$PPID/status"
}
(
  trap '' TERM
  first=$(worker)
  while sleep 2 && kill -0 $$; do
    [ "$(worker)" = "$first" ] && continue
    kill -TERM -- -$$
    sleep 20
    kill -KILL -- -$$
  done
) </dev/null >/dev/null 2>&1 &
"""
"""Ends a stage whose Airflow worker was killed; else the retry would meet it, still training.

`pipelines.contracts.processes` says why the kernel's own means does not reach so far.
The shell's parent is Airflow's task runner, and that one's parent the worker: if either changes,
the shell's process group gets SIGTERM. Where there is no /proc nothing is ever ended.
"""


def stage_operator(name: str, run_uri: Any, timeout: timedelta, settings: Settings) -> BaseOperator:
    """Return the task of one heavy stage: `homefeed stage NAME --run URI`.

    Args:
        name: the stage, also the task's id.
        run_uri: URI of the run folder; usually a reference to `resolve_run`'s result, which is
            rendered into an environment variable or an argument of its own, never into shell text.
        timeout: how long one attempt may take.
        settings: `stage_runner` chooses the operator.

    Raises:
        ConfigurationError: a container runner has no image.
    """
    return _RUNNERS[settings.stage_runner](name, run_uri, timeout, settings)


def _in_bash(name: str, run_uri: Any, timeout: timedelta, settings: Settings) -> BaseOperator:
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: PLC0415

    return BashOperator(
        task_id=name,
        # exec: the stage takes the shell's place, so that a signal reaches it and its exit code
        # is the task's.
        bash_command=(
            f'{_END_WITH_WORKER}exec {settings.command} stage {name} --run "$HOMEFEED_RUN_URI"'
        ),
        env={"HOMEFEED_RUN_URI": run_uri},
        append_env=True,
        skip_on_exit_code=None,
        execution_timeout=timeout,
    )


def _in_docker(name: str, run_uri: Any, timeout: timedelta, settings: Settings) -> BaseOperator:
    from airflow.providers.docker.operators.docker import DockerOperator  # noqa: PLC0415

    return DockerOperator(
        task_id=name,
        image=_image(settings),
        command=_arguments(name, run_uri, settings),
        private_environment=_environment(settings),
        mount_tmp_dir=False,
        auto_remove="force",
        execution_timeout=timeout,
    )


def _in_kubernetes(name: str, run_uri: Any, timeout: timedelta, settings: Settings) -> BaseOperator:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator  # noqa: PLC0415

    command, *arguments = _arguments(name, run_uri, settings)
    return KubernetesPodOperator(
        task_id=name,
        name=f"homefeed-{name.replace('_', '-')}",
        image=_image(settings),
        cmds=[command],
        arguments=arguments,
        env_vars=_environment(settings),
        do_xcom_push=False,
        durable=True,
        on_finish_action="delete_succeeded_pod",
        deferrable=True,
        execution_timeout=timeout,
    )


_RUNNERS: dict[str, Callable[[str, Any, timedelta, Settings], BaseOperator]] = {
    "bash": _in_bash,
    "docker": _in_docker,
    "kubernetes": _in_kubernetes,
}


def _arguments(name: str, run_uri: Any, settings: Settings) -> list[Any]:
    """Return the command as a list: no shell, so nothing in it is split or expanded."""
    return [*shlex.split(settings.command), "stage", name, "--run", run_uri]


def _environment(settings: Settings) -> dict[str, str]:
    """Return what a container must know of the deployment; no secret is among it."""
    return {
        "HOMEFEED_EVENT_LOG": settings.event_log_location,
        "HOMEFEED_WORKSPACE": settings.workspace_location,
        "HOMEFEED_TRACKING_URI": settings.tracking_uri,
    }


def _image(settings: Settings) -> str:
    if not settings.stage_image:
        raise ConfigurationError(
            f"HOMEFEED_STAGE_IMAGE is empty, which runner {settings.stage_runner!r} needs; "
            f"set it to the image that holds the `homefeed` command"
        )
    return settings.stage_image


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
    if param:
        try:
            return datetime.combine(date.fromisoformat(param), time.min, UTC)
        except ValueError as error:
            raise ConfigurationError(
                f"as_of is {param!r}; expected a day such as 2026-01-05; trigger again with one"
            ) from error
    chosen = (interval_end or run_after).astimezone(UTC)
    return datetime.combine(chosen.date(), time.min, UTC)


def resolve(params: Mapping[str, Any], dag_run: Any, ti: Any, settings: Settings) -> dict[str, str]:
    """Resolve the cycle that an Airflow run asks for.

    Args:
        params: as the trigger form gave them.
        dag_run: its run_id names the cycle: a cleared or retried task finds the same one again.
        ti: where a failure is left for the alert, since there is no run folder yet.
        settings: places.

    Returns:
        run_id, run_uri and as_of of the cycle: all that the other tasks need.

    Raises:
        HomefeedError: as `pipelines.stages.resolve_run.resolve_run` does.
    """
    from pipelines.stages.resolve_run import RunRequest, resolve_run  # noqa: PLC0415

    try:
        as_of = choose_as_of(params["as_of"], dag_run.data_interval_end, dag_run.run_after)
        request = RunRequest(
            recipe=params["recipe"],
            as_of=as_of,
            now=dag_run.run_after,
            may_promote=params["promote"] and dag_run.run_type != "backfill",
            num_devices=params["devices"],
            accelerator=settings.accelerator,
            trigger=dag_run.run_id,
        )
        run = resolve_run(request, settings)
    except HomefeedError as error:
        ti.xcom_push(FAILURE_KEY, _unresolved(error, params, dag_run.run_id))
        raise
    return {"run_id": run.run_id, "run_uri": run.run_uri, "as_of": f"{run.as_of:%Y-%m-%d}"}


def _unresolved(error: HomefeedError, params: Mapping[str, Any], run_id: str) -> dict[str, str]:
    """Return what the alert needs to say about a cycle that has no folder."""
    as_of = f" --as-of {shlex.quote(params['as_of'])}" if params["as_of"] else ""
    promote = "--promote" if params["promote"] else "--no-promote"
    return {
        "message": f"{type(error).__name__}: {error}",
        "command": f"homefeed resolve{as_of} --recipe {shlex.quote(params['recipe'])} "
        f"--devices {params['devices']} {promote} --key {shlex.quote(run_id)}",
    }


def announce_promotion(manifest_uri: str, events: Any, alias: AssetAlias, champion: Asset) -> None:
    """Update the asset `champion` if `promote_challenger` promoted, and leave it alone if not.

    Args:
        manifest_uri: of `promote_challenger`.
        events: the task's outlet_events.
        alias: the task's outlet; an alias without an event updates no asset.
        champion: the asset that others schedule on.
    """
    from pipelines import storage  # noqa: PLC0415
    from pipelines.contracts.artifacts import StageRecord  # noqa: PLC0415
    from pipelines.contracts.judgement import Promotion

    record = storage.read_model(manifest_uri, StageRecord)
    promotion = Promotion.model_validate(record.artifact)
    if promotion.is_promoted and promotion.champion_after is not None:
        extra = {"version": promotion.champion_after.version, "reason": promotion.reason}
        events[alias].add(champion, extra=extra)


def alert_broken_run(context: Mapping[str, Any]) -> None:
    """Alert once about a run that failed; Airflow calls this in its DAG processor.

    Airflow sees the whole run, so this also hears of a killed worker and of a run that timed out.
    """
    from pipelines.alerts.compose import alert_on_failure, alert_on_unresolved  # noqa: PLC0415

    ti: Any = context.get("ti")
    settings, reason = Settings(), str(context.get("reason", ""))
    resolved = ti.xcom_pull(task_ids="resolve_run") if ti else None
    if resolved:
        alert_on_failure(resolved["run_uri"], settings, ti.task_id, reason)
        return
    left = ti.xcom_pull(task_ids="resolve_run", key=FAILURE_KEY) if ti else None
    left = left or {"message": "", "command": "homefeed serving"}
    alert_on_unresolved(context["run_id"], left["message"], left["command"], settings)
