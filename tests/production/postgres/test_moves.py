"""Moves of the champion over MLflow on PostgreSQL: several at once, and while it is restarted.

Everybody acts in a process of their own. Of moves at once exactly one wins; the seed draws by how
many milliseconds they miss each other. What a restart disturbed is done, or fails as something that
a retry can help; the retry ends as if nothing had happened. A restart in whole stages is in
tests/production/celery/test_cycles.py, too.
"""

import random
import signal
import time
from collections.abc import Iterator

import pytest

from pipelines.contracts import errors
from support.at_once import Actors, act_of, actors, sound_state
from support.database_server import DatabaseServer
from support.desk import Desk

pytestmark = pytest.mark.services
OUTAGE_S = 1.0
MOVE_S = 0.6
"""About as long as a move takes."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Actors]:
    with actors(3) as found:
        yield found


@pytest.mark.parametrize("seed", range(8))
def test_of_three_promotions_at_once_one_wins(desk: Desk, pool: Actors, seed: int) -> None:
    desk.promote(desk.cycle(0))
    runs = [desk.cycle(1, run_id=f"cycle-{number}") for number in range(3)]
    models = [desk.register(run) for run in runs]
    pairs = zip(runs, models, strict=True)
    ended = pool.act(seed, *(act_of(desk, "promote", *each) for each in pairs))
    assert sorted(ended) == ["", "PromotionRefusedError", "PromotionRefusedError"]
    winner, state = models[ended.index("")], sound_state(desk)
    assert state.served == winner
    assert [entry.model.version for entry in state.history.moves] == ["1", winner.version]


@pytest.mark.parametrize("seed", range(8))
def test_of_a_promotion_and_a_rollback_at_once_one_wins(
    desk: Desk, pool: Actors, seed: int
) -> None:
    first, second = desk.promote_two()
    run = desk.cycle(2)
    third = desk.register(run)
    acts = act_of(desk, "promote", run, third), act_of(desk, "rollback", away=second.version)
    ended = tuple(pool.act(seed, *acts))
    served = {("", "ConfigurationError"): third, ("PromotionRefusedError", ""): first}
    state = sound_state(desk)
    assert state.served == served[ended] and len(state.history.moves) == 3


@pytest.mark.parametrize("number", range(10))
def test_a_move_in_a_restart_is_done_once_it_is_tried_again(
    desk: Desk, database: DatabaseServer, pool: Actors, number: int
) -> None:
    draw = random.Random(number)
    if number % 2:
        model, second = desk.promote_two()
        move = act_of(desk, "rollback", away=second.version)
    else:
        desk.promote(desk.cycle(0))
        run = desk.cycle(1)
        model = desk.register(run)
        move = act_of(desk, "promote", run, model)
    under_way = pool.begin(move)
    time.sleep(draw.uniform(0, MOVE_S))
    how = draw.choice((signal.SIGINT, signal.SIGQUIT))
    database.restart(how, pause_s=OUTAGE_S)
    if ended := under_way.result(timeout=120):
        assert getattr(errors, ended).is_retryable
        assert pool.begin(move).result(timeout=120) == ""
    state = sound_state(desk)
    assert state.served == model and len(state.history.moves) == 2 + number % 2
