"""Each stage is killed with SIGKILL in the middle, then run again: as if nothing had happened.

The comparison also loses MLflow in the middle.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, ResolvedRun, RunRequest
from pipelines.contracts.errors import TrackingUnavailableError
from pipelines.contracts.files import digest_files
from pipelines.contracts.judgement import Decision, Judgement, Promotion
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri
from pipelines.registry import history
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, start_run
from support.line import Line, line_to
from support.runs import PLANTED_AS_OF
from support.worlds import write_planted_world

pytestmark = [pytest.mark.services, pytest.mark.slow]
# what shows, below the workspace, that a stage is in the middle of its work
SIGNS = {
    "build_snapshot": "snapshots/.scratch-*",
    "check_snapshot": ".scratch-*",
    "train_challenger": "runs/*/train_challenger/training/metrics.jsonl",
    "train_anchor": "runs/*/train_anchor/stage.lock",
    "compare_with_champion": ".scratch-*",
    "promote_challenger": "runs/*/promote_challenger/stage.lock",
    "alert": "runs/*/alert/stage.lock",
}
EARLY, LATE = tuple(SIGNS)[:4], tuple(SIGNS)[4:]
# these are over within milliseconds and may win the race; what must hold afterwards is the same
QUICK = ("train_anchor", "promote_challenger", "alert")


@pytest.fixture(scope="module")
def line(tracking_uri: str) -> Iterator[Line]:
    with line_to(tracking_uri) as line:
        yield line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, line: Line) -> ResolvedRun:
    home = tmp_path_factory.mktemp("killed")
    # large enough that the holdout can tell, so that a promotion is killed too
    write_planted_world(home / "event_log", num_users=240)
    settings = Settings(
        home=str(home), tracking_uri=line.url, registered_model="killed", experiment="killed"
    )
    request = RunRequest(
        recipe="smoke",
        as_of=PLANTED_AS_OF,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        may_promote=True,
        num_devices=1,
        trigger="killed",
    )
    return start_run(request, settings)


def start(name: str, run: ResolvedRun) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipelines.cli", "stage", name, "--run", run.run_uri]
    home = storage.local_path(run.workspace_uri).parent
    environment = {**os.environ, "HOMEFEED_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment)


def start_and_wait_for_the_middle(name: str, run: ResolvedRun) -> subprocess.Popen:
    workspace = storage.local_path(run.workspace_uri)
    stage = start(name, run)
    deadline = time.monotonic() + 120
    while not list(workspace.glob(SIGNS[name])) and time.monotonic() < deadline:
        time.sleep(0.002)
    return stage


def kill_in_the_middle(name: str, run: ResolvedRun) -> None:
    stage = start_and_wait_for_the_middle(name, run)
    stage.send_signal(signal.SIGKILL)
    ended = stage.wait()
    if name not in QUICK:
        assert ended == -signal.SIGKILL, f"{name} ended before it could be killed"
        assert not storage.exists(manifest_uri(run.run_uri, name))


def assert_a_kill_is_undone(name: str, run: ResolvedRun) -> None:
    kill_in_the_middle(name, run)
    assert start(name, run).wait(timeout=240) == 0
    assert storage.exists(manifest_uri(run.run_uri, name))
    leftovers = list(storage.local_path(run.workspace_uri).rglob(".scratch-*"))
    assert leftovers == []


# in the order of the flow: each runs on what the one before left
@pytest.mark.parametrize("name", EARLY)
def test_a_killed_stage_is_run_again(name: str, run: ResolvedRun) -> None:
    assert_a_kill_is_undone(name, run)


def test_mlflow_lost_during_the_comparison_may_be_retried(run: ResolvedRun, line: Line) -> None:
    stage = start_and_wait_for_the_middle("compare_with_champion", run)
    line.cut()
    assert stage.wait(timeout=120) == TrackingUnavailableError.exit_code
    failure = storage.read_model(failure_uri(run.run_uri, "compare_with_champion"), StageFailure)
    assert (failure.error_class, failure.is_retryable) == ("TrackingUnavailableError", True)
    assert line.url in failure.message and "nothing was promoted" in failure.message
    published = storage.list_names(storage.join(run.run_uri, "compare_with_champion"))
    assert sorted(published) == ["failure.json", "stage.lock"]
    line.mend()


@pytest.mark.parametrize("name", LATE)
def test_a_killed_stage_after_the_outage_is_run_again(name: str, run: ResolvedRun) -> None:
    assert_a_kill_is_undone(name, run)


def test_all_of_it_left_one_model_and_one_history_entry(run: ResolvedRun) -> None:
    challenger = read_artifact(run.run_uri, "train_challenger", Challenger)
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run.run_uri, "promote_challenger", Promotion)
    assert challenger.model.version == "1"
    assert judgement.verdict.decision is Decision.PROMOTE
    assert judgement.serving is not None and judgement.serving.problems == ()
    assert judgement.serving.figures in judgement.verdict.grounds
    assert promotion.champion_after == challenger.model
    assert len(history.load(run.workspace_uri, "killed").moves) == 1


def test_nothing_a_stage_wrote_is_left_open_to_a_second_run(run: ResolvedRun) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in Path(storage.local_path(run.run_uri)).rglob("manifest.json")
    }
    for name in SIGNS:
        assert start(name, run).wait(timeout=60) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_lost_bundle_is_published_again_without_training_again(run: ResolvedRun) -> None:
    before = read_artifact(run.run_uri, "train_challenger", Challenger)
    shutil.rmtree(storage.local_path(before.bundle_uri))
    assert start("train_challenger", run).wait(timeout=60) == 0
    after = read_artifact(run.run_uri, "train_challenger", Challenger)
    assert digest_files(storage.local_path(after.bundle_uri)) == before.bundle_files
    assert after.model == before.model
