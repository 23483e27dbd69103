"""The training stage on two machines, which here are two processes on one: the same artifact.

Both run the command that a pod of the Job runs, with the variables that Kubernetes sets there. The
processes of the training meet by a real rendezvous of torchrun.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from mlflow import MlflowClient

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, FreshAnchor
from pipelines.contracts.run_layout import failure_uri, manifest_uri
from pipelines.stages.runner import read_artifact
from support.serving import free_port
from support.worlds import write_planted_world

pytestmark = [pytest.mark.slow, pytest.mark.services]
COMMAND = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
MODEL = "trained_by_several"
DEADLINE_S = 600


def start(words: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *words],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> str:
    """Wait for a command's end and return the last line that it printed."""
    output, log = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, log[-4000:]
    return output.splitlines()[-1]


def prepare(key: str, options: list[str], environment: Mapping[str, str]) -> str:
    """Resolve a cycle, build its snapshot and check it; return the run's URI."""
    words = ["resolve", "--recipe", "smoke", "--as-of", "2017-03-02", "--key", key, *options]
    run_uri = ended(start(words, environment))
    for stage in ("build_snapshot", "check_snapshot"):
        ended(start(["stage", stage, run_uri], environment))
    return run_uri


def on_two_machines(stage: str, run_uri: str, environment: Mapping[str, str]) -> list[str]:
    """Run a stage as the two pods of an indexed Job do, the second one first."""
    rendezvous = f"127.0.0.1:{free_port()}"
    pods = [
        dict(environment) | {"JOB_COMPLETION_INDEX": index, "HOMEFEED_RENDEZVOUS": rendezvous}
        for index in ("1", "0")
    ]
    words = ["stage", stage, run_uri]
    return [ended(process) for process in [start(words, pod) for pod in pods]]


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str
) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("home")
    write_planted_world(home / "event_log")
    yield os.environ | {
        "HOMEFEED_HOME": str(home),
        "HOMEFEED_TRACKING_URI": tracking_uri,
        "HOMEFEED_REGISTERED_MODEL": MODEL,
        "HOMEFEED_EXPERIMENT": MODEL,
        "HOMEFEED_STAGE_RUNNER": "kubernetes",
        "GX_ANALYTICS_ENABLED": "false",
        # So the code's version is its digest, whatever is committed meanwhile.
        "GIT_DIR": os.devnull,
    }


def test_two_machines_publish_what_two_devices_of_one_do(
    deployment: dict[str, str], tracking_uri: str
) -> None:
    run_uri = prepare("one", ["--devices", "2"], deployment)
    ended(start(["stage", "train_challenger", run_uri], deployment))
    by_one_machine = read_artifact(run_uri, "train_challenger", Challenger)
    run_uri = prepare("two", ["--nodes", "2"], deployment)
    client = MlflowClient(tracking_uri)
    before = len(client.search_model_versions(f"name='{MODEL}'"))
    printed = on_two_machines("train_challenger", run_uri, deployment)
    assert printed == [manifest_uri(run_uri, "train_challenger")] * 2
    made = read_artifact(run_uri, "train_challenger", Challenger)
    assert made.bundle_files == by_one_machine.bundle_files
    assert made.num_steps == by_one_machine.num_steps
    assert made.final_training_loss == by_one_machine.final_training_loss
    assert len(client.search_model_versions(f"name='{MODEL}'")) == before + 1
    assert not storage.exists(failure_uri(run_uri, "train_challenger"))
    work = storage.local_path(run_uri) / "train_challenger" / "training"
    assert (work / "training-node-1.log").exists()
    # A stage that is done is found done by every machine.
    assert on_two_machines("train_challenger", run_uri, deployment) == printed
    # In a first cycle there is no recipe to hold the challenger against, which machine 0 finds.
    on_two_machines("train_anchor", run_uri, deployment)
    assert read_artifact(run_uri, "train_anchor", FreshAnchor).trained is None
