"""A stage in Kubernetes: a pod, or for a training an indexed Job with a pod on each machine.

Imported only where the runner is `kubernetes`: the provider is no part of every deployment. What
these build stands as an example in docker/kubernetes/training-job.yaml. Tested in
tests/pipelines/orchestration/test_kubernetes_stages.py.
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
    NoPlaceForPodError,
    TransientStorageError,
)
from pipelines.orchestration.containers import (
    ONE_PROCESS,
    TRAINING_STAGES,
    Hardware,
    command_line,
    environment_of,
    spark_master_of,
)
from pipelines.settings import Resources, Settings

CONTAINER = "base"
"""The stage's container, as Airflow's operator calls it; a pod template calls it so too."""
COMPONENT = {"app.kubernetes.io/component": "homefeed-training"}
"""Label of the pods of trainings, by which their headless service finds them."""
RENDEZVOUS_PORT = 29500
SCRATCH_PATHS = ("/scratch", "/tmp")
"""Where the scratch volume is mounted: at the image's TMPDIR, and where others write by habit."""
_JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
_START_WAIT_S = 1800
"""How long a pod may take to start: a machine may have to be found, and an image to be fetched."""
_END_WAIT_S = 180.0
_KEPT_S = 24 * 3600
"""How long a Job that has ended is kept, for whoever looks at its pods."""


class TrainingJob(KubernetesJobOperator):
    """Runs a training's stage as an indexed Job: index K is machine K, and index 0 publishes.

    An attempt whose task was cleared, or lost, may have left its Job running. The next attempt ends
    that Job first: both would want the same stage, and what it has trained is kept.
    """

    template_fields = (*KubernetesJobOperator.template_fields, "hardware")

    def __init__(
        self, *, hardware: Any, resources: Resources, settings: Settings, **options: Any
    ) -> None:
        super().__init__(**options)
        self.hardware = hardware
        self.stage_resources = resources
        self.settings = settings

    def build_job_request_obj(self, context: Any = None) -> k8s.V1Job:
        """Return the Job for the hardware that the run was resolved with."""
        hardware: Hardware = self.hardware or ONE_PROCESS
        self.completions = self.parallelism = int(hardware["nodes"])
        self.container_resources = requirements(self.stage_resources, self.settings, hardware)
        self.node_selector = node_selector(self.settings, hardware)
        job = super().build_job_request_obj(context)
        identity = self._get_ti_pod_labels(context, include_try_number=False)
        job.metadata.labels = {**(job.metadata.labels or {}), **identity}
        return job

    def create_job(self, job_request_obj: k8s.V1Job) -> k8s.V1Job:
        """Create the Job, after the end of an earlier attempt's."""
        self._end_earlier(job_request_obj)
        return super().create_job(job_request_obj)

    def get_pods(
        self, pod_request_obj: k8s.V1Pod, context: Any, *, exclude_checked: bool = True
    ) -> Sequence[k8s.V1Pod]:
        """Return the Job's pods, once all are there and none waits for a machine any more.

        Raises:
            NoPlaceForPodError: some have not begun in time; the Job is deleted.
        """
        deadline = time.monotonic() + self.startup_timeout_seconds
        selector = self._build_find_pod_label_selector(context, exclude_checked=exclude_checked)
        while True:
            found = self.client.list_namespaced_pod(
                namespace=pod_request_obj.metadata.namespace, label_selector=selector
            ).items
            waiting = [pod for pod in found if pod.status.phase == "Pending"]
            if len(found) >= self.parallelism and not waiting:
                return super().get_pods(pod_request_obj, context, exclude_checked=exclude_checked)
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        self.on_kill()
        reasons = "; ".join(sorted({why_pending(pod) for pod in waiting})) or "no reason is told"
        raise NoPlaceForPodError(
            f"{len(found) - len(waiting)} of {self.parallelism} pods of the Job have begun within "
            f"{self.startup_timeout_seconds} s ({reasons}); expected all of them; look for "
            f"machines with {self._asked()}, claims and image, then retry"
        )

    def _asked(self) -> dict[str, str]:
        assert self.container_resources is not None  # of which the Job was made
        return dict(self.container_resources.requests)

    def execute_complete(self, context: Any, event: dict[str, Any], **options: Any) -> Any:
        """End the task as its Job ended, and show the pods' logs also where that is a failure."""
        if event["status"] == "error":
            for name in event.get("pod_names") or ():
                # A pod that the cluster has taken away has no log, and the failure is told anyway.
                with contextlib.suppress(ApiException):
                    self._write_logs(self.hook.get_pod(name, event["pod_namespace"]))
        return super().execute_complete(context, event, **options)

    def _end_earlier(self, job: k8s.V1Job) -> None:
        """Delete the Jobs of earlier attempts with their pods, and wait until they are gone.

        Raises:
            TransientStorageError: one is still there after a while.
        """
        selector = ",".join(f"{name}={value}" for name, value in job.metadata.labels.items())
        namespace, deadline = job.metadata.namespace, time.monotonic() + _END_WAIT_S
        while left := self.job_client.list_namespaced_job(namespace, label_selector=selector).items:
            names = [each.metadata.name for each in left]
            if time.monotonic() > deadline:
                raise TransientStorageError(
                    f"the Jobs {names} of earlier attempts are still there {_END_WAIT_S:.0f} s "
                    f"after they were deleted; expected them to be gone; look at their pods in "
                    f"namespace {namespace}, then retry"
                )
            for each in left:
                if each.metadata.deletion_timestamp is None:
                    self.log.info("ending Job %s of an earlier attempt", each.metadata.name)
                    self.job_client.delete_namespaced_job(
                        each.metadata.name, namespace, propagation_policy="Foreground"
                    )
            time.sleep(1)


def why_pending(pod: k8s.V1Pod) -> str:
    """Return what Kubernetes says of a pod that has not begun; its name where it says nothing."""
    conditions = [each.message for each in pod.status.conditions or () if each.message]
    containers = [each.state.waiting for each in pod.status.container_statuses or ()]
    stuck = [f"{each.reason} {each.message or ''}".strip() for each in containers if each]
    return ", ".join([*conditions, *stuck]) or pod.metadata.name


def pod_task(
    stage: str, run_uri: Any, timeout: timedelta, settings: Settings
) -> KubernetesPodOperator:
    """Return the task of a stage that does not train; see `pipelines.orchestration.operators`."""
    return KubernetesPodOperator(
        durable=True,
        container_resources=requirements(_resources(stage, settings), settings, ONE_PROCESS),
        node_selector=settings.node_selector,
        **_common(stage, run_uri, timeout, settings),
    )


def training_task(
    stage: str, run_uri: Any, timeout: timedelta, settings: Settings, hardware: Any
) -> TrainingJob:
    """Return the task of a training; see `pipelines.orchestration.operators`."""
    return TrainingJob(
        hardware=hardware,
        resources=_resources(stage, settings),
        settings=settings,
        completion_mode="Indexed",
        # One attempt is one attempt of the task: Airflow decides whether there is another.
        backoff_limit=0,
        full_job_spec=k8s.V1Job(
            metadata=k8s.V1ObjectMeta(),
            spec=k8s.V1JobSpec(
                template=k8s.V1PodTemplateSpec(), pod_failure_policy=_failure_policy()
            ),
        ),
        wait_until_job_complete=True,
        ttl_seconds_after_finished=_KEPT_S,
        # A deferred task is not held to `execution_timeout` by this operator.
        active_deadline_seconds=int(timeout.total_seconds()),
        labels=COMPONENT,
        subdomain=settings.training_service,
        **_common(stage, run_uri, timeout, settings),
    )


def _common(stage: str, run_uri: Any, timeout: timedelta, settings: Settings) -> dict[str, Any]:
    """Return what pods and Jobs have alike."""
    volumes = _volumes(stage, settings)
    program, *arguments = command_line(stage, run_uri, settings)
    secret = settings.stage_secret
    return {
        "task_id": stage,
        "execution_timeout": timeout,
        "name": f"homefeed-{stage.replace('_', '-')}",
        "namespace": settings.kubernetes_namespace or None,
        "image": settings.image_of(stage),
        "cmds": [program],
        "arguments": arguments,
        "env_vars": _variables(stage, settings),
        "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=secret))]
        if secret
        else [],
        "volumes": list({volume.name: volume for volume, _ in volumes}.values()),
        "volume_mounts": [mount for _, mount in volumes],
        "service_account_name": settings.service_account or None,
        # A stage never speaks to Kubernetes.
        "automount_service_account_token": False,
        "pod_template_file": settings.pod_template or None,
        "startup_timeout_seconds": _START_WAIT_S,
        "do_xcom_push": False,
        "on_finish_action": "delete_succeeded_pod",
        "deferrable": True,
    }


def _variables(stage: str, settings: Settings) -> list[k8s.V1EnvVar]:
    told = environment_of(stage, settings) | spark_master_of(settings)
    found = [k8s.V1EnvVar(name=name, value=value) for name, value in sorted(told.items())]
    if stage not in TRAINING_STAGES:
        return found
    # An indexed Job gives pod K the host name <job>-K, which the headless service resolves. It also
    # sets JOB_COMPLETION_INDEX. A variable can be used in those that come after it.
    own_job = k8s.V1ObjectFieldSelector(field_path=f"metadata.labels['{_JOB_NAME_LABEL}']")
    name = "HOMEFEED_JOB_NAME"
    host = f"$({name})-0.{settings.training_service}"
    return [
        *found,
        k8s.V1EnvVar(name=name, value_from=k8s.V1EnvVarSource(field_ref=own_job)),
        k8s.V1EnvVar(name="HOMEFEED_RENDEZVOUS", value=f"{host}:{RENDEZVOUS_PORT}"),
    ]


def requirements(
    resources: Resources, settings: Settings, hardware: Hardware
) -> k8s.V1ResourceRequirements:
    """Return what a stage's container asks for; memory and GPUs are bounds too, cores are not."""
    memory = {"memory": f"{round(resources.memory_gib * 1024)}Mi"}
    is_on_gpus = hardware["accelerator"] == "gpu"
    gpus = {settings.gpu_resource: str(hardware["devices"])} if is_on_gpus else {}
    cores = {"cpu": f"{round(resources.cpus * 1000)}m"}
    return k8s.V1ResourceRequirements(requests=cores | memory | gpus, limits=memory | gpus)


def node_selector(settings: Settings, hardware: Hardware) -> dict[str, str]:
    """Return the labels of the nodes on which a training may run."""
    on_gpus = settings.gpu_node_selector if hardware["accelerator"] == "gpu" else {}
    return settings.node_selector | on_gpus


def _failure_policy() -> k8s.V1PodFailurePolicy:
    """Return which ends of a pod mean what: the Job's reason tells Airflow whether to try again.

    A pod that the cluster has moved away counts for nothing: another one takes its place.
    """
    codes = sorted(PERMANENT_EXIT_CODES)
    moved = k8s.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    permanent = k8s.V1PodFailurePolicyOnExitCodesRequirement(
        container_name=CONTAINER, operator="In", values=codes
    )
    return k8s.V1PodFailurePolicy(
        rules=[
            k8s.V1PodFailurePolicyRule(action="Ignore", on_pod_conditions=[moved]),
            k8s.V1PodFailurePolicyRule(action="FailJob", on_exit_codes=permanent),
        ]
    )


def _volumes(stage: str, settings: Settings) -> list[tuple[k8s.V1Volume, k8s.V1VolumeMount]]:
    """Return a stage's volumes; one that the pod template has under the same name is the stage's.

    They are the scratch volume, and for trainings shared memory, by which the processes of
    one machine hand batches over, and the folder of checkpoints.
    """
    shared = k8s.V1EmptyDirVolumeSource(
        medium="Memory", size_limit=f"{round(settings.shared_memory_gib * 1024)}Mi"
    )
    scratch = k8s.V1Volume(name="scratch", **_scratch(settings))
    wanted = [(scratch, path) for path in SCRATCH_PATHS]
    if stage in TRAINING_STAGES:
        wanted.append((k8s.V1Volume(name="shared-memory", empty_dir=shared), "/dev/shm"))
        if settings.work_claim and settings.work_folder:
            claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=settings.work_claim)
            folder = k8s.V1Volume(name="work", persistent_volume_claim=claim)
            wanted.append((folder, settings.work_folder))
    given = _volumes_of_template(settings.pod_template)
    return [
        (volume, k8s.V1VolumeMount(name=volume.name, mount_path=path))
        for volume, path in wanted
        if volume.name not in given
    ]


def _scratch(settings: Settings) -> dict[str, Any]:
    size = f"{round(settings.scratch_gib * 1024)}Mi"
    if not settings.scratch_class:
        return {"empty_dir": k8s.V1EmptyDirVolumeSource(size_limit=size)}
    claim = k8s.V1PersistentVolumeClaimSpec(
        access_modes=["ReadWriteOnce"],
        storage_class_name=settings.scratch_class,
        resources=k8s.V1VolumeResourceRequirements(requests={"storage": size}),
    )
    template = k8s.V1PersistentVolumeClaimTemplate(spec=claim)
    return {"ephemeral": k8s.V1EphemeralVolumeSource(volume_claim_template=template)}


def _volumes_of_template(path: str) -> set[str]:
    """Return the names of the volumes that a pod template has.

    Raises:
        ConfigurationError: there is no such file, or it holds no pod.
    """
    if not path:
        return set()
    try:
        pod = yaml.safe_load(Path(path).read_text())
        return {volume["name"] for volume in pod["spec"].get("volumes", [])}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        # The operator itself goes on without the template, and only warns.
        raise ConfigurationError(
            f"HOMEFEED_POD_TEMPLATE is {path!r}, and reading it gave {type(error).__name__}: "
            f"{error}; expected the YAML of a pod with a spec; correct the path or the file, which "
            f"scheduler, DAG processor and workers read"
        ) from None


def _resources(stage: str, settings: Settings) -> Resources:
    return settings.resources_of(stage)  # type: ignore[arg-type]
