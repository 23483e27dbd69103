"""The factory of the heavy stages' tasks: the command line under one of Airflow's own operators.

BashOperator runs it on the worker, DockerOperator and KubernetesPodOperator in a container. Logs,
the end of a process group, deferral and reconnection are the operators' business. Imported by the
DAG file, so nothing heavy is imported here.
"""

import shlex
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
        settings: `stage_runner` chooses the operator. `train_anchor` may have an image or a
            command of its own: the code that the recipe was accepted by.

    Raises:
        ConfigurationError: a container runner has no image.
    """
    task: dict[str, Any] = {"task_id": name, "execution_timeout": timeout}
    if settings.stage_runner != "bash":
        return _in_container(name, run_uri, settings, task)
    from airflow.providers.standard.operators.bash import BashOperator

    return BashOperator(
        # With exec the stage takes the shell's place: a signal reaches the stage, and its exit code
        # is that of the task.
        bash_command=(
            f"{_END_WITH_WORKER}exec {settings.command_of(name)} stage {name} "
            '--run "$HOMEFEED_RUN_URI"'
        ),
        env={"HOMEFEED_RUN_URI": run_uri},
        append_env=True,
        skip_on_exit_code=None,
        **task,
    )


def _in_container(
    name: str, run_uri: Any, settings: Settings, task: dict[str, Any]
) -> BaseOperator:
    if not settings.stage_image:
        raise ConfigurationError(
            f"HOMEFEED_STAGE_IMAGE is empty, which runner {settings.stage_runner!r} needs; "
            f"set it to the image that holds the `homefeed` command"
        )
    # A list and no shell: nothing in it is split or expanded.
    command = [*shlex.split(settings.command_of(name)), "stage", name, "--run", run_uri]
    # What a container must know of the deployment; no secret is among it.
    environment = {
        "HOMEFEED_EVENT_LOG": settings.event_log_location,
        "HOMEFEED_WORKSPACE": settings.workspace_location,
        "HOMEFEED_TRACKING_URI": settings.tracking_uri,
    }
    if settings.stage_runner == "docker":
        from airflow.providers.docker.operators.docker import DockerOperator

        return DockerOperator(
            image=settings.image_of(name),
            command=command,
            private_environment=environment,
            mount_tmp_dir=False,
            auto_remove="force",
            **task,
        )
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    return KubernetesPodOperator(
        name=f"homefeed-{name.replace('_', '-')}",
        image=settings.image_of(name),
        cmds=command[:1],
        arguments=command[1:],
        env_vars=environment,
        do_xcom_push=False,
        durable=True,
        on_finish_action="delete_succeeded_pod",
        deferrable=True,
        **task,
    )
