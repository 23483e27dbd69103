"""Cycles of a deployment whose requests to its object store are spoiled on the way.

A stage whose requests are spoiled ends, or fails as one that may be retried. What it has published
is whole, at any time. When the faults stop, the cycle ends with the digests of one that nothing
disturbed.
"""

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import STAGES, Snapshot
from pipelines.contracts.run_layout import (
    StageFailure,
    failure_uri,
    manifest_uri,
    snapshot_manifest_uri,
)
from pipelines.contracts.snapshot_files import verify_files
from pipelines.contracts.stage_table import TABLE
from pipelines.stages.runner import read_artifact, read_record
from support.deployments import Deployment
from support.faulty_proxy import FaultyProxy
from support.runs import PLANTED_AS_OF
from support.stage_processes import KILLED, Act, Ended

AS_OF = PLANTED_AS_OF
STALL_S = 1.6
"""Longer than the clients of these tests wait for an answer."""
_SILENCE_S = 1.0
RETRYABLE = (
    "TransientStorageError",  # the store
    "RunInProgressError",
)


def error_xml(code: str, message: str = "Told by a test.", **more: str) -> bytes:
    """Return the body of an error as S3 writes it."""
    parts = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f"{head}<Error><Code>{code}</Code><Message>{message}</Message>{parts}</Error>".encode()


ANSWERS = {
    "InternalError": (500, error_xml("InternalError", "We encountered an internal error.")),
    "SlowDown": (503, error_xml("SlowDown", "Please reduce your request rate.")),
}
"""What S3 says when it may be asked again."""
FAULTS = (*ANSWERS, "request lost", "answer lost", "reset", "truncated", "stalled")


def in_haste(act: Act, named_in: Path) -> None:
    """Do an act in a process of its own whose clients wait for a second only.

    The process writes its number down, so that a proxy can kill it at a request.
    """
    from datetime import timedelta

    from pipelines.places import stores

    stores._SILENCE_S = _SILENCE_S
    stores._TIMEOUT = timedelta(seconds=_SILENCE_S)
    named_in.write_text(str(os.getpid()))
    act()


def attempt(deployment: Deployment, stage: str, trigger: str) -> Ended:
    """Run a stage once, by clients that wait for a second only."""
    act = deployment.act_of(stage, trigger, AS_OF)
    return deployment.perform(partial(in_haste, act, number_file(deployment)))


def number_file(deployment: Deployment) -> Path:
    """Return the file that holds the number of the process of the last attempt."""
    return deployment.home / "process"


def kill_at(deployment: Deployment, proxy: FaultyProxy, place: int, arrives: bool) -> None:
    """Kill the next attempt (SIGKILL) when it makes a request.

    Args:
        deployment: Whose attempt.
        proxy: By which its requests go.
        place: Which of its requests, from 0 on.
        arrives: Whether that request still reaches the store.
    """
    counted = itertools.count()

    def choose(*_: str) -> str:
        if next(counted) != place:
            return ""
        os.kill(int(number_file(deployment).read_text()), signal.SIGKILL)
        return "" if arrives else "request lost"

    proxy.choose = choose


def run_cycle(
    deployment: Deployment,
    proxy: FaultyProxy,
    trigger: str,
    begin: Callable[[str, int], None],
    num_attempts: int,
) -> Counter[str]:
    """Run a cycle with spoiled requests and, for what did not end so, without.

    Args:
        deployment: Whose requests go by the proxy.
        proxy: Spoils nothing before this and nothing afterwards.
        trigger: Names the cycle.
        begin: Lets the proxy begin, for a stage and the number of its attempt.
        num_attempts: Of one stage, with spoiled requests.

    Returns:
        How often attempts ended with each error, "killed", or with "" where one was done; and how
        many requests were spoiled.
    """
    seen: Counter[str] = Counter()
    for stage in STAGES:
        for number in range(num_attempts):
            begin(stage, number)
            ended = attempt(deployment, stage, trigger)
            proxy.mend()
            seen["killed" if ended.code == KILLED else ended.error] += 1
            assert_told(deployment, stage, trigger, ended)
            if ended.code == 0:
                break
        else:
            ended = attempt(deployment, stage, trigger)
            assert ended.code == 0, f"{stage} without faults: {ended.error}\n{ended.said}"
    seen["spoiled"] = len(proxy.met)
    return seen


def assert_told(deployment: Deployment, stage: str, trigger: str, ended: Ended) -> None:
    """Check that an attempt is done or may be retried, and that all that is published is whole."""
    run_uri = deployment.run_uri(trigger, AS_OF)
    story = f"{stage}: {ended.error}\n{ended.said}"
    if ended.code and ended.code != KILLED:
        # The store may be out of reach for the note too.
        is_noted = storage.exists(noted := failure_uri(run_uri, stage))
        failure = storage.read_model(noted, StageFailure) if is_noted else None
        story = f"{story}\n{failure.message if failure else 'nothing is noted'}"
        assert (ended.code, ended.error in RETRYABLE) == (75, True), story
        assert failure is None or failure.is_retryable, story
    elif ended.code == 0:
        assert storage.exists(manifest_uri(run_uri, stage)), story
    assert_whole(deployment, run_uri, story)


def assert_whole(deployment: Deployment, run_uri: str, story: str) -> None:
    """Check that what has a manifest is there, to the last byte."""
    for stage in STAGES:
        if storage.exists(manifest_uri(run_uri, stage)):
            assert read_record(run_uri, stage).is_sound(), story
            artifact = read_artifact(run_uri, stage, TABLE[stage].gives)
            assert storage.find_missing(artifact.places()) == [], story
    snapshots = storage.join(deployment.workspace, "snapshots")
    for name in storage.list_names(snapshots):
        found = snapshot_manifest_uri(storage.join(snapshots, name))
        if storage.exists(found):
            snapshot = storage.read_model(found, Snapshot)
            with storage.local_copy(snapshot.uri) as folder:
                verify_files(snapshot, folder)


def assert_tidy(deployment: Deployment, trigger: str) -> None:
    """Check that killed and failed attempts have left nothing but what is told to stay.

    What stays is, of a kill in the midst of a probe, the probe.
    """
    run_uri = deployment.run_uri(trigger, AS_OF)
    for stage in STAGES:
        names = storage.list_names(storage.join(run_uri, stage))
        made = [name for name in names if name.startswith("output-")]
        assert len(made) <= 1, f"{stage}: {made}"
        assert "failure.json" not in names, f"{stage}: {names}"
    left = [path for path in (deployment.home / "tmp").rglob(".scratch-*") if path.is_dir()]
    assert left == []
