"""Promotion, rollback and force on a workspace in a bucket, killed at drawn places.

What must hold afterwards is in `support.killed_moves`, as for a workspace on a local disk.
"""

import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.faulty_proxy import faulty_proxy
from support.killed_moves import ACTIONS, ACTORS, try_once
from support.killed_moves_on_store import Killer
from support.s3_server import BUCKET, use_s3

pytestmark = [pytest.mark.production, pytest.mark.slow]
SEED = 23


@pytest.fixture(scope="module")
def killer(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    with pytest.MonkeyPatch.context() as patch, faulty_proxy(s3_url) as proxy:
        use_s3(s3_url, patch)
        yield Killer(proxy, tmp_path_factory.mktemp("notes"))


def bucket() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.mark.parametrize("num_actors", [2, pytest.param(len(ACTORS), marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_a_drawn_place_loses_nothing(
    killer: Killer, tmp_path: Path, action: str, num_actors: int
) -> None:
    draw = random.Random(f"{SEED} {action} {num_actors}")
    num_places = killer.count_places(tmp_path / "dry", bucket(), action)
    assert num_places > 20
    for actor in draw.sample(sorted(ACTORS), num_actors):
        place = draw.randrange(num_places)
        story = f"{action}, killed at place {place} of {num_places}, then {actor}"
        folder = tmp_path / actor.replace(" ", "-")
        try_once(folder, action, actor, [place], story, bucket(), killer)
