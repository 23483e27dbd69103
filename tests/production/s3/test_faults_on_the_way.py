"""Whole cycles whose requests to the store are spoiled end in the digests of an undisturbed one.

Requests are counted, so that every n-th is spoiled; or the store is gone from a drawn request on
until the attempt has ended, which is the outage that no client's own retries outlast. A stage whose
requests are spoiled ends, or fails as one that may be retried; what is published is whole, at any
time.
"""

import itertools
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

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
from pipelines.stages.runner import read_artifact
from support.deployments import Deployment, facts_of
from support.faulty_proxy import ANSWERS, FaultyProxy, faulty_proxy
from support.runs import PLANTED_AS_OF as AS_OF
from support.s3_server import BUCKET, environment, use_s3
from support.stage_processes import KILLED, Act, Ended
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
SILENCE_S, STALL_S = 1.0, 1.6
"""How long the clients of these tests wait for an answer, and how late one is that is stalled."""
FAULTS = (*ANSWERS, "request lost", "answer lost", "reset", "truncated", "stalled")
EVERY, EVERY_STALL = 7, 31
"""A request that is stalled costs more than a second, so fewer of them are."""
SEED = 17
ALONE = pytest.mark.exhaustive
"""What `make test-all` leaves to `pytest -m exhaustive`: each kind of fault in a cycle of
its own, where it otherwise takes turns with the others, and more of them."""


def in_haste(act: Act, named_in: Path) -> None:
    """Do an act in a process whose clients wait for a second only; it writes its number down."""
    from pipelines.places import stores

    stores._SILENCE_S, stores._TIMEOUT = SILENCE_S, timedelta(seconds=SILENCE_S)
    named_in.write_text(str(os.getpid()))
    act()


class Behind:
    """A bucket behind a proxy, with the event log in it, and what an undisturbed cycle makes."""

    def __init__(self, folder: Path, bucket: str, proxy: FaultyProxy, tracking_uri: str) -> None:
        self.folder, self.bucket, self.proxy = folder, bucket, proxy
        self.tracking_uri, self.num_requests = tracking_uri, dict[str, int]()
        undisturbed = self.deployment("undisturbed")
        for stage in STAGES:
            counted = itertools.count()
            proxy.choose = lambda *_, counted=counted: str(next(counted))[:0]
            ended = self.attempt(undisturbed, stage)
            assert ended.code == 0, f"{stage}: {ended.error}\n{ended.said}"
            self.num_requests[stage] = next(counted)
        proxy.mend()
        self.facts: dict[str, Any] = facts_of(undisturbed.run_uri("cycle", AS_OF))

    def deployment(self, name: str) -> Deployment:
        """Return a new deployment, which finds the one event log."""
        extra = environment(self.proxy.url)
        places = (f"{self.bucket}/event_log", f"{self.bucket}/{name}")
        return Deployment(self.folder / name, *places, self.tracking_uri, name, extra)

    def attempt(self, deployment: Deployment, stage: str) -> Ended:
        """Run a stage once, by clients that wait for a second only."""
        act = deployment.act_of(stage, "cycle", AS_OF)
        return deployment.perform(partial(in_haste, act, self.folder / "process"))

    def kill_at(self, place: int, arrives: bool) -> None:
        """Kill the next attempt (SIGKILL) at a request, which may still reach the store."""
        counted = itertools.count()

        def choose(*_: str) -> str:
            if next(counted) != place:
                return ""
            os.kill(int((self.folder / "process").read_text()), signal.SIGKILL)
            return "" if arrives else "request lost"

        self.proxy.choose = choose

    def draw_places(self, count: int) -> dict[str, list[int]]:
        """Return, of each stage, numbers of some of its requests, in order."""
        draw = random.Random(SEED)
        return {
            stage: sorted(draw.sample(range(total), min(total, count)))
            for stage, total in self.num_requests.items()
        }

    def run_cycle(self, begin: Callable[[str, int], None], num_attempts: int) -> Counter[str]:
        """Run a cycle with spoiled requests and, for what did not end so, without; look at it.

        Args:
            begin: Lets the proxy begin, for a stage and the number of its attempt.
            num_attempts: Of one stage, with spoiled requests.

        Returns:
            How often attempts ended with each error, "killed", or with "" where one was done; and
            how many requests were spoiled.
        """
        deployment, seen = self.deployment(f"cycle_{uuid.uuid4().hex[:8]}"), Counter[str]()
        self.proxy.met.clear()
        for stage in STAGES:
            for number in range(num_attempts):
                begin(stage, number)
                ended = self.attempt(deployment, stage)
                self.proxy.mend()
                seen["killed" if ended.code == KILLED else ended.error] += 1
                self._assert_told(deployment, stage, ended)
                if ended.code == 0:
                    break
            else:
                ended = self.attempt(deployment, stage)
                assert ended.code == 0, f"{stage} without faults: {ended.error}\n{ended.said}"
        seen["spoiled"] = len(self.proxy.met)
        run_uri = deployment.run_uri("cycle", AS_OF)
        assert facts_of(run_uri) == self.facts
        for stage in STAGES:
            assert not storage.exists(failure_uri(run_uri, stage)), stage
        left = [path for path in (deployment.home / "tmp").rglob(".scratch-*") if path.is_dir()]
        assert left == []
        return seen

    def _assert_told(self, deployment: Deployment, stage: str, ended: Ended) -> None:
        """Check that an attempt is done or may be retried, and all that is published is whole."""
        run_uri, story = deployment.run_uri("cycle", AS_OF), f"{stage}: {ended.error}\n{ended.said}"
        if ended.code not in (0, KILLED):
            # The store may be out of reach for the note too.
            is_noted = storage.exists(noted := failure_uri(run_uri, stage))
            failure = storage.read_model(noted, StageFailure) if is_noted else None
            story = f"{story}\n{failure.message if failure else 'nothing is noted'}"
            assert ended.code == 75, story
            assert ended.error in ("TransientStorageError", "RunInProgressError"), story
            assert failure is None or failure.exit_code == 75, story
        assert ended.code != 0 or storage.exists(manifest_uri(run_uri, stage)), story
        for each in STAGES:
            if storage.exists(manifest_uri(run_uri, each)):
                artifact = read_artifact(run_uri, each, TABLE[each].gives)
                assert storage.find_missing(artifact.places()) == [], story
        snapshots = storage.join(deployment.workspace, "snapshots")
        for name in storage.list_names(snapshots):
            if storage.exists(found := snapshot_manifest_uri(storage.join(snapshots, name))):
                snapshot = storage.read_model(found, Snapshot)
                with storage.local_copy(snapshot.uri) as folder:
                    verify_files(snapshot, folder)


@pytest.fixture(scope="module")
def behind(
    tmp_path_factory: pytest.TempPathFactory, tracking_uri: str, s3_url: str
) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    write_planted_world(folder / "event_log")
    bucket = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch, faulty_proxy(s3_url) as proxy:
        # The test itself reads what was made by another way, which nobody spoils.
        use_s3(s3_url, patch)
        storage.publish_folder(folder / "event_log", f"{bucket}/event_log")
        proxy.answers |= ANSWERS
        proxy.stall_s = STALL_S
        yield Behind(folder, bucket, proxy, tracking_uri)


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(FAULTS, id="each in turn"),
        *(pytest.param((fault,), id=fault, marks=ALONE) for fault in FAULTS),
    ],
)
def test_a_cycle_of_which_every_nth_request_is_spoiled(
    behind: Behind, faults: tuple[str, ...]
) -> None:
    every = EVERY_STALL if faults == ("stalled",) else EVERY
    counted, in_turn = itertools.count(1), itertools.cycle(faults)

    def begin(*_: object) -> None:
        behind.proxy.choose = lambda *_: "" if next(counted) % every else next(in_turn)

    assert behind.run_cycle(begin, num_attempts=4)["spoiled"] > 10


@pytest.mark.parametrize("num_outages", [2, pytest.param(4, marks=ALONE)])
def test_a_cycle_whose_store_is_gone_from_drawn_requests_on(
    behind: Behind, num_outages: int
) -> None:
    drawn = behind.draw_places(num_outages)

    def begin(stage: str, number: int) -> None:
        counted, first = itertools.count(), drawn[stage][number]
        behind.proxy.choose = lambda *_: "reset" if next(counted) >= first else ""

    seen = behind.run_cycle(begin, num_attempts=num_outages)
    assert seen["TransientStorageError"] >= len(STAGES)


@pytest.mark.parametrize(
    ("arrives", "num_kills"),
    [
        pytest.param((False, True), 2, id="in turn"),
        pytest.param((False,), 4, id="before it arrives", marks=ALONE),
        pytest.param((True,), 4, id="after it arrived", marks=ALONE),
    ],
)
def test_a_cycle_whose_stages_are_killed_at_drawn_requests(
    behind: Behind, arrives: tuple[bool, ...], num_kills: int
) -> None:
    drawn = behind.draw_places(num_kills)

    def begin(stage: str, number: int) -> None:
        behind.kill_at(drawn[stage][number], arrives[number % len(arrives)])

    # A training that goes on where it was killed makes fewer requests, and may come to its end.
    assert behind.run_cycle(begin, num_kills)["killed"] >= (num_kills - 1) * len(STAGES)
