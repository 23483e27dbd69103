"""The hidden side of the world: topics, pins and users, drawn once; nothing here is an event.

Without `WorldParameters.fading` all pins are there at all times and none fades. With it, births are
spread evenly over the days of the log and over the `shown_days` before them, in the order of the
pin_ids, so that about equally many pins are shown at any time. Not for what changes from request to
request: `pipelines.sources.world.requests`.

Letters: U users of a chunk, P pins, K topics, D days, E embedding dimensions, R requests, C
candidates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import DAY_MS
from pipelines.sources.world.parameters import WorldParameters

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Catalogue:
    """Topics and pins."""

    centre_KE: Floats  # unit vectors
    popularity_KD: Floats  # log scale, mean about 0
    topic_P: Ints
    appeal_P: Floats
    embedding_PE: Floats  # unit vectors
    pins_by_topic_P: Ints  # pin_ids, topic after topic
    born_ms_P: Ints  # ascending; where no pin fades, all are born when the log begins


@dataclass(frozen=True)
class Users:
    """A chunk of users."""

    user_id_U: Ints
    taste_UK: Floats  # sums to 1; 0 for topics that the user does not like
    warmth_U: Floats
    sessions_per_day_U: Floats
    arrival_ms_U: Ints  # no session before

    @property
    def dislike_prior_UK(self) -> Floats:
        """How likely a topic is to be disliked, other things unknown: even over the rest."""
        is_rest_UK = self.taste_UK == 0
        return is_rest_UK / is_rest_UK.sum(axis=1, keepdims=True)


def draw_catalogue(rng: np.random.Generator, world: WorldParameters) -> Catalogue:
    """Draw topics and pins; topics have equally many pins, to within one."""
    num_topics, num_pins = world.num_topics, world.num_pins
    # Random directions overlap by 0.2 or so: topics are apart, but not trivially.
    centre_KE = unit_rows(rng.normal(size=(num_topics, EMBEDDING_DIM)))
    topic_P = rng.permutation(np.arange(num_pins, dtype=np.int64) % num_topics)
    noise_PE = unit_rows(rng.normal(size=(num_pins, EMBEDDING_DIM)))
    return Catalogue(
        centre_KE=centre_KE,
        popularity_KD=_popularity(rng, world),
        topic_P=topic_P,
        appeal_P=world.appeal_deviation * rng.normal(size=num_pins),
        embedding_PE=unit_rows(centre_KE[topic_P] + world.pin_noise * noise_PE),
        pins_by_topic_P=np.argsort(topic_P, kind="stable"),
        born_ms_P=_births(rng, world),
    )


def draw_users(rng: np.random.Generator, world: WorldParameters, user_ids: range) -> Users:
    """Draw the users of these ids, which follow one another."""
    count, num_topics = len(user_ids), world.num_topics
    num_tastes_U = rng.integers(world.min_tastes, world.max_tastes + 1, count)
    rank_UK = np.argsort(np.argsort(rng.random((count, num_topics)), axis=1), axis=1)
    weight_UK = rng.gamma(world.taste_concentration, size=(count, num_topics))
    weight_UK *= rank_UK < num_tastes_U[:, None]  # normalised gammas are a Dirichlet
    is_late_U = rng.random(count) < world.late_share
    arrival_U = rng.integers(0, world.num_days * DAY_MS, count)
    rate = world.sessions_per_week / 7
    return Users(
        user_id_U=np.array(user_ids, dtype=np.int64),
        taste_UK=weight_UK / weight_UK.sum(axis=1, keepdims=True),
        warmth_U=world.warmth_deviation * rng.normal(size=count),
        sessions_per_day_U=rng.gamma(4.0, rate / 4.0, size=count),
        arrival_ms_U=world.start_ms + np.where(is_late_U, arrival_U, 0),
    )


def draw_user_vectors(
    rng: np.random.Generator, world: WorldParameters, catalogue: Catalogue, taste_NK: Floats
) -> Floats:
    """Return (N, E) unit vectors: what a daily batch job might know of a taste, with noise."""
    mean_NE = unit_rows(taste_NK @ catalogue.centre_KE)
    return unit_rows(mean_NE + world.user_noise * unit_rows(rng.normal(size=mean_NE.shape)))


def alive_pins(world: WorldParameters, catalogue: Catalogue, time_R: Ints) -> tuple[Ints, Ints]:
    """Return the first pin_id that can be shown at each time, and the one after the last."""
    if world.fading is None:
        return np.zeros_like(time_R), np.full_like(time_R, world.num_pins)
    oldest_R = time_R - int(world.fading.shown_days * DAY_MS)
    first_R = np.searchsorted(catalogue.born_ms_P, oldest_R, side="left")
    return first_R, np.searchsorted(catalogue.born_ms_P, time_R, side="right")


def appeal_at(world: WorldParameters, catalogue: Catalogue, pin_RC: Ints, time_R: Ints) -> Floats:
    """Return (R, C) what pins add to the log-odds of repins and clicks at their requests' times."""
    appeal_RC = catalogue.appeal_P[pin_RC]
    if world.fading is None:
        return appeal_RC
    age_days_RC = (time_R[:, None] - catalogue.born_ms_P[pin_RC]) / DAY_MS
    left_RC = np.exp2(-age_days_RC / world.fading.lifetime_days)
    return np.asarray((world.fading.newborn_appeal + appeal_RC) * left_RC)


def unit_rows(rows: Floats) -> Floats:
    """Return the rows scaled to length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _popularity(rng: np.random.Generator, world: WorldParameters) -> Floats:
    """Return a smooth curve per topic: two waves of three to twelve weeks."""
    period_WK1 = rng.uniform(21.0, 84.0, size=(2, world.num_topics, 1))
    phase_WK1 = rng.uniform(0.0, 2 * np.pi, size=(2, world.num_topics, 1))
    days_D = np.arange(world.num_days)
    return 0.7 * np.sin(2 * np.pi * days_D / period_WK1 + phase_WK1).sum(axis=0)


def _births(rng: np.random.Generator, world: WorldParameters) -> Ints:
    """Return when each pin is born: at a random time within its own of equal parts of all time."""
    if world.fading is None:
        return np.full(world.num_pins, world.start_ms)
    first_ms = world.start_ms - world.fading.shown_days * DAY_MS
    part_P = np.arange(world.num_pins) + rng.random(world.num_pins)
    return (first_ms + part_P * (world.end_ms - first_ms) / world.num_pins).astype(np.int64)
