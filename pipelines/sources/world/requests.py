"""A chunk of users' requests: when, with which hidden intent and dislike, showing which pins.

Not for what users do about them: `pipelines.sources.world.actions`.

Letters: U users of the chunk, N sessions, R requests, C candidates, S draws, K topics.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.world.people import Bools, Catalogue, Floats, Ints, Users, alive_pins

_SPARE_DRAWS = 8  # beyond C, so that C different pins are among them nearly always


class Slots(NamedTuple):
    """What the candidates of a request depend on."""

    user_R: Ints
    day_R: Ints
    is_exploration_R: Bools
    first_pin_R: Ints  # the pins that can be shown are those from here ...
    end_pin_R: Ints  # ... to before here

    def rows(self, row: Ints) -> "Slots":
        """Return what some of the requests' candidates depend on."""
        columns: Iterable[Any] = self
        return Slots(*(column[row] for column in columns))


@dataclass(frozen=True)
class Requests:
    """Requests, users one after another, each user's by time."""

    user_R: Ints  # position in the chunk, not user_id
    impressed_at_R: Ints
    intent_stay_R: Floats  # chance that the intent is still the previous request's; 0 at the first
    dislike_stay_R: Floats
    intent_R: Ints
    disliked_R: Ints
    is_exploration_R: Bools
    pin_RC: Ints
    num_alive_R: Ints  # pins that the candidates of an exploration request are drawn from


def draw_requests(
    rng: np.random.Generator, world: WorldParameters, catalogue: Catalogue, users: Users
) -> Requests:
    """Draw the requests of a chunk of users."""
    user_R, impressed_at_R, is_in_session_R = _draw_times(rng, world, users)
    intent_stay_R, dislike_stay_R = _stay(world, user_R, impressed_at_R, is_in_session_R)
    first_pin_R, end_pin_R = alive_pins(world, catalogue, impressed_at_R)
    slots = Slots(
        user_R=user_R,
        day_R=(impressed_at_R - world.start_ms) // DAY_MS,
        is_exploration_R=rng.random(len(user_R)) < world.exploration_share,
        first_pin_R=first_pin_R,
        end_pin_R=end_pin_R,
    )
    return Requests(
        user_R=user_R,
        impressed_at_R=impressed_at_R,
        intent_stay_R=intent_stay_R,
        dislike_stay_R=dislike_stay_R,
        intent_R=_draw_chain(rng, users.taste_UK, user_R, intent_stay_R),
        disliked_R=_draw_chain(rng, users.dislike_prior_UK, user_R, dislike_stay_R),
        is_exploration_R=slots.is_exploration_R,
        pin_RC=_draw_candidates(rng, world, catalogue, users.taste_UK, slots),
        num_alive_R=end_pin_R - first_pin_R,
    )


def _draw_times(
    rng: np.random.Generator, world: WorldParameters, users: Users
) -> tuple[Ints, Ints, Bools]:
    """Draw sessions, and in each of them requests: users one after another, each user's by time.

    Returns:
        For each request its user, its time, and whether it is not the first of its session.
    """
    # The last session ends before the last midnight, so that no partition lies past the last day.
    span_ms = max(1, world.end_ms - world.start_ms - world.longest_session_ms)
    num_N = rng.poisson(users.sessions_per_day_U * world.num_days)
    user_N = np.repeat(np.arange(len(num_N)), num_N)
    started_N = world.start_ms + rng.integers(0, span_ms, len(user_N))
    order = np.lexsort((started_N, user_N))
    user_N, started_N = user_N[order], started_N[order]
    # Sessions of a user never overlap: one that begins too soon after another is left out.
    is_close_N = np.diff(started_N, prepend=0) < 2 * world.longest_session_ms
    is_close_N &= np.diff(user_N, prepend=-1) == 0
    is_kept_N = ~is_close_N & (started_N >= users.arrival_ms_U[user_N])
    user_N, started_N = user_N[is_kept_N], started_N[is_kept_N]

    num_requests_N = rng.integers(world.min_requests, world.max_requests + 1, len(user_N))
    session_R = np.repeat(np.arange(len(user_N)), num_requests_N)
    first_R = np.repeat(np.cumsum(num_requests_N) - num_requests_N, num_requests_N)
    is_in_session_R = np.arange(len(session_R)) > first_R
    pause_R = rng.integers(world.min_pause_ms, world.max_pause_ms + 1, len(session_R))
    since_R = np.cumsum(np.where(is_in_session_R, pause_R, 0))
    impressed_at_R = started_N[session_R] + since_R - since_R[first_R]
    return user_N[session_R], impressed_at_R, is_in_session_R


def _stay(
    world: WorldParameters, user_R: Ints, impressed_at_R: Ints, is_in_session_R: Bools
) -> tuple[Floats, Floats]:
    """Return the chances that intent and dislike have stayed; 0 at a user's first request."""
    has_previous_R = np.diff(user_R, prepend=-1) == 0
    hours_R = np.where(has_previous_R, np.diff(impressed_at_R, prepend=0), 0) / HOUR_MS
    short_R = world.short_stay_share * np.exp(-hours_R / world.short_stay_hours)
    long_R = (1 - world.short_stay_share) * np.exp(-hours_R / world.long_stay_hours)
    between_R = world.stay_in_session * (short_R + long_R)
    intent_stay_R = np.where(is_in_session_R, world.stay_in_session, between_R)
    dislike_stay_R = np.exp(-hours_R / (24.0 * world.dislike_days))
    return intent_stay_R * has_previous_R, dislike_stay_R * has_previous_R


def _draw_chain(rng: np.random.Generator, prior_UK: Floats, user_R: Ints, stay_R: Floats) -> Ints:
    """Return a state per request: the previous one's, or with chance 1 - stay a new draw."""
    drawn_R = _draw_topic(rng, prior_UK, user_R)
    is_new_R = rng.random(len(user_R)) >= stay_R  # always at a user's first request
    return drawn_R[np.maximum.accumulate(np.where(is_new_R, np.arange(len(user_R)), 0))]


def _draw_topic(rng: np.random.Generator, prior_NK: Floats, row: Ints) -> Ints:
    """Draw a topic for each entry of `row` (any shape), from that row of prior_NK."""
    upper_NK = np.cumsum(prior_NK, axis=1)
    upper_NK /= upper_NK[:, -1:]
    # One search in all rows at once: row n's distribution is lifted to [n, n + 1).
    lifted = (upper_NK + np.arange(len(prior_NK))[:, None]).ravel()
    found = np.searchsorted(lifted, row + rng.random(row.shape), side="right")
    first = row * prior_NK.shape[1]
    return np.clip(found - first, 0, prior_NK.shape[1] - 1)


def _draw_candidates(
    rng: np.random.Generator,
    world: WorldParameters,
    catalogue: Catalogue,
    taste_UK: Floats,
    slots: Slots,
) -> Ints:
    """Return (R, C) different pins per request, in an order that says nothing about them.

    A request whose draws hold fewer than C different pins is drawn again. That favours no pin
    where the draws are uniform, so exploration stays exactly uniform.
    """
    pin_RC = np.empty((len(slots.user_R), world.num_candidates), dtype=np.int64)
    open_R = np.arange(len(slots.user_R))
    while len(open_R):
        drawn_RS = _draw_slots(rng, world, catalogue, taste_UK, slots.rows(open_R))
        repeat_RS = _repeats(drawn_RS)
        is_enough_R = (~repeat_RS).sum(axis=1) >= world.num_candidates
        first_RC = np.argsort(repeat_RS, axis=1, kind="stable")[:, : world.num_candidates]
        pin_RC[open_R] = np.take_along_axis(drawn_RS, first_RC, axis=1)
        open_R = open_R[~is_enough_R]
    return rng.permuted(pin_RC, axis=1)  # else likelier pins would stand first


def _draw_slots(
    rng: np.random.Generator,
    world: WorldParameters,
    catalogue: Catalogue,
    taste_UK: Floats,
    slots: Slots,
) -> Ints:
    """Return (R, S) pins: each from the user's tastes, from what is popular, or from all pins."""
    shape = (len(slots.user_R), world.num_candidates + _SPARE_DRAWS)
    source_RS = rng.random(shape)
    source_RS[slots.is_exploration_R] = 1.0
    popular_DK = np.exp(catalogue.popularity_KD.T)
    topic_RS = np.where(
        source_RS < world.taste_candidate_share,
        _draw_topic(rng, taste_UK, np.broadcast_to(slots.user_R[:, None], shape)),
        _draw_topic(rng, popular_DK, np.broadcast_to(slots.day_R[:, None], shape)),
    )
    # Within a topic pins stand by pin_id, so this key ascends over all of `pins_by_topic_P`.
    by_topic_P = catalogue.pins_by_topic_P
    key_P = catalogue.topic_P[by_topic_P] * world.num_pins + by_topic_P
    key_RS = topic_RS * world.num_pins
    first_RS = np.searchsorted(key_P, key_RS + slots.first_pin_R[:, None])
    size_RS = np.searchsorted(key_P, key_RS + slots.end_pin_R[:, None]) - first_RS
    within_RS = (rng.random(shape) * size_RS).astype(np.int64)
    is_uniform_RS = source_RS >= world.taste_candidate_share + world.popular_candidate_share
    # A topic of which no pin is alive is passed over for any pin.
    is_uniform_RS |= size_RS == 0
    place_RS = np.where(is_uniform_RS, 0, first_RS + within_RS)
    if world.fading is None:
        any_RS = rng.integers(0, world.num_pins, shape)
    else:
        any_RS = rng.integers(slots.first_pin_R[:, None], slots.end_pin_R[:, None], shape)
    return np.where(is_uniform_RS, any_RS, by_topic_P[place_RS])


def _repeats(pin_RS: Ints) -> Bools:
    """Return True where an earlier draw of the row gave the same pin."""
    order_RS = np.argsort(pin_RS, axis=1, kind="stable")
    sorted_RS = np.take_along_axis(pin_RS, order_RS, axis=1)
    same_RS = np.diff(sorted_RS, axis=1, prepend=-1) == 0
    repeat_RS = np.empty_like(same_RS)
    np.put_along_axis(repeat_RS, order_RS, same_RS, axis=1)
    return repeat_RS
