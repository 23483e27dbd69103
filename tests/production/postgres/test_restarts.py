"""PostgreSQL restarted while the champion is moved, and while a stage is run.

What was disturbed is done, or fails as something that a retry can help; the retry ends as if
nothing had happened. A restart in whole stages is in tests/production/celery/test_cycles.py, too.
"""

import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts import errors
from pipelines.registry import tracking
from support.at_once import (
    Actors,
    act_at_once,
    actors,
    champion_and_challengers,
    promote,
    roll_back,
    sound_state,
)
from support.database_server import DatabaseServer

pytestmark = pytest.mark.services
ROUNDS = range(10)
OUTAGE_S = 1.0
MOVE_S = 0.6
"""About as long as a move takes."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Actors]:
    with actors(2) as found:
        yield found


def may_be_tried_again(ended: str) -> bool:
    return ended == "" or bool(getattr(errors, ended).is_retryable)


@pytest.mark.parametrize("number", ROUNDS)
def test_a_move_in_a_restart_is_done_once_it_is_tried_again(
    registry_url: str, database: DatabaseServer, tmp_path: Path, pool: Actors, number: int
) -> None:
    draw = random.Random(number)
    client = tracking.connect(registry_url)
    champion, [(run, model)] = champion_and_challengers(client, tmp_path, registry_url, 1)
    move = partial(promote, run, model)
    if number % 2:
        promote(run, model)
        move, model = partial(roll_back, run, model.version), champion
    under_way = pool.begin(move)
    time.sleep(draw.uniform(0, MOVE_S))
    how = draw.choice((signal.SIGINT, signal.SIGQUIT))
    database.restart(how, pause_s=OUTAGE_S)
    ended = under_way.result(timeout=120)
    assert may_be_tried_again(ended)
    if ended:
        assert pool.begin(move).result(timeout=120) == ""
    state = sound_state(client, run)
    assert state.served == model
    assert len(state.history.moves) == 2 + number % 2


@pytest.mark.parametrize("is_rollback", [False, True])
def test_a_move_whose_database_is_gone_at_its_entry_is_carried_on(
    registry_url: str, database: DatabaseServer, tmp_path: Path, pool: Actors, is_rollback: bool
) -> None:
    """The decision is on record when the database goes, and the alias cannot be moved."""
    client = tracking.connect(registry_url)
    champion, [(run, model)] = champion_and_challengers(client, tmp_path, registry_url, 1)
    move, place = partial(promote, run, model), 2
    if is_rollback:
        promote(run, model)
        move, model, place = partial(roll_back, run, model.version), champion, 3
    folder = storage.local_path(run.workspace_uri) / "history" / run.registered_model
    under_way = pool.begin(move)
    deadline = time.monotonic() + 60
    while not (folder / f"{place:08d}.json").exists():
        assert time.monotonic() < deadline
    database.end(signal.SIGQUIT)
    ended = under_way.result(timeout=120)
    database.start()
    assert may_be_tried_again(ended)
    again = act_at_once(pool, 0, move, move)
    assert "" in again and all(map(may_be_tried_again, again))
    state = sound_state(client, run)
    assert state.served == model
    assert len(state.history.moves) == place
