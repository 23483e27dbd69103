"""A stage in Kubernetes: a pod, or for a training an indexed Job with a pod on each machine.

Namespace, account, secret, nodes and volumes are those of the pod template; an example of it and of
what is made here stands in docker/kubernetes. Imported only where the runner is `kubernetes`: the
provider is no part of every deployment. What a Job's machines do is tested by processes, in
tests/production/kubernetes/test_two_nodes.py.
"""

import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import ApiException
from kubernetes.client import models as k8s

from pipelines.contracts.errors import (
    PERMANENT_EXIT_CODES,
    ConfigurationError,
    TransientStorageError,
)
from pipelines.contracts.stage_table import SIDES, devices_of
from pipelines.orchestration.containers import (
    ONE_PROCESS,
    Hardware,
    command_line,
    environment_of,
)
from pipelines.settings import Resources, Settings

COMPONENT = {"app.kubernetes.io/component": "homefeed-training"}
"""Label of the pods of trainings, by which their headless service finds them."""
JOB_NAME = "batch.kubernetes.io/job-name"
"""Label by which Kubernetes itself marks the pods of a Job."""
TRAINING_SERVICE, RENDEZVOUS_PORT = "homefeed-training", 29500
"""The headless service, by which the machines of one training find machine 0."""
_START_WAIT_S = 1800
"""How long a pod may take to start: a machine may have to be found, and an image to be fetched."""
_KEPT_S = 24 * 3600
"""How long a Job that has ended is kept, for whoever looks at its pods."""
_ENDS = {
    "rules": [
        # A pod that the cluster has moved away counts for nothing: another one takes its place.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # Airflow's operator and the pod template call the stage's container "base".
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "base", "operator": "In"}
            | {"values": sorted(PERMANENT_EXIT_CODES)},
        },
    ]
}
"""How a Job ends, whose reason tells Airflow whether to try again."""
Kept = dict[str, dict[str, str]]
"""Requests and limits of the pod template's own container."""


class TrainingJob(KubernetesJobOperator):
    """Runs a training's stage as an indexed Job: index K is machine K, and index 0 publishes.

    What Airflow's operator leaves out is here: the hardware of the run, the end of a Job that an
    attempt whose task was cleared or lost has left, the wait for machines, and logs of a failure.
    """

    template_fields = (*KubernetesJobOperator.template_fields, "hardware")

    def __init__(self, *, hardware: Any, resources: Resources, kept: Kept, **options: Any) -> None:
        super().__init__(**options)
        self.hardware, self.stage_resources, self.kept = hardware, resources, kept

    def build_job_request_obj(self, context: Any = None) -> k8s.V1Job:
        """Return the Job for the hardware that the run was resolved with."""
        hardware: Hardware = self.hardware or ONE_PROCESS
        self.completions = self.parallelism = int(hardware["nodes"])
        self.container_resources = requirements(self.stage_resources, hardware, self.kept)
        job = super().build_job_request_obj(context)
        identity = self._get_ti_pod_labels(context, include_try_number=False)
        job.metadata.labels = {**(job.metadata.labels or {}), **identity}
        return job

    def create_job(self, job_request_obj: k8s.V1Job) -> k8s.V1Job:
        """Create the Job, and let those of earlier attempts end.

        Who of them is at work has the training's work folder until then, for which the new one
        waits.
        """
        wanted, jobs = job_request_obj.metadata, self.job_client
        selector = ",".join(f"{name}={value}" for name, value in wanted.labels.items())
        for left in jobs.list_namespaced_job(wanted.namespace, label_selector=selector).items:
            options = {"propagation_policy": "Foreground"}
            jobs.delete_namespaced_job(left.metadata.name, wanted.namespace, **options)
        return super().create_job(job_request_obj)

    def get_pods(
        self, pod_request_obj: k8s.V1Pod, context: Any, *, exclude_checked: bool = True
    ) -> Sequence[k8s.V1Pod]:
        """Return the Job's pods, once all are there, or one has failed, and none waits any more.

        Raises:
            TransientStorageError: some have not begun in time; the Job is deleted.
        """
        deadline = time.monotonic() + self.startup_timeout_seconds
        namespace, job = pod_request_obj.metadata.namespace, self.job
        assert job is not None  # the one that was just created
        own = f"{JOB_NAME}={job.metadata.name}"
        while True:
            found = self.client.list_namespaced_pod(namespace, label_selector=own).items
            waiting = [pod for pod in found if pod.status.phase == "Pending"]
            # Where one has failed the Job ends, and takes away those that wait: it says why.
            has_failed = any(pod.status.phase == "Failed" for pod in found)
            if (has_failed or len(found) >= self.parallelism) and not waiting:
                return list(found)
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        self.on_kill()
        told = {each.message for pod in waiting for each in pod.status.conditions or ()}
        raise TransientStorageError(
            f"{len(found) - len(waiting)} pods of the Job have begun within "
            f"{self.startup_timeout_seconds} s ({told}); expected {self.parallelism}; look for "
            f"machines, claims and image, then retry"
        )

    def execute_complete(self, context: Any, event: dict[str, Any], **options: Any) -> Any:
        """End the task as its Job ended, and show the pods' logs also where that is a failure."""
        if event["status"] == "error":
            for name in event.get("pod_names") or ():
                # A pod that the cluster has taken away has no log, and the failure is told anyway.
                with contextlib.suppress(ApiException):
                    self._write_logs(self.hook.get_pod(name, event["pod_namespace"]))
        return super().execute_complete(context, event, **options)


class StagePod(KubernetesPodOperator):
    """Runs a stage in a pod, which gets a GPU if the run works on them and the stage does."""

    template_fields = (*KubernetesPodOperator.template_fields, "hardware")

    def __init__(self, *, hardware: Any, resources: Resources, kept: Kept, **options: Any) -> None:
        super().__init__(**options)
        self.hardware, self.stage_resources, self.kept = hardware, resources, kept

    def build_pod_request_obj(self, context: Any = None, **options: Any) -> k8s.V1Pod:
        """Return the pod for the hardware that the run was resolved with."""
        hardware: Hardware = self.hardware or ONE_PROCESS
        num_gpus = devices_of(self.task_id, hardware["devices"])
        hardware = {**hardware, "devices": num_gpus} if num_gpus else ONE_PROCESS
        self.container_resources = requirements(self.stage_resources, hardware, self.kept)
        return super().build_pod_request_obj(context, **options)


def cluster_task(
    stage: str, run_uri: Any, timeout: timedelta, settings: Settings, hardware: Any
) -> KubernetesPodOperator:
    """Return the task of one heavy stage; see `pipelines.orchestration.operators`."""
    program, arguments = command_line(stage, run_uri, settings)
    resources, template = settings.resources_of(stage), template_of(settings.pod_template)
    kept = template["spec"]["containers"][0].get("resources") or {}
    told = sorted(environment_of(stage, settings).items())
    variables = [k8s.V1EnvVar(name=name, value=value) for name, value in told]
    common: dict[str, Any] = {
        "task_id": stage,
        "execution_timeout": timeout,
        "name": f"homefeed-{stage.replace('_', '-')}",
        # None: that of Airflow's connection.
        "namespace": template.get("metadata", {}).get("namespace"),
        "pod_template_file": settings.pod_template,
        "image": settings.image_of(stage),
        "cmds": [program],
        "arguments": arguments,
        # A stage never speaks to Kubernetes.
        "automount_service_account_token": False,
        "startup_timeout_seconds": _START_WAIT_S,
        "do_xcom_push": False,
        "on_finish_action": "delete_succeeded_pod",
        "deferrable": True,
    }
    if stage not in SIDES:
        given = {"hardware": hardware, "resources": resources, "kept": kept}
        return StagePod(durable=True, env_vars=variables, **given, **common)
    # An indexed Job gives pod K the host name <job>-K, which the headless service resolves. It also
    # sets JOB_COMPLETION_INDEX. A variable can be used in those that come after it.
    label = k8s.V1ObjectFieldSelector(field_path=f"metadata.labels['{JOB_NAME}']")
    first = f"$(HOMEFEED_JOB_NAME)-0.{TRAINING_SERVICE}:{RENDEZVOUS_PORT}"
    spec = k8s.V1JobSpec(template=k8s.V1PodTemplateSpec(), pod_failure_policy=_ENDS)
    return TrainingJob(
        hardware=hardware,
        resources=resources,
        kept=kept,
        env_vars=[
            *variables,
            k8s.V1EnvVar(name="HOMEFEED_JOB_NAME", value_from=k8s.V1EnvVarSource(field_ref=label)),
            k8s.V1EnvVar(name="HOMEFEED_RENDEZVOUS", value=first),
        ],
        completion_mode="Indexed",
        # One attempt is one attempt of the task: Airflow decides whether there is another.
        backoff_limit=0,
        full_job_spec=k8s.V1Job(metadata=k8s.V1ObjectMeta(), spec=spec),
        wait_until_job_complete=True,
        ttl_seconds_after_finished=_KEPT_S,
        # A deferred task is not held to `execution_timeout` by this operator.
        active_deadline_seconds=int(timeout.total_seconds()),
        labels=COMPONENT,
        subdomain=TRAINING_SERVICE,
        **common,
    )


def requirements(
    resources: Resources, hardware: Hardware, kept: Kept
) -> k8s.V1ResourceRequirements:
    """Return what a stage's container asks for; memory and GPUs are bounds too, cores are not.

    What else the pod template's container asks for is kept, such as network devices for RDMA.
    """
    is_on_gpus = hardware["accelerator"] == "gpu"
    times = hardware["devices"] if is_on_gpus else 1
    bounds = {"memory": f"{round(times * resources.memory_gib * 1024)}Mi"}
    if is_on_gpus:
        bounds["nvidia.com/gpu"] = str(hardware["devices"])
    cores = {"cpu": f"{round(times * resources.cpus * 1000)}m"}
    return k8s.V1ResourceRequirements(
        requests=kept.get("requests", {}) | cores | bounds, limits=kept.get("limits", {}) | bounds
    )


def template_of(path: str) -> dict[str, Any]:
    """Return the pod that a template holds.

    Raises:
        ConfigurationError: there is no such file, or it holds no pod.
    """
    try:
        pod: dict[str, Any] = yaml.safe_load(Path(path).read_text())
        _ = pod["spec"]["containers"][0]
        return pod
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        # The operator itself goes on without the template, and only warns.
        raise ConfigurationError(
            f"HOMEFEED_POD_TEMPLATE is {path!r}, which cannot be read ({error!r}); expected "
            f"the YAML of a pod with a spec, such as docker/kubernetes/stage-pod.yaml; correct the "
            f"path or the file, which scheduler, DAG processor and workers read"
        ) from None
