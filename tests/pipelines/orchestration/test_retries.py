"""Which failures of a stage are tried again, by error class and by exit code."""

from datetime import timedelta

import pytest
from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException

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


@pytest.mark.parametrize(
    "error, action",
    [
        (errors.DataGateFailedError("no"), RetryAction.FAIL),
        (errors.PromotionRefusedError("no"), RetryAction.FAIL),
        (errors.ConfigurationError("no"), RetryAction.FAIL),
        (errors.TransientStorageError("later"), RetryAction.DEFAULT),
        (errors.TrackingUnavailableError("later"), RetryAction.DEFAULT),
        (errors.ProcessKilledError("later"), RetryAction.DEFAULT),
        (errors.TrackingAccessError("no"), RetryAction.FAIL),
        (errors.NotMlflowError("no"), RetryAction.FAIL),
        (errors.TrackingEntryMissingError("no"), RetryAction.FAIL),
        (errors.BundleMissingError("no"), RetryAction.FAIL),
        (errors.PlaceError("no"), RetryAction.FAIL),
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
