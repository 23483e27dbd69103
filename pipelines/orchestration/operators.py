"""The factory of the heavy stages' tasks: the command line under one of Airflow's own operators.

BashOperator runs it on the worker, DockerOperator and KubernetesPodOperator in a container. Logs,
the end of a process group, deferral and reconnection are the operators' business. Imported by the
DAG file, so nothing heavy is imported here.
"""

import shlex
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings

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
"""Ends a stage whose Airflow worker was killed. Without it the retry would meet the old training.

`pipelines.contracts.processes` says why the kernel's own means does not reach so far.
The shell's parent is Airflow's task runner, and the task runner's parent is the worker. If either
of them changes, the shell's process group gets SIGTERM. Where there is no /proc nothing is ended.
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
    from airflow.providers.standard.operators.bash import BashOperator

    return BashOperator(
        task_id=name,
        # With exec the stage takes the shell's place: a signal reaches the stage, and its exit code
        # is that of the task.
        bash_command=(
            f'{_END_WITH_WORKER}exec {settings.command} stage {name} --run "$HOMEFEED_RUN_URI"'
        ),
        env={"HOMEFEED_RUN_URI": run_uri},
        append_env=True,
        skip_on_exit_code=None,
        execution_timeout=timeout,
    )


def _in_docker(name: str, run_uri: Any, timeout: timedelta, settings: Settings) -> BaseOperator:
    from airflow.providers.docker.operators.docker import DockerOperator

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
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

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
