"""What users do about the pins they are shown: chances by the world's formulas, and draws.

A candidate gets at most one outcome, and an outcome is one action or several. With e the chance
that its position is looked at, and the logistic functions q that `pipelines.sources.world.adapter`
states,

    P(repin)   = e q_repin
    P(hide)    = e (1 - q_repin) q_hide
    P(click)   = e (1 - q_repin) (1 - q_hide) q_click
    P(closeup) = e (1 - q_repin) (1 - q_hide) (1 - q_click) q_closeup

A closeup without another action is an outcome of worlds with `WorldParameters.production` only.
There a repin is one of two outcomes, alone or after a closeup, and a click is one of two, with or
without a long click. Not for inferring the hidden state from the outcomes:
`pipelines.sources.world.filter`. Tested in tests/pipelines/sources/world/test_filter.py and
test_like_production.py.

Letters: R requests, C candidates, A outcomes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.contracts.time import DAY_MS
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.world.people import Bools, Catalogue, Floats, Ints, Users, appeal_at
from pipelines.sources.world.requests import Requests

NO_ACTION = 0
"""Outcome of a candidate without an action; entry n of `outcomes` is outcome n + 1."""

_OUTCOMES = (("repin",), ("click",), ("hide",))
_PRODUCTION_OUTCOMES = (
    *_OUTCOMES,
    ("closeup",),
    ("click", "long_click"),
    ("closeup", "repin"),
)

MIN_ACTING_MS = 2_000
"""How long after an impression a user acts at least."""


@dataclass(frozen=True)
class Shown:
    """What is known of each candidate apart from the hidden state."""

    topic_RC: Ints
    repin_logit_RC: Floats  # where the topic is neither intended nor disliked
    click_logit_RC: Floats
    examination_C: Floats  # by position


def outcomes(world: WorldParameters) -> tuple[tuple[str, ...], ...]:
    """Return the action types of each outcome, in the order in which the actions happen."""
    return _OUTCOMES if world.production is None else _PRODUCTION_OUTCOMES


def is_repin_A(world: WorldParameters) -> Bools:
    """Return which outcomes have a repin."""
    return np.array(["repin" in types for types in outcomes(world)])


def repin_chance(world: WorldParameters, chance_ARC: Floats) -> Floats:
    """Return (R, C) the chance of a repin, of `chances` of the outcomes."""
    return np.asarray(chance_ARC[is_repin_A(world)].sum(axis=0))


def describe(
    world: WorldParameters, catalogue: Catalogue, users: Users, requests: Requests
) -> Shown:
    """Return the candidates' topics and log-odds."""
    topic_RC = catalogue.topic_P[requests.pin_RC]
    taste_RC = users.taste_UK[requests.user_R[:, None], topic_RC]
    day_R = (requests.impressed_at_R - world.start_ms) // DAY_MS
    trend_RC = catalogue.popularity_KD[topic_RC, day_R[:, None]]
    appeal_RC = appeal_at(world, catalogue, requests.pin_RC, requests.impressed_at_R)
    own_RC = appeal_RC + world.repin_trend * trend_RC
    warmth_R1 = users.warmth_U[requests.user_R][:, None]
    return Shown(
        topic_RC=topic_RC,
        repin_logit_RC=world.repin_base + world.repin_taste * taste_RC + own_RC + warmth_R1,
        click_logit_RC=world.click_base + world.click_taste * taste_RC + own_RC,
        examination_C=np.power(
            world.examination_decay, np.arange(world.num_candidates, dtype=np.float64)
        ),
    )


def chances(
    world: WorldParameters, shown: Shown, is_intent_RC: Bools, is_disliked_RC: Bools
) -> Floats:
    """Return (A, R, C) the chance of each outcome once a candidate is looked at."""
    repin_RC = _logistic(
        shown.repin_logit_RC
        + world.repin_intent * is_intent_RC
        + world.repin_dislike * is_disliked_RC
    )
    click_RC = _logistic(shown.click_logit_RC + world.click_intent * is_intent_RC)
    hide_RC = _logistic(world.hide_base + world.hide_dislike * is_disliked_RC)
    rest_RC = 1.0 - repin_RC
    clicked_RC, hidden_RC = rest_RC * (1.0 - hide_RC) * click_RC, rest_RC * hide_RC
    if world.production is None:
        return np.stack([repin_RC, clicked_RC, hidden_RC])
    more = world.production
    logit_RC = more.closeup_base - world.click_base + shown.click_logit_RC
    closeup_RC = _logistic(logit_RC + more.closeup_intent * is_intent_RC)
    passed_RC = rest_RC * (1.0 - hide_RC) * (1.0 - click_RC)
    long_RC = _logistic(more.long_click_base + more.long_click_intent * is_intent_RC)
    share = more.closeup_repin_share
    return np.stack(
        [
            (1.0 - share) * repin_RC,
            (1.0 - long_RC) * clicked_RC,
            hidden_RC,
            passed_RC * closeup_RC,
            long_RC * clicked_RC,
            share * repin_RC,
        ]
    )


def true_chances(world: WorldParameters, shown: Shown, requests: Requests) -> Floats:
    """Return (A, R, C) the chances by the hidden intent and dislike as they truly are."""
    is_intent_RC = shown.topic_RC == requests.intent_R[:, None]
    return chances(world, shown, is_intent_RC, shown.topic_RC == requests.disliked_R[:, None])


def draw_outcomes(rng: np.random.Generator, shown: Shown, chance_ARC: Floats) -> Ints:
    """Return (R, C) outcomes."""
    upper_ARC = np.cumsum(chance_ARC * shown.examination_C, axis=0)
    drawn_RC = rng.random(shown.topic_RC.shape)
    is_any_RC = drawn_RC < upper_ARC[-1]
    return np.where(is_any_RC, (drawn_RC >= upper_ARC).sum(axis=0) + 1, NO_ACTION)


def log_likelihood(shown: Shown, chance_ARC: Floats, outcome_RC: Ints) -> Floats:
    """Return (R, C) the logarithm of the outcomes' probability under these chances."""
    seen_ARC = chance_ARC * shown.examination_C
    none_1RC = 1.0 - seen_ARC.sum(axis=0, keepdims=True)
    by_outcome = np.concatenate([none_1RC, seen_ARC])
    return np.log(np.take_along_axis(by_outcome, outcome_RC[None], axis=0)[0])


def draw_delays_ms(rng: np.random.Generator, world: WorldParameters, count: int) -> Ints:
    """Return how long rows take to reach the log: up to 2 minutes, a few up to two days."""
    is_slow = rng.random(count) < world.slow_share
    usual = rng.integers(0, world.max_delay_ms, count)
    return np.where(is_slow, rng.integers(0, world.max_slow_delay_ms, count), usual)


def _logistic(logit: npt.ArrayLike) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=np.float64))))
