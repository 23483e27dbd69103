"""A stage in Kubernetes: what is asked for, the files that say the same, and a training's Job run.

Every object is read back by the models of Kubernetes' own client, which knows every field there is.
"""

import json
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from airflow.serialization.serialized_objects import BaseSerialization
from kubernetes.client import ApiClient, ApiException
from kubernetes.client import models as k8s

from pipelines.contracts.errors import (
    PERMANENT_EXIT_CODES,
    ConfigurationError,
    TransientStorageError,
)
from pipelines.orchestration import containers
from pipelines.orchestration.kubernetes_stages import COMPONENT, TRAINING_SERVICE, TrainingJob
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Resources, Settings
from support.kubernetes_objects import read_back
from training.launch import launcher

RUN_URI = "s3://bucket/workspace/runs/2026-01-19--0a1b2c3d"
FOLDER = Path(__file__).parents[3] / "docker" / "kubernetes"
TEMPLATE = FOLDER / "stage-pod.yaml"
ON_GPUS = {"accelerator": "gpu", "devices": 8, "nodes": 2}
SETTINGS = {
    "stage_runner": "kubernetes",
    "stage_image": "registry.example/homefeed-trainer:VERSION",
    "event_log": "s3://bucket/event_log",
    "workspace": "s3://bucket/workspace",
}


@pytest.fixture(autouse=True)
def in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_POD_TEMPLATE", str(TEMPLATE))
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", "VERSION")
    monkeypatch.setattr(containers, "project_digest", lambda: "DIGEST")


def operator_of(stage: str, hardware: Any = None, **settings: Any) -> Any:
    chosen = Settings(**(SETTINGS | settings))
    return stage_operator(stage, RUN_URI, timedelta(hours=18), chosen, hardware)


def made(stage: str, hardware: Any = None, **settings: Any) -> Any:
    """Return the pod or, of a training, the Job that is asked for."""
    operator = operator_of(stage, hardware, **settings)
    if not stage.startswith("train_"):
        assert isinstance(operator, KubernetesPodOperator)
        return read_back(operator.build_pod_request_obj(dry_run=True), "V1Pod")
    assert isinstance(operator, TrainingJob)
    # Whether Airflow itself runs in the cluster is asked of the cluster, and only labels the pod.
    operator.__dict__["hook"] = SimpleNamespace(is_in_cluster=True, get_namespace=lambda: None)
    return read_back(operator.build_job_request_obj(), "V1Job")


def pod_spec(found: k8s.V1Pod | k8s.V1Job) -> k8s.V1PodSpec:
    return found.spec.template.spec if isinstance(found, k8s.V1Job) else found.spec


def container_of(found: k8s.V1Pod | k8s.V1Job) -> k8s.V1Container:
    [container] = pod_spec(found).containers
    return container


def test_a_stage_is_the_command_in_a_pod_without_a_shell() -> None:
    pod = made("build_snapshot")
    container = container_of(pod)
    command = ["homefeed", "stage", "build_snapshot", RUN_URI]
    assert [*container.command, *container.args] == command
    assert pod.metadata.name.startswith("homefeed-build-snapshot-")
    assert pod.spec.automount_service_account_token is False
    operator = operator_of("build_snapshot")
    assert operator.deferrable and operator.durable and operator.startup_timeout_seconds == 1800


@pytest.mark.parametrize("stage", ["compare_with_champion", "train_challenger"])
def test_pods_and_jobs_begin_as_the_template_says_and_credentials_stand_nowhere_else(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    template, found = read_back(yaml.safe_load(TEMPLATE.read_text()), "V1Pod"), made(stage, ON_GPUS)
    assert found.metadata.namespace == template.metadata.namespace == "homefeed"
    same = ("service_account_name", "security_context", "tolerations", "node_selector", "volumes")
    for name in same:
        assert getattr(pod_spec(found), name) == getattr(template.spec, name)
    container, [begun] = container_of(found), template.spec.containers
    for name in ("security_context", "volume_mounts", "env_from"):
        assert getattr(container, name) == getattr(begun, name)
    assert container.image == SETTINGS["stage_image"]
    assert [each.secret_ref.name for each in container.env_from] == ["homefeed-credentials"]
    told = {each.name: each.value for each in container.env}
    assert told["HOMEFEED_WORKSPACE"] == "s3://bucket/workspace"
    assert told["HOMEFEED_DAG_VERSION"] == "VERSION"
    stored = BaseSerialization.serialize(operator_of(stage, ON_GPUS))
    assert "swordfish" not in f"{found} {stored}"


OWN = {"check_snapshot": Resources(cpus=0.5, memory_gib=1.5)}
LARGE = {"cpu": "8000m", "memory": "32768Mi"}
ONE_GPU = {"cpu": "4000m", "memory": "16384Mi", "nvidia.com/gpu": "1"}
OF_EIGHT = {"cpu": "64000m", "memory": "262144Mi"}


@pytest.mark.parametrize(
    ("stage", "hardware", "requests"),
    [
        ("train_anchor", ON_GPUS, OF_EIGHT | {"nvidia.com/gpu": "8"}),
        ("train_anchor", ON_GPUS | {"accelerator": "cpu"}, LARGE),
        ("train_anchor", None, LARGE),
        ("check_snapshot", ON_GPUS, {"cpu": "500m", "memory": "1536Mi"}),
        ("compare_with_champion", ON_GPUS, ONE_GPU),
    ],
)
def test_only_what_works_on_gpus_asks_for_them(
    stage: str, hardware: Any, requests: dict[str, str]
) -> None:
    asked = container_of(made(stage, hardware, stage_resources=OWN)).resources
    assert asked.requests == requests
    assert asked.limits == {name: requests[name] for name in requests if name != "cpu"}


@pytest.mark.parametrize("stage", ["train_challenger", "check_snapshot"])
def test_what_the_template_asks_for_besides_is_kept(stage: str, tmp_path: Path) -> None:
    pod = yaml.safe_load(TEMPLATE.read_text())
    bounds = {"rdma/hca": "1", "memory": "1Mi"}
    pod["spec"]["containers"][0]["resources"] = {"requests": bounds, "limits": bounds}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    own = {"pod_template": str(tmp_path / "pod.yaml")}
    asked = container_of(made(stage, ON_GPUS, **own)).resources
    for found in (asked.requests, asked.limits):
        assert found["rdma/hca"] == "1" and found["memory"] != "1Mi"


def test_a_training_is_an_indexed_job_with_a_pod_on_each_machine() -> None:
    job = made("train_challenger", ON_GPUS)
    spec = job.spec
    assert (spec.completion_mode, spec.completions, spec.parallelism) == ("Indexed", 2, 2)
    assert spec.backoff_limit == 0  # Airflow tries again, not the Job
    assert spec.active_deadline_seconds == 18 * 3600
    assert spec.template.spec.subdomain == "homefeed-training"
    assert COMPONENT.items() <= spec.template.metadata.labels.items()
    variables = {each.name: each for each in container_of(job).env}
    own_job = variables["HOMEFEED_JOB_NAME"].value_from.field_ref.field_path
    assert own_job == "metadata.labels['batch.kubernetes.io/job-name']"
    first = "$(HOMEFEED_JOB_NAME)-0.homefeed-training:29500"
    assert variables["HOMEFEED_RENDEZVOUS"].value == first
    # A variable can be used only in those that come after it.
    names = list(variables)
    assert names.index("HOMEFEED_JOB_NAME") < names.index("HOMEFEED_RENDEZVOUS")
    # The host name of a pod is <job>-<index>, of at most 63 characters.
    assert len(job.metadata.name) <= 60
    moved, permanent = spec.pod_failure_policy.rules
    assert (moved.action, moved.on_pod_conditions[0].type) == ("Ignore", "DisruptionTarget")
    codes = permanent.on_exit_codes
    assert (permanent.action, codes.operator, codes.container_name) == ("FailJob", "In", "base")
    assert set(codes.values) == PERMANENT_EXIT_CODES
    one = made("train_anchor").spec
    assert (one.completion_mode, one.completions, one.parallelism) == ("Indexed", 1, 1)


@pytest.mark.parametrize("content", [None, "", "- no pod", "{", "spec: {containers: []}"])
def test_a_template_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "pod.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ConfigurationError, match=f"(?s)HOMEFEED_POD_TEMPLATE is '{path}'.*expected"
    ):
        operator_of("build_snapshot", pod_template=str(path))


def test_the_example_in_the_repository_is_what_the_dag_makes() -> None:
    """HOMEFEED_EXAMPLE=write writes it anew, as `docker/README.md` says."""
    path = FOLDER / "training-job.yaml"
    settings = {"work_folder": "/trainings", "tracking_uri": "http://homefeed-mlflow:5000"}
    job = made("train_challenger", ON_GPUS, **settings)
    job.metadata.name = "homefeed-train-challenger-example"
    job.spec.template.metadata.name = None
    job.spec.template.metadata.labels = COMPONENT
    plain = ApiClient().sanitize_for_serialization(job)
    if os.environ.get("HOMEFEED_EXAMPLE") == "write":
        title = path.read_text().split("apiVersion", 1)[0]
        path.write_text(title + yaml.safe_dump(plain, width=100))
    assert yaml.safe_load(path.read_text()) == plain


def test_the_files_of_the_repository_hold_objects_of_kubernetes_settings_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    secret = r"(?im)^[^#\n]*(?:password|access_key)\w*: *\S|kind: secret"
    assert [name for name, text in texts.items() if re.search(secret, text)] == []
    found = {
        each["kind"]: read_back(each, f"V1{each['kind']}")
        for each in yaml.safe_load_all(texts["stages.yaml"])
    }
    assert found.keys() == {
        *("ServiceAccount", "Service", "NetworkPolicy", "PersistentVolumeClaim"),
        *("Role", "RoleBinding"),
    }
    service = found["Service"]
    assert service.metadata.name == TRAINING_SERVICE
    assert service.spec.cluster_ip == "None" and service.spec.publish_not_ready_addresses
    assert service.spec.selector == COMPONENT
    assert found["NetworkPolicy"].spec.pod_selector.match_labels == COMPONENT
    assert found["PersistentVolumeClaim"].spec.access_modes == ["ReadWriteMany"]

    values = yaml.safe_load(texts["values.yaml"])
    given = {each["name"]: each["value"] for each in values["env"]}
    ours = {name for name in given if name.startswith("HOMEFEED_")}
    assert ours <= {f"HOMEFEED_{name.upper()}" for name in Settings.model_fields}
    for name in ours - {"HOMEFEED_POD_TEMPLATE"}:
        monkeypatch.setenv(name, given[name])
    settings = Settings()
    job = stage_operator("train_challenger", RUN_URI, timedelta(hours=1), settings, ON_GPUS)
    assert (job.namespace, settings.accelerator) == ("homefeed", "gpu")
    mounted = {mount["mountPath"] for mount in values["volumeMounts"]}
    assert str(Path(given["HOMEFEED_POD_TEMPLATE"]).parent) in mounted
    # Trainings are Jobs, and Airflow's chart does not allow them by itself.
    assert values["allowPodLaunching"] and values["allowJobLaunching"]


CONTEXT: Any = {
    "ti": SimpleNamespace(
        dag_id="homefeed_retrain",
        task_id="train_challenger",
        map_index=-1,
        try_number=1,
        xcom_push=lambda key, value: json.dumps(value, default=str),  # a database must hold it
    ),
    "run_id": "manual__x",
    "dag": SimpleNamespace(),
}
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


class Cluster:
    """Stands for Kubernetes' API as a training's task asks it: one Job, its pods, and their logs.

    Args:
        looks: Phases of the Job's pods, look by look; the last one stays.
        earlier: Names of Jobs that earlier attempts have left.
    """

    def __init__(self, *looks: Sequence[str], earlier: Sequence[str] = ()) -> None:
        self.looks, self.earlier = [*looks], earlier
        self.made: list[k8s.V1Job] = []
        self.deleted: list[str] = []
        self.asked: list[str] = []

    def task(self, nodes: int = 2) -> Any:
        """Return a training's task before this cluster."""
        found = operator_of("train_challenger", ON_GPUS | {"nodes": nodes})
        clients = {"batch_v1_client": self, "core_v1_client": self, "create_job": self.create_job}
        hook = SimpleNamespace(**clients, is_in_cluster=True, get_pod=self.pod)
        found.__dict__["hook"] = hook
        return found

    def create_job(self, job: k8s.V1Job) -> None:
        self.made.append(job)

    def list_namespaced_job(self, namespace: str, label_selector: str) -> Any:
        self.asked.append(label_selector)
        jobs = [k8s.V1Job(metadata=k8s.V1ObjectMeta(name=name)) for name in self.earlier]
        return SimpleNamespace(items=jobs)

    def delete_namespaced_job(self, name: str, namespace: str, propagation_policy: str) -> None:
        assert propagation_policy == "Foreground"  # with its pods
        self.deleted.append(name)

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        assert label_selector == f"batch.kubernetes.io/job-name={self.made[-1].metadata.name}"
        phases = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return SimpleNamespace(items=[self.pod(str(k), namespace, p) for k, p in enumerate(phases)])

    def pod(self, name: str, namespace: str, phase: str = "Failed", **_: Any) -> k8s.V1Pod:
        if name == "gone":
            raise ApiException(status=404)
        condition = k8s.V1PodCondition(type="PodScheduled", status="False", message=NO_GPU)
        status = k8s.V1PodStatus(phase=phase, conditions=[condition] if phase == "Pending" else [])
        metadata = k8s.V1ObjectMeta(name=name, namespace=namespace, labels={})
        spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base")])
        return k8s.V1Pod(metadata=metadata, status=status, spec=spec)

    read_namespaced_pod = patch_namespaced_pod = pod

    def read_namespaced_pod_log(self, name: str, **_: Any) -> list[bytes]:
        return [f"out of memory on card {name}".encode()]


def test_the_task_waits_for_all_machines_and_lets_earlier_jobs_end() -> None:
    cluster = Cluster([], ["Running", "Pending"], ["Running"] * 2, earlier=["an earlier one"])
    with pytest.raises(TaskDeferred) as deferred:
        cluster.task().execute(CONTEXT)
    assert deferred.value.trigger.pod_names == ["0", "1"]  # type: ignore[attr-defined]
    [job] = cluster.made
    labels = ",".join(f"{name}={value}" for name, value in job.metadata.labels.items())
    assert cluster.asked == [labels] and "run_id=manual__x" in labels and "try_number" not in labels
    assert cluster.deleted == ["an earlier one"]


def test_a_machine_that_fails_before_all_have_begun_ends_the_wait() -> None:
    """Its exit code decides whether the task is tried again, which the Job tells."""
    cluster = Cluster(["Failed", "Pending"], ["Failed"])
    with pytest.raises(TaskDeferred):
        cluster.task().execute(CONTEXT)
    assert cluster.deleted == []


def test_a_machine_that_is_not_found_in_time_is_told_with_its_reason() -> None:
    cluster = Cluster(["Running", "Pending"])
    waiting = cluster.task()
    waiting.startup_timeout_seconds = 0
    with pytest.raises(TransientStorageError, match="1 pods.*Insufficient nvidia.*expected 2"):
        waiting.execute(CONTEXT)
    assert operator_of("train_challenger").startup_timeout_seconds < launcher._NODES_WAIT_S
    # Else it would begin beside the next attempt.
    assert cluster.deleted == [cluster.made[0].metadata.name]


def test_the_logs_of_failed_machines_are_shown_by_the_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    event = {"status": "error", "message": "Job failed with error: x", "job": {}}
    event |= {"pod_names": ["0", "gone", "1"], "pod_namespace": "homefeed"}
    with pytest.raises(AirflowException, match="Job failed with error"):
        Cluster().task().execute_complete(CONTEXT, event)
    told = capsys.readouterr().out
    assert all(f"logs: out of memory on card {name}" in told for name in "01")
