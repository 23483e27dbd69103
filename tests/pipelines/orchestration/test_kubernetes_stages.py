"""What Kubernetes is asked for when it runs a stage: pods, Jobs, and the files that say the same.

Every object is read back by the models of Kubernetes' own client, which knows every field there is.
"""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.serialization.serialized_objects import BaseSerialization
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from pipelines.contracts.errors import PERMANENT_EXIT_CODES, ConfigurationError
from pipelines.orchestration import containers
from pipelines.orchestration.kubernetes_stages import COMPONENT, TRAINING_SERVICE, TrainingJob
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Resources, Settings

RUN_URI = "s3://bucket/workspace/runs/2026-01-19--0a1b2c3d"
EXAMPLE = "docker/kubernetes/training-job.yaml"
ON_GPUS = {"accelerator": "gpu", "devices": 8, "nodes": 2}
SETTINGS = {
    "stage_runner": "kubernetes",
    "stage_image": "registry.example/homefeed-trainer:VERSION",
    "event_log": "s3://bucket/event_log",
    "workspace": "s3://bucket/workspace",
}
TEMPLATE = "docker/kubernetes/stage-pod.yaml"


@pytest.fixture(autouse=True)
def in_an_image(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("HOMEFEED_POD_TEMPLATE", str(repository / TEMPLATE))
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", "VERSION")
    monkeypatch.setattr(containers, "project_digest", lambda: "DIGEST")


def read_back(value: Any, kind: str) -> Any:
    """Return an object as the client's models read it; every field must be known to them."""
    plain = ApiClient().sanitize_for_serialization(value)
    found = ApiClient().deserialize(SimpleNamespace(data=json.dumps(plain)), kind)
    assert ApiClient().sanitize_for_serialization(found) == _without_nothing(plain)
    return found


def _without_nothing(value: Any) -> Any:
    """Return a value without what is null, which no server distinguishes from what is absent."""
    if isinstance(value, dict):
        return {key: _without_nothing(each) for key, each in value.items() if each is not None}
    return [_without_nothing(each) for each in value] if isinstance(value, list) else value


def operator_of(stage: str, hardware: Any = None, **settings: Any) -> Any:
    chosen = Settings(**(SETTINGS | settings))
    return stage_operator(stage, RUN_URI, timedelta(hours=18), chosen, hardware)


def pod_of(stage: str, **settings: Any) -> k8s.V1Pod:
    operator = operator_of(stage, **settings)
    assert type(operator) is KubernetesPodOperator
    return read_back(operator.build_pod_request_obj(dry_run=True), "V1Pod")


def job_of(stage: str, hardware: Any = None, **settings: Any) -> k8s.V1Job:
    operator = operator_of(stage, hardware, **settings)
    assert isinstance(operator, TrainingJob) and isinstance(operator, KubernetesJobOperator)
    # Whether Airflow itself runs in the cluster is asked of the cluster, and only labels the pod.
    operator.__dict__["hook"] = SimpleNamespace(is_in_cluster=True, get_namespace=lambda: None)
    return read_back(operator.build_job_request_obj(), "V1Job")


def container_of(found: k8s.V1Pod | k8s.V1Job) -> k8s.V1Container:
    spec = found.spec.template.spec if isinstance(found, k8s.V1Job) else found.spec
    [container] = spec.containers
    return container


def test_a_stage_is_the_command_in_a_pod_without_a_shell() -> None:
    pod = pod_of("build_snapshot")
    container = container_of(pod)
    assert [*container.command, *container.args] == [
        *("homefeed", "stage", "build_snapshot", "--run", RUN_URI)
    ]
    assert container.image == SETTINGS["stage_image"]
    assert pod.metadata.name.startswith("homefeed-build-snapshot-")
    assert pod.spec.automount_service_account_token is False
    operator = operator_of("build_snapshot")
    assert operator.deferrable and operator.durable and operator.startup_timeout_seconds == 1800


def test_credentials_come_from_a_secret_and_stand_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    for found in (pod_of("compare_with_champion"), job_of("train_challenger", ON_GPUS)):
        container = container_of(found)
        assert [each.secret_ref.name for each in container.env_from] == ["homefeed-credentials"]
        told = {each.name: each.value for each in container.env}
        assert told["HOMEFEED_WORKSPACE"] == "s3://bucket/workspace"
        assert told["HOMEFEED_DAG_VERSION"] == "VERSION"
        assert "swordfish" not in str(found)
    stored = str(BaseSerialization.serialize(operator_of("train_challenger", ON_GPUS)))
    assert "swordfish" not in stored


def test_only_trainings_of_a_run_on_gpus_ask_for_gpus() -> None:
    asked = container_of(job_of("train_anchor", ON_GPUS)).resources
    assert asked.requests == {"cpu": "8000m", "memory": "32768Mi", "nvidia.com/gpu": "8"}
    assert asked.limits == {"memory": "32768Mi", "nvidia.com/gpu": "8"}
    on_cpus = container_of(job_of("train_anchor", ON_GPUS | {"accelerator": "cpu"})).resources
    assert on_cpus.requests == {"cpu": "8000m", "memory": "32768Mi"}
    assert container_of(job_of("train_anchor")).resources == on_cpus
    own = {"check_snapshot": Resources(cpus=0.5, memory_gib=1.5)}
    light = container_of(pod_of("check_snapshot", stage_resources=own)).resources
    assert light.requests == {"cpu": "500m", "memory": "1536Mi"}


def test_a_training_is_an_indexed_job_with_a_pod_on_each_machine() -> None:
    job = job_of("train_challenger", ON_GPUS)
    spec = job.spec
    assert (spec.completion_mode, spec.completions, spec.parallelism) == ("Indexed", 2, 2)
    assert spec.backoff_limit == 0  # Airflow tries again, not the Job
    assert spec.active_deadline_seconds == 18 * 3600
    assert spec.template.spec.subdomain == "homefeed-training"
    assert COMPONENT.items() <= spec.template.metadata.labels.items()
    variables = {each.name: each for each in container_of(job).env}
    own_job = variables["HOMEFEED_JOB_NAME"].value_from.field_ref.field_path
    assert own_job == "metadata.labels['batch.kubernetes.io/job-name']"
    assert variables["HOMEFEED_RENDEZVOUS"].value == (
        "$(HOMEFEED_JOB_NAME)-0.homefeed-training:29500"
    )
    # A variable can be used only in those that come after it.
    names = list(variables)
    assert names.index("HOMEFEED_JOB_NAME") < names.index("HOMEFEED_RENDEZVOUS")
    # The host name of a pod is <job>-<index>, of at most 63 characters.
    assert len(job.metadata.name) <= 60
    one = job_of("train_anchor").spec
    assert (one.completion_mode, one.completions, one.parallelism) == ("Indexed", 1, 1)


def test_the_job_says_whether_trying_again_can_help() -> None:
    moved, permanent = job_of("train_challenger").spec.pod_failure_policy.rules
    assert (moved.action, moved.on_pod_conditions[0].type) == ("Ignore", "DisruptionTarget")
    codes = permanent.on_exit_codes
    assert (permanent.action, codes.operator, codes.container_name) == ("FailJob", "In", "base")
    assert set(codes.values) == PERMANENT_EXIT_CODES


def test_pods_and_jobs_begin_as_the_template_says(repository: Path) -> None:
    template = read_back(yaml.safe_load((repository / TEMPLATE).read_text()), "V1Pod")
    [begun] = template.spec.containers
    for found in (pod_of("check_snapshot"), job_of("train_challenger", ON_GPUS)):
        spec = found.spec.template.spec if isinstance(found, k8s.V1Job) else found.spec
        assert found.metadata.namespace == template.metadata.namespace == "homefeed"
        for name in ("service_account_name", "security_context", "tolerations", "node_selector"):
            assert getattr(spec, name) == getattr(template.spec, name)
        assert spec.volumes == template.spec.volumes
        container = container_of(found)
        for name in ("security_context", "volume_mounts", "env_from"):
            assert getattr(container, name) == getattr(begun, name)
        assert container.image == SETTINGS["stage_image"]


@pytest.mark.parametrize("content", [None, "", "- no pod", "{", "spec: {containers: []}"])
def test_a_template_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "pod.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ConfigurationError, match=f"(?s)HOMEFEED_POD_TEMPLATE is '{path}'.*expected"
    ):
        operator_of("build_snapshot", pod_template=str(path))


def test_the_example_in_the_repository_is_what_the_dag_makes(repository: Path) -> None:
    """HOMEFEED_EXAMPLE=write writes it anew, as `docker/README.md` says."""
    path = repository / EXAMPLE
    settings = {
        "work_folder": "/trainings",
        "tracking_uri": "http://homefeed-mlflow:5000",
    }
    job = job_of("train_challenger", ON_GPUS, **settings)
    job.metadata.name = "homefeed-train-challenger-example"
    job.spec.template.metadata.name = None
    job.spec.template.metadata.labels = COMPONENT
    plain = ApiClient().sanitize_for_serialization(job)
    if os.environ.get("HOMEFEED_EXAMPLE") == "write":
        title = path.read_text().split("apiVersion", 1)[0]
        path.write_text(title + yaml.safe_dump(plain, width=100))
    assert yaml.safe_load(path.read_text()) == plain


def test_every_object_in_the_repository_is_one_of_kubernetes(repository: Path) -> None:
    kinds = {
        "ServiceAccount": "V1ServiceAccount",
        "Service": "V1Service",
        "NetworkPolicy": "V1NetworkPolicy",
        "PersistentVolumeClaim": "V1PersistentVolumeClaim",
        "Role": "V1Role",
        "RoleBinding": "V1RoleBinding",
    }
    text = (repository / "docker/kubernetes/stages.yaml").read_text()
    found = {
        each["kind"]: read_back(each, kinds[each["kind"]]) for each in yaml.safe_load_all(text)
    }
    assert found.keys() == kinds.keys()
    service = found["Service"]
    assert service.metadata.name == TRAINING_SERVICE
    assert service.spec.cluster_ip == "None" and service.spec.publish_not_ready_addresses
    assert service.spec.selector == COMPONENT
    assert found["NetworkPolicy"].spec.pod_selector.match_labels == COMPONENT
    assert found["PersistentVolumeClaim"].spec.access_modes == ["ReadWriteMany"]


def test_the_values_of_the_chart_hold_settings_that_are_ones(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load((repository / "docker/kubernetes/values.yaml").read_text())
    given = {each["name"]: each["value"] for each in values["env"]}
    ours = {name for name in given if name.startswith("HOMEFEED_")}
    assert ours <= {f"HOMEFEED_{name.upper()}" for name in Settings.model_fields}
    for name in ours:
        monkeypatch.setenv(name, given[name])
    monkeypatch.setenv("HOMEFEED_POD_TEMPLATE", str(repository / TEMPLATE))
    settings = Settings()
    job = stage_operator("train_challenger", RUN_URI, timedelta(hours=1), settings, ON_GPUS)
    assert job.namespace == "homefeed"
    assert settings.accelerator == "gpu"
    mounted = {mount["mountPath"] for mount in values["volumeMounts"]}
    assert str(Path(given["HOMEFEED_POD_TEMPLATE"]).parent) in mounted
    # Trainings are Jobs, and Airflow's chart does not allow them by itself.
    assert values["allowPodLaunching"] and values["allowJobLaunching"]


def test_no_value_in_the_repository_is_a_secret(repository: Path) -> None:
    for path in (repository / "docker/kubernetes").glob("*.yaml"):
        text = path.read_text()
        assert not re.findall(r"(?im)^[^#\n]*(?:password|access_key)\w*: *\S|kind: secret", text), (
            path
        )
