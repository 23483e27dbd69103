"""Which failures of a stage are tried again, by error class and by exit code."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import models as k8s

from pipelines.contracts import errors
from pipelines.orchestration.operators import stage_operator
from pipelines.orchestration.retries import StageRetryPolicy, exit_code_of
from pipelines.settings import Settings


def run_in_bash(script: str) -> None:
    """Run a stage's operator with `script` in place of the command line."""
    settings = Settings(command=script)
    stage_operator("build_snapshot", "file:///run", timedelta(hours=1), settings).execute({})


def action_of(error: BaseException) -> RetryAction:
    return StageRetryPolicy().evaluate(error, try_number=1, max_tries=3).action


@pytest.mark.parametrize("code", sorted(errors.PERMANENT_EXIT_CODES))
def test_an_exit_code_that_no_retry_helps_fails_at_once(code):
    with pytest.raises(AirflowException) as caught:
        run_in_bash(f"bash -c 'exit {code}'")
    assert exit_code_of(caught.value) == code
    assert action_of(caught.value) is RetryAction.FAIL


@pytest.mark.parametrize("code", [1, 69, 70, 75, 99, 137])
def test_every_other_exit_code_is_left_to_the_retries(code):
    with pytest.raises(AirflowException) as caught:
        run_in_bash(f"bash -c 'exit {code}'")
    assert exit_code_of(caught.value) == code
    assert action_of(caught.value) is RetryAction.DEFAULT


@pytest.mark.parametrize("script", ["kill -9 $$", "exit 137"])
def test_a_killed_stage_is_tried_again_and_said_to_be_killed(script):
    with pytest.raises(AirflowException) as caught:
        run_in_bash(f"bash -c '{script}'")
    decision = StageRetryPolicy().evaluate(caught.value, try_number=1, max_tries=3)
    assert decision.action is RetryAction.DEFAULT
    assert "killed (SIGKILL)" in decision.reason


def test_a_signal_s_number_is_not_taken_for_an_exit_code():
    error = AirflowException("The command returned a non-zero exit code -64.")
    assert exit_code_of(error) == -64
    assert action_of(error) is RetryAction.DEFAULT


def failure_of_a_pod(code: int) -> AirflowException:
    """Return what the operator raises where a pod's container ended with a code."""
    ended = k8s.V1ContainerStateTerminated(exit_code=code)
    status = k8s.V1ContainerStatus(
        name="base",
        image="x",
        image_id="x",
        ready=False,
        restart_count=0,
        state=k8s.V1ContainerState(terminated=ended),
    )
    pod = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="x", namespace="x", labels={}),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="x")]),
        status=k8s.V1PodStatus(phase="Failed", container_statuses=[status]),
    )
    operator = KubernetesPodOperator(task_id="operator", on_finish_action="keep_pod", image="x")
    # No test reaches a cluster: this one has that pod, and is told that it was looked at.
    operator.__dict__["client"] = SimpleNamespace(
        patch_namespaced_pod=lambda **_: None, read_namespaced_pod=lambda *_, **__: pod
    )
    with pytest.raises(AirflowException) as caught:
        operator.cleanup(pod, pod)
    return caught.value


@pytest.mark.parametrize(
    ("code", "action"), [(78, RetryAction.FAIL), (65, RetryAction.FAIL), (75, RetryAction.DEFAULT)]
)
def test_a_pod_s_exit_code_decides(code, action):
    error = failure_of_a_pod(code)
    assert exit_code_of(error) == code
    assert action_of(error) is action


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        ("PodFailurePolicy", RetryAction.FAIL),
        ("BackoffLimitExceeded", RetryAction.DEFAULT),
        ("DeadlineExceeded", RetryAction.DEFAULT),
    ],
)
def test_why_a_job_failed_decides(reason, action):
    failed = k8s.V1JobCondition(type="Failed", status="True", reason=reason)
    job = k8s.V1Job(status=k8s.V1JobStatus(conditions=[failed]))
    # as the operator's trigger composes it
    message = f"Job failed with error: {KubernetesHook.is_job_failed(job)}"
    assert action_of(AirflowException(message)) is action


@pytest.mark.parametrize(
    "error, action",
    [
        (errors.DataGateFailedError("no"), RetryAction.FAIL),
        (errors.PromotionRefusedError("no"), RetryAction.FAIL),
        (errors.ConfigurationError("no"), RetryAction.FAIL),
        (errors.TransientStorageError("later"), RetryAction.DEFAULT),
        (errors.TrackingUnavailableError("later"), RetryAction.DEFAULT),
        (errors.ProcessKilledError("later"), RetryAction.DEFAULT),
        (errors.ConfigurationError("no"), RetryAction.FAIL),
        (errors.TrackingEntryMissingError("no"), RetryAction.FAIL),
        (errors.DataContractError("no"), RetryAction.FAIL),
        (errors.ConfigurationError("no"), RetryAction.FAIL),
        (RuntimeError("who knows"), RetryAction.DEFAULT),
        # The words of Docker's and Kubernetes' operators:
        (
            DockerContainerFailedException("Docker container failed: {'StatusCode': 65}"),
            RetryAction.FAIL,
        ),
        (AirflowException("Pod x returned a failure. {'exit_code': 78}"), RetryAction.FAIL),
        (AirflowException("Pod x returned a failure. {'exit_code': 137}"), RetryAction.DEFAULT),
    ],
)
def test_the_class_or_the_code_decides_about_a_retry(error, action):
    assert action_of(error) is action
