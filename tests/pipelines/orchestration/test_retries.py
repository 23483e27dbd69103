"""Which failures of a stage are tried again, by error class and by exit code."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.sdk import RetryAction, RetryDecision
from airflow.sdk.exceptions import AirflowException, AirflowRescheduleException
from kubernetes.client import models as k8s

from pipelines.contracts import errors
from pipelines.contracts.run_layout import stage_lock_uri
from pipelines.orchestration.operators import stage_operator
from pipelines.orchestration.retries import StageRetryPolicy, exit_code_of, put_off
from pipelines.settings import Settings
from support.holders import Holder

FAIL, DEFAULT = RetryAction.FAIL, RetryAction.DEFAULT


def decide(error: BaseException) -> RetryDecision:
    return StageRetryPolicy().evaluate(error, try_number=1, max_tries=3)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        *((f"exit {code}", code) for code in sorted(errors.PERMANENT_EXIT_CODES)),
        *((f"exit {code}", code) for code in (1, 69, 75, 137)),
        ("kill -9 $$", -9),
    ],
)
def test_an_exit_code_under_bash_decides(script: str, code: int) -> None:
    settings = Settings(command=f"bash -c '{script}'")
    operator = stage_operator("build_snapshot", "file:///run", timedelta(hours=1), settings)
    with pytest.raises(AirflowException) as caught:
        operator.execute({})
    assert exit_code_of(caught.value) == code
    decision = decide(caught.value)
    assert decision.action is (FAIL if code in errors.PERMANENT_EXIT_CODES else DEFAULT)


@pytest.mark.parametrize(("code", "action"), [(78, FAIL), (65, FAIL), (75, DEFAULT)])
def test_a_pod_s_exit_code_decides(code: int, action: RetryAction) -> None:
    state = k8s.V1ContainerState(terminated=k8s.V1ContainerStateTerminated(exit_code=code))
    of = {"name": "base", "image": "x"}
    status = k8s.V1ContainerStatus(**of, image_id="x", ready=False, restart_count=0, state=state)
    pod = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="x", namespace="x", labels={}),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(**of)]),
        status=k8s.V1PodStatus(phase="Failed", container_statuses=[status]),
    )
    operator = KubernetesPodOperator(task_id="operator", on_finish_action="keep_pod", image="x")
    # No test reaches a cluster: this one has that pod, and is told that it was looked at.
    operator.__dict__["client"] = SimpleNamespace(
        patch_namespaced_pod=lambda **_: None, read_namespaced_pod=lambda *_, **__: pod
    )
    with pytest.raises(AirflowException) as caught:
        operator.cleanup(pod, pod)
    assert exit_code_of(caught.value) == code and decide(caught.value).action is action


@pytest.mark.parametrize(
    ("reason", "action"), [("PodFailurePolicy", FAIL), ("DeadlineExceeded", DEFAULT)]
)
def test_why_a_job_failed_decides(reason: str, action: RetryAction) -> None:
    failed = k8s.V1JobCondition(type="Failed", status="True", reason=reason)
    job = k8s.V1Job(status=k8s.V1JobStatus(conditions=[failed]))
    # as the operator's trigger composes it
    message = f"Job failed with error: {KubernetesHook.is_job_failed(job)}"
    assert decide(AirflowException(message)).action is action


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (errors.DataGateFailedError("no"), FAIL),
        (errors.PromotionRefusedError("no"), FAIL),
        (errors.ConfigurationError("no"), FAIL),
        (errors.TrackingEntryMissingError("no"), FAIL),
        (errors.DataContractError("no"), FAIL),
        (errors.TransientStorageError("later"), DEFAULT),
        (errors.TrackingUnavailableError("later"), DEFAULT),
        (errors.ProcessKilledError("later"), DEFAULT),
        (RuntimeError("who knows"), DEFAULT),
        # A signal's number is no exit code.
        (AirflowException("The command returned a non-zero exit code -64."), DEFAULT),
        (DockerContainerFailedException("Docker container failed: {'StatusCode': 65}"), FAIL),
    ],
)
def test_the_class_or_the_code_decides_about_a_retry(
    error: BaseException, action: RetryAction
) -> None:
    assert decide(error).action is action


def test_a_task_whose_stage_another_attempt_does_is_put_off_without_a_try(tmp_path: Path) -> None:
    run_uri = tmp_path.as_uri()
    hold = f"""
with storage.exclusive_lock({stage_lock_uri(run_uri, "train_challenger")!r}, "an attempt"):
    print("working", flush=True)
    sys.stdin.readline()
"""
    ti = SimpleNamespace(
        task_id="train_challenger",
        task=SimpleNamespace(execution_timeout=timedelta(hours=18)),
        xcom_pull=lambda task_ids: {"run_uri": run_uri},
        get_first_reschedule_date=lambda _: first,
    )
    first, now = None, datetime.now(UTC)
    with Holder(hold) as theirs:
        assert theirs.says() == "working"
        with pytest.raises(AirflowRescheduleException) as caught:
            put_off({"ti": ti})
        assert now < caught.value.reschedule_date < now + timedelta(minutes=5)
        first = now - timedelta(hours=19)
        put_off({"ti": ti})  # The stage says who it is that does not end.
        first = None
        put_off({"ti": SimpleNamespace(task_id="outcome")})
        put_off({"ti": SimpleNamespace(task_id="resolve_run", xcom_pull=lambda task_ids: None)})
        theirs.kill()
        put_off({"ti": ti})
