"""Whole cycles whose requests to the store are spoiled end in the digests of an undisturbed one.

Requests are counted, so that every n-th is spoiled; or the store is gone from a drawn request on
until the attempt has ended, which is the outage that no client's own retries outlast.
"""

import itertools
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from support.deployments import Deployment, facts_of
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.faulty_store import (
    ANSWERS,
    AS_OF,
    FAULTS,
    STALL_S,
    assert_tidy,
    attempt,
    kill_at,
    run_cycle,
)
from support.s3_server import BUCKET, environment, use_s3
from support.worlds import write_planted_world

pytestmark = [pytest.mark.production, pytest.mark.services, pytest.mark.slow]
EVERY, EVERY_STALL = 7, 31
"""A request that is stalled costs more than a second, so fewer of them are."""
SEED = 17
ALONE = pytest.mark.exhaustive
"""What `make test-all` leaves to `pytest -m exhaustive`: each kind of fault in a cycle of
its own, where it otherwise takes turns with the others, and more of them."""


@dataclass
class Behind:
    """A bucket behind a proxy, with the event log in it, and what an undisturbed cycle makes."""

    folder: Path
    bucket: str
    proxy: FaultyProxy
    tracking_uri: str
    facts: dict[str, Any] = field(default_factory=dict)
    num_requests: dict[str, int] = field(default_factory=dict)

    def deployment(self, name: str) -> Deployment:
        """Return a new deployment, which finds the one event log."""
        extra = environment(self.proxy.url)
        places = (f"{self.bucket}/event_log", f"{self.bucket}/{name}")
        return Deployment(self.folder / name, *places, self.tracking_uri, name, extra)

    def assert_undisturbed(self, deployment: Deployment) -> None:
        """Check that a cycle has made what it makes where nothing disturbs it, and nothing else."""
        found = facts_of(deployment.run_uri("cycle", AS_OF))
        for name, expected in self.facts.items():
            assert found[name] == expected, name
        assert_tidy(deployment, "cycle")

    def draw_places(self, count: int) -> dict[str, list[int]]:
        """Return, of each stage, numbers of some of its requests, in order."""
        draw = random.Random(SEED)
        return {
            stage: sorted(draw.sample(range(total), min(total, count)))
            for stage, total in self.num_requests.items()
        }


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
        made = Behind(folder, bucket, proxy, tracking_uri)
        undisturbed = made.deployment("undisturbed")
        for stage in STAGES:
            counted = itertools.count()
            proxy.choose = lambda *_, counted=counted: str(next(counted))[:0]
            ended = attempt(undisturbed, stage, "cycle")
            assert ended.code == 0, f"{stage}: {ended.error}\n{ended.said}"
            made.num_requests[stage] = next(counted)
        proxy.mend()
        made.facts = facts_of(undisturbed.run_uri("cycle", AS_OF))
        yield made


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
    proxy, deployment = behind.proxy, behind.deployment(f"every_{uuid.uuid4().hex[:8]}")
    proxy.met.clear()
    counted, in_turn = itertools.count(1), itertools.cycle(faults)

    def begin(*_: object) -> None:
        proxy.choose = lambda *_: "" if next(counted) % every else next(in_turn)

    seen = run_cycle(deployment, proxy, "cycle", begin, num_attempts=4)
    assert seen["spoiled"] > 10
    behind.assert_undisturbed(deployment)


@pytest.mark.parametrize("share", [0.3, pytest.param(0.1, marks=ALONE)])
def test_a_cycle_of_which_a_share_of_all_requests_is_spoiled(behind: Behind, share: float) -> None:
    proxy, deployment = behind.proxy, behind.deployment(f"share_{share:.0%}".strip("%"))
    proxy.met.clear()
    draw = random.Random(SEED)
    proxy_faults = tuple(fault for fault in FAULTS if fault != "stalled")

    def begin(*_: object) -> None:
        proxy.choose = lambda *_: draw.choice(proxy_faults) if draw.random() < share else ""

    seen = run_cycle(deployment, proxy, "cycle", begin, num_attempts=2)
    assert seen["spoiled"] > 20
    behind.assert_undisturbed(deployment)


@pytest.mark.parametrize("num_outages", [2, pytest.param(4, marks=ALONE)])
def test_a_cycle_whose_store_is_gone_from_drawn_requests_on(
    behind: Behind, num_outages: int
) -> None:
    proxy, deployment = behind.proxy, behind.deployment(f"outages_{num_outages}")
    proxy.met.clear()
    drawn = behind.draw_places(num_outages)

    def begin(stage: str, number: int) -> None:
        counted, first = itertools.count(), drawn[stage][number]
        proxy.choose = lambda *_: "reset" if next(counted) >= first else ""

    seen = run_cycle(deployment, proxy, "cycle", begin, num_attempts=num_outages)
    assert seen["TransientStorageError"] >= len(STAGES)
    behind.assert_undisturbed(deployment)


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
    proxy, deployment = behind.proxy, behind.deployment(f"killed_{uuid.uuid4().hex[:8]}")
    drawn = behind.draw_places(num_kills)

    def begin(stage: str, number: int) -> None:
        kill_at(deployment, proxy, drawn[stage][number], arrives[number % len(arrives)])

    seen = run_cycle(deployment, proxy, "cycle", begin, num_attempts=num_kills)
    # A training that goes on where it was killed makes fewer requests, and may come to its end.
    assert seen["killed"] >= (num_kills - 1) * len(STAGES)
    behind.assert_undisturbed(deployment)
