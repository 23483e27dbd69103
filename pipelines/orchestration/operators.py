"""The factory of the heavy stages' tasks: the command line under one of Airflow's own operators.

BashOperator runs it on the worker, DockerOperator in a container, KubernetesPodOperator in a pod
and KubernetesJobOperator, for trainings, in a pod on each machine. Logs, the end of a process
group, deferral and reconnection are the operators' business. Imported by the DAG file, so nothing
heavy is imported here.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import BaseOperator

from pipelines.contracts.code_identity import DAG_CODE
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


def stage_operator(
    name: str, run_uri: Any, timeout: timedelta, settings: Settings, hardware: Any = None
) -> BaseOperator:
    """Return the task of one heavy stage: `homefeed stage NAME URI`.

    Args:
        name: the stage, also the task's id.
        run_uri: URI of the run folder; usually a reference to `resolve_run`'s result, which is
            rendered into an environment variable or an argument of its own, never into shell text.
        timeout: how long one attempt may take.
        settings: `stage_runner` chooses the operator. `train_anchor` may have an image or a
            command of its own: the code that the recipe was accepted by.
        hardware: a `Hardware`, or a reference to `resolve_run`'s; None for one process on CPUs.

    Raises:
        ConfigurationError: a container runner has no image.
    """
    if settings.stage_runner == "bash":
        # With exec the stage takes the shell's place: a signal reaches the stage, and its exit code
        # is that of the task.
        command = f'{settings.command_of(name)} stage {name} "$HOMEFEED_RUN_URI"'
        return BashOperator(
            task_id=name,
            execution_timeout=timeout,
            bash_command=f"{_END_WITH_WORKER}exec {command}",
            # A log redraws no progress bars of libraries; a DAG's code of '' says who begins it.
            env={"HOMEFEED_RUN_URI": run_uri, DAG_CODE: "", "TQDM_DISABLE": "1"},
            append_env=True,
            skip_on_exit_code=None,
        )
    if not settings.stage_image:
        raise ConfigurationError(
            f"HOMEFEED_STAGE_IMAGE is empty, which runner {settings.stage_runner!r} needs; "
            f"set it to the image that holds the `homefeed` command"
        )
    if settings.stage_runner == "docker":
        from pipelines.orchestration.docker_stages import container_task

        return container_task(name, run_uri, timeout, settings, hardware)
    from pipelines.orchestration.kubernetes_stages import cluster_task

    return cluster_task(name, run_uri, timeout, settings, hardware)
