"""What is drawn of the world, and the best predictions of it that there are.

Drawn are topics and pins, users, their requests, and what they do there.

Topics, pins and users are the hidden side: nothing of them is an event. A request shows candidates,
and its intent and dislike are hidden too. A candidate gets at most one outcome, and an outcome is
one action or several. With e the chance that its position is looked at, and the logistic functions
q that `pipelines.sources.world` states,

    P(repin)   = e q_repin
    P(hide)    = e (1 - q_repin) q_hide
    P(click)   = e (1 - q_repin) (1 - q_hide) q_click
    P(closeup) = e (1 - q_repin) (1 - q_hide) (1 - q_click) q_closeup

A closeup alone is an outcome of worlds with `like` production only. There a repin comes alone or
after a closeup, and a click with or without a long click.

The best predictions come from an exact filter for the hidden state: intent, dislike
(`HiddenFilter`). The intent is always one of the liked topics and the dislike always one of the
others, and the two change independently. A candidate's outcome depends on the intent if its topic
is liked and on the dislike if it is not, never on both. So the likelihood of a request's outcomes
is f(intent) g(dislike), and a posterior that starts as a product stays one: two filters over K
topics each are exact, where the pair would need one over K * K.

    predicted_n = stay_n posterior_{n-1} + (1 - stay_n) prior
    posterior_n ~ predicted_n exp(evidence_n),  evidence_n(k) = log P(o | k) - log P(o | none)

Not for how the rows of the log look: `pipelines.sources.world.rows`.

Letters: U users of a chunk, P pins, K topics, D days, E embedding dimensions, N sessions, R
requests, C candidates, S draws, A outcomes.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.event_index import place_in_run
from pipelines.sources.world.parameters import Like, WorldParameters

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NUM_TOPICS = 12
NUM_CANDIDATES = 12  # of a request
MIN_TASTES, MAX_TASTES, TASTE_CONCENTRATION = 3, 5, 4.0  # topics that a user likes; Dirichlet's
PIN_NOISE, USER_NOISE = 0.8, 0.5  # lengths of noise beside a unit vector
APPEAL_DEVIATION, WARMTH_DEVIATION = 0.3, 0.4  # of the pins' and of the users' log-odds
NEWBORN_APPEAL = 3.0  # log-odds of each pin at its birth beside its own appeal, where pins fade
LATE_SHARE = 0.3  # of the users, who arrive on a later day
SESSIONS_PER_WEEK, MIN_REQUESTS, MAX_REQUESTS = 3.0, 2, 6  # requests of a session
MIN_PAUSE_MS, MAX_PAUSE_MS = 120_000, 600_000  # within a session
MAX_ACTING_MS = 60_000  # the latest action after an impression
STAY_IN_SESSION = 0.95  # the chance that an intent stays for one more request
SHORT_STAY_HOURS, LONG_STAY_HOURS, DISLIKE_HOURS = 12.0, 168.0, 504.0  # time scales
TASTE_SHARE, POPULAR_SHARE = 0.4, 0.3  # of the candidates: from a user's taste, from popular topics
EXAMINATION_C = np.power(0.95, np.arange(NUM_CANDIDATES))  # chance that a position is looked at
# Log-odds, and what is added to them for the intent's topic, times the taste for a topic, for the
# disliked topic, and times a topic's popularity.
REPIN_BASE, REPIN_INTENT, REPIN_TASTE, REPIN_DISLIKE = -4.2, 3.4, 2.0, -2.0
CLICK_BASE, CLICK_INTENT, CLICK_TASTE = -3.2, 2.0, 1.0
HIDE_BASE, HIDE_DISLIKE = -5.5, 4.0
CLOSEUP_BASE, CLOSEUP_INTENT = -2.4, 1.5  # alone
LONG_CLICK_BASE, LONG_CLICK_INTENT = -0.8, 1.2  # given a click
CLOSEUP_REPIN_SHARE = 0.5  # of the repins, which follow a closeup of the pin

_OUTCOMES = (("repin",), ("click",), ("hide",))
OUTCOMES: dict[Like, tuple[tuple[str, ...], ...]] = {
    "world": _OUTCOMES,
    "production": (*_OUTCOMES, ("closeup",), ("click", "long_click"), ("closeup", "repin")),
}
"""The action types of each outcome, in the order in which the actions happen. Outcome n is entry
n - 1; outcome 0 is a candidate without an action."""
_SPARE_DRAWS = 8  # beyond C, so that C different pins are among them nearly always


@dataclass(frozen=True)
class Catalogue:
    """Topics and pins of a world."""

    world: WorldParameters
    centre_KE: Floats  # unit vectors
    popularity_KD: Floats  # log scale, mean about 0; two waves of three to twelve weeks
    topic_P: Ints
    appeal_P: Floats
    embedding_PE: Floats  # unit vectors
    pins_by_topic_P: Ints  # pin_ids, topic after topic
    born_ms_P: Ints  # ascending; where no pin fades, all are born when the log begins

    def appeal_at(self, pin_RC: Ints, time_R: Ints) -> Floats:
        """Return (R, C) what pins add to the log-odds of repins and clicks at these times."""
        appeal_RC = self.appeal_P[pin_RC]
        if self.world.pin_lifetime_days is None:
            return appeal_RC
        age_days_RC = (time_R[:, None] - self.born_ms_P[pin_RC]) / DAY_MS
        left_RC = np.exp2(-age_days_RC / self.world.pin_lifetime_days)
        return np.asarray((NEWBORN_APPEAL + appeal_RC) * left_RC)


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


@dataclass(frozen=True)
class Requests:
    """Requests, users one after another, each user's by time."""

    users: Users
    user_R: Ints  # position in the chunk, not user_id
    impressed_at_R: Ints
    day_R: Ints  # of the world, from 0
    intent_stay_R: Floats  # chance that the intent is still the previous request's; 0 at the first
    dislike_stay_R: Floats
    is_exploration_R: Bools
    intent_R: Ints
    disliked_R: Ints
    first_pin_R: Ints  # the pins that can be shown are those from here ...
    end_pin_R: Ints  # ... to before here
    pin_RC: Ints

    def take(self, rows: Ints) -> "Requests":
        """Return some of the requests, in this order."""
        of_requests = {k: v[rows] for k, v in vars(self).items() if k != "users"}
        return replace(self, **of_requests)


@dataclass(frozen=True)
class Shown:
    """Requests, and what is known of each candidate apart from the hidden state."""

    requests: Requests
    like: Like
    topic_RC: Ints
    repin_logit_RC: Floats  # where the topic is neither intended nor disliked
    click_logit_RC: Floats


def draw_catalogue(rng: np.random.Generator, world: WorldParameters) -> Catalogue:
    """Draw topics and pins; topics have equally many pins, to within one.

    Where pins fade, births are spread evenly over the days of the log and the `shown_days` before
    them, in the order of the pin_ids: each at a random time within its own of equal parts of all
    time. So about equally many pins are shown at any time.
    """
    num_topics, num_pins = NUM_TOPICS, world.num_pins
    # Random directions overlap by 0.2 or so: topics are apart, but not trivially.
    centre_KE = unit_rows(rng.normal(size=(num_topics, EMBEDDING_DIM)))
    topic_P = rng.permutation(np.arange(num_pins, dtype=np.int64) % num_topics)
    noise_PE = unit_rows(rng.normal(size=(num_pins, EMBEDDING_DIM)))
    period_WK1 = rng.uniform(21.0, 84.0, size=(2, num_topics, 1))
    phase_WK1 = rng.uniform(0.0, 2 * np.pi, size=(2, num_topics, 1))
    days_D = np.arange(world.num_days)
    appeal_P = APPEAL_DEVIATION * rng.normal(size=num_pins)
    born_ms_P = np.full(num_pins, world.start_ms)
    if world.pin_lifetime_days is not None:
        first_ms = world.start_ms - world.shown_days * DAY_MS
        part_P = np.arange(num_pins) + rng.random(num_pins)
        born_ms_P = (first_ms + part_P * (world.end_ms - first_ms) / num_pins).astype(np.int64)
    return Catalogue(
        world=world,
        centre_KE=centre_KE,
        popularity_KD=0.7 * np.sin(2 * np.pi * days_D / period_WK1 + phase_WK1).sum(axis=0),
        topic_P=topic_P,
        appeal_P=appeal_P,
        embedding_PE=unit_rows(centre_KE[topic_P] + PIN_NOISE * noise_PE),
        pins_by_topic_P=np.argsort(topic_P, kind="stable"),
        born_ms_P=born_ms_P,
    )


def draw_users(rng: np.random.Generator, world: WorldParameters, user_ids: range) -> Users:
    """Draw the users of these ids, which follow one another."""
    count, num_topics = len(user_ids), NUM_TOPICS
    num_tastes_U = rng.integers(MIN_TASTES, MAX_TASTES + 1, count)
    rank_UK = np.argsort(np.argsort(rng.random((count, num_topics)), axis=1), axis=1)
    weight_UK = rng.gamma(TASTE_CONCENTRATION, size=(count, num_topics))
    weight_UK *= rank_UK < num_tastes_U[:, None]  # normalised gammas are a Dirichlet
    is_late_U = rng.random(count) < LATE_SHARE
    arrival_U = rng.integers(0, world.num_days * DAY_MS, count)
    return Users(
        user_id_U=np.array(user_ids, dtype=np.int64),
        taste_UK=weight_UK / weight_UK.sum(axis=1, keepdims=True),
        warmth_U=WARMTH_DEVIATION * rng.normal(size=count),
        sessions_per_day_U=rng.gamma(4.0, SESSIONS_PER_WEEK / 7 / 4.0, size=count),
        arrival_ms_U=world.start_ms + np.where(is_late_U, arrival_U, 0),
    )


def draw_requests(rng: np.random.Generator, catalogue: Catalogue, users: Users) -> Requests:
    """Draw the sessions of a chunk of users, and in each of them requests."""
    world = catalogue.world
    # The last session ends before the last midnight, so that no partition lies past the last day.
    longest_ms = (MAX_REQUESTS - 1) * MAX_PAUSE_MS + MAX_ACTING_MS
    span_ms = max(1, world.end_ms - world.start_ms - longest_ms)
    num_N = rng.poisson(users.sessions_per_day_U * world.num_days)
    user_N = np.repeat(np.arange(len(num_N)), num_N)
    started_N = world.start_ms + rng.integers(0, span_ms, len(user_N))
    order = np.lexsort((started_N, user_N))
    user_N, started_N = user_N[order], started_N[order]
    # Sessions of a user never overlap: one that begins too soon after another is left out.
    is_close_N = np.diff(started_N, prepend=0) < 2 * longest_ms
    is_close_N &= np.diff(user_N, prepend=-1) == 0
    is_kept_N = ~is_close_N & (started_N >= users.arrival_ms_U[user_N])
    user_N, started_N = user_N[is_kept_N], started_N[is_kept_N]

    num_requests_N = rng.integers(MIN_REQUESTS, MAX_REQUESTS + 1, len(user_N))
    session_R = np.repeat(np.arange(len(user_N)), num_requests_N)
    place_R = place_in_run(session_R)
    pause_R = rng.integers(MIN_PAUSE_MS, MAX_PAUSE_MS + 1, len(session_R))
    since_R = np.cumsum(np.where(place_R > 0, pause_R, 0))
    first_R = np.arange(len(session_R)) - place_R
    time_R, user_R = started_N[session_R] + since_R - since_R[first_R], user_N[session_R]

    has_previous_R = np.diff(user_R, prepend=-1) == 0
    hours_R = np.where(has_previous_R, np.diff(time_R, prepend=0), 0) / HOUR_MS
    short_R, long_R = (
        0.5 * np.exp(-hours_R / scale) for scale in (SHORT_STAY_HOURS, LONG_STAY_HOURS)
    )
    between_R = STAY_IN_SESSION * (short_R + long_R)
    intent_stay_R = has_previous_R * np.where(place_R > 0, STAY_IN_SESSION, between_R)
    dislike_stay_R = has_previous_R * np.exp(-hours_R / DISLIKE_HOURS)

    first_pin_R, end_pin_R = np.zeros_like(time_R), np.full_like(time_R, world.num_pins)
    if world.pin_lifetime_days is not None:
        oldest_R = time_R - int(world.shown_days * DAY_MS)
        first_pin_R = np.searchsorted(catalogue.born_ms_P, oldest_R, side="left")
        end_pin_R = np.searchsorted(catalogue.born_ms_P, time_R, side="right")
    requests = Requests(
        users=users,
        user_R=user_R,
        impressed_at_R=time_R,
        day_R=(time_R - world.start_ms) // DAY_MS,
        intent_stay_R=intent_stay_R,
        dislike_stay_R=dislike_stay_R,
        is_exploration_R=rng.random(len(user_R)) < world.exploration_share,
        intent_R=_draw_chain(rng, users.taste_UK, user_R, intent_stay_R),
        disliked_R=_draw_chain(rng, users.dislike_prior_UK, user_R, dislike_stay_R),
        first_pin_R=first_pin_R,
        end_pin_R=end_pin_R,
        pin_RC=np.empty((len(user_R), NUM_CANDIDATES), dtype=np.int64),
    )
    _draw_candidates(rng, catalogue, requests)
    return requests


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
    return np.clip(found - row * prior_NK.shape[1], 0, prior_NK.shape[1] - 1)


def _draw_candidates(rng: np.random.Generator, catalogue: Catalogue, requests: Requests) -> None:
    """Set different pins per request, in an order that says nothing about them.

    Each draw is from the user's tastes, from what is popular, or from all pins. A request whose
    draws hold fewer than C different pins is drawn again. That favours no pin where the draws are
    uniform, so exploration stays exactly uniform.
    """
    by_topic_P, num_pins = catalogue.pins_by_topic_P, catalogue.world.num_pins
    # Within a topic pins stand by pin_id, so this key ascends over all of `pins_by_topic_P`.
    key_P = catalogue.topic_P[by_topic_P] * num_pins + by_topic_P
    priors = (requests.users.taste_UK, np.exp(catalogue.popularity_KD.T))
    open_R = np.arange(len(requests.user_R))
    while len(open_R):
        shape = (len(open_R), NUM_CANDIDATES + _SPARE_DRAWS)
        first_R1, end_R1 = requests.first_pin_R[open_R, None], requests.end_pin_R[open_R, None]
        source_RS = rng.random(shape)
        source_RS[requests.is_exploration_R[open_R]] = 1.0
        liked_RS, popular_RS = (
            _draw_topic(rng, prior, np.broadcast_to(row_R[open_R, None], shape))
            for prior, row_R in zip(priors, (requests.user_R, requests.day_R), strict=True)
        )
        topic_RS = np.where(source_RS < TASTE_SHARE, liked_RS, popular_RS)
        first_RS = np.searchsorted(key_P, topic_RS * num_pins + first_R1)
        size_RS = np.searchsorted(key_P, topic_RS * num_pins + end_R1) - first_RS
        within_RS = (rng.random(shape) * size_RS).astype(np.int64)
        is_any_RS = source_RS >= TASTE_SHARE + POPULAR_SHARE
        is_any_RS |= size_RS == 0  # a topic of which no pin is alive is passed over for any pin
        if catalogue.world.pin_lifetime_days is None:
            any_RS = rng.integers(0, num_pins, shape)
        else:
            any_RS = rng.integers(first_R1, end_R1, shape)
        of_topic_RS = by_topic_P[np.where(is_any_RS, 0, first_RS + within_RS)]
        drawn_RS = np.where(is_any_RS, any_RS, of_topic_RS)

        # Draws that an earlier draw of the row equals go last.
        order_RS = np.argsort(drawn_RS, axis=1, kind="stable")
        same_RS = np.diff(np.take_along_axis(drawn_RS, order_RS, axis=1), axis=1, prepend=-1) == 0
        repeat_RS = np.empty_like(same_RS)
        np.put_along_axis(repeat_RS, order_RS, same_RS, axis=1)
        first_RC = np.argsort(repeat_RS, axis=1, kind="stable")[:, :NUM_CANDIDATES]
        requests.pin_RC[open_R] = np.take_along_axis(drawn_RS, first_RC, axis=1)
        open_R = open_R[(~repeat_RS).sum(axis=1) < NUM_CANDIDATES]
    # Else likelier pins would stand first.
    requests.pin_RC[:] = rng.permuted(requests.pin_RC, axis=1)


def describe(catalogue: Catalogue, requests: Requests) -> Shown:
    """Return the candidates' topics and log-odds."""
    users, user_R1 = requests.users, requests.user_R[:, None]
    topic_RC = catalogue.topic_P[requests.pin_RC]
    taste_RC = users.taste_UK[user_R1, topic_RC]
    trend_RC = catalogue.popularity_KD[topic_RC, requests.day_R[:, None]]
    own_RC = catalogue.appeal_at(requests.pin_RC, requests.impressed_at_R)
    own_RC += catalogue.world.trend * trend_RC
    return Shown(
        requests=requests,
        like=catalogue.world.like,
        topic_RC=topic_RC,
        repin_logit_RC=REPIN_BASE + REPIN_TASTE * taste_RC + own_RC + users.warmth_U[user_R1],
        click_logit_RC=CLICK_BASE + CLICK_TASTE * taste_RC + own_RC,
    )


def chances(shown: Shown, is_intent_RC: Bools, is_disliked_RC: Bools) -> Floats:
    """Return (A, R, C) the chance of each outcome once a candidate is looked at."""
    repin_RC = _logistic(
        shown.repin_logit_RC + REPIN_INTENT * is_intent_RC + REPIN_DISLIKE * is_disliked_RC
    )
    click_RC = _logistic(shown.click_logit_RC + CLICK_INTENT * is_intent_RC)
    hide_RC = _logistic(HIDE_BASE + HIDE_DISLIKE * is_disliked_RC)
    rest_RC = 1.0 - repin_RC
    clicked_RC, hidden_RC = rest_RC * (1.0 - hide_RC) * click_RC, rest_RC * hide_RC
    if shown.like == "world":
        return np.stack([repin_RC, clicked_RC, hidden_RC])
    logit_RC = CLOSEUP_BASE - CLICK_BASE + shown.click_logit_RC
    closeup_RC = _logistic(logit_RC + CLOSEUP_INTENT * is_intent_RC)
    passed_RC = rest_RC * (1.0 - hide_RC) * (1.0 - click_RC)
    long_RC = _logistic(LONG_CLICK_BASE + LONG_CLICK_INTENT * is_intent_RC)
    share = CLOSEUP_REPIN_SHARE
    rare = (passed_RC * closeup_RC, long_RC * clicked_RC, share * repin_RC)
    return np.stack([(1.0 - share) * repin_RC, (1.0 - long_RC) * clicked_RC, hidden_RC, *rare])


def true_chances(shown: Shown) -> Floats:
    """Return (A, R, C) the chances by the hidden intent and dislike as they truly are."""
    hidden = (shown.requests.intent_R, shown.requests.disliked_R)
    return chances(shown, *(shown.topic_RC == topic_R[:, None] for topic_R in hidden))


def repin_chance(shown: Shown, chance_ARC: Floats) -> Floats:
    """Return (R, C) the chance of a repin, of `chances` of the outcomes."""
    is_repin_A = np.array(["repin" in types for types in OUTCOMES[shown.like]])
    return np.asarray(chance_ARC[is_repin_A].sum(axis=0))


def draw_outcomes(drawn_RC: Floats, shown: Shown) -> Ints:
    """Return (R, C) outcomes of numbers that are drawn evenly from [0, 1)."""
    upper_ARC = np.cumsum(true_chances(shown) * EXAMINATION_C, axis=0)
    return np.where(drawn_RC < upper_ARC[-1], (drawn_RC >= upper_ARC).sum(axis=0) + 1, 0)


class HiddenFilter:
    """The exact filter, for requests that come one after another, at most one of a user a time."""

    def __init__(self, users: Users) -> None:
        self._priors = (users.taste_UK, users.dislike_prior_UK)
        self._posteriors = [prior_UK.copy() for prior_UK in self._priors]

    def expected(self, shown: Shown) -> Floats:
        """Return (R, C) the chance of a repin once a candidate is looked at, before it is shown."""
        return expected_chance(shown, self._predicted(shown.requests))

    def learn(self, shown: Shown, outcome_RC: Ints) -> None:
        """Take in what users did, candidates standing in the order in which they were shown."""
        user_R = shown.requests.user_R
        chains = zip(self._predicted(shown.requests), evidence_of(shown, outcome_RC), strict=True)
        for posterior_UK, (predicted_RK, evidence_RK) in zip(self._posteriors, chains, strict=True):
            posterior_UK[user_R] = updated(predicted_RK, evidence_RK)

    def _predicted(self, requests: Requests) -> list[Floats]:
        stays, user_R = (requests.intent_stay_R, requests.dislike_stay_R), requests.user_R
        return [
            carried(stay_R[:, None], posterior_UK[user_R], prior_UK[user_R])
            for stay_R, posterior_UK, prior_UK in zip(
                stays, self._posteriors, self._priors, strict=True
            )
        ]


def _by_state(shown: Shown) -> list[Floats]:
    """Return (A, R, C) the chances of a topic that is neither intended nor disliked, and either."""
    no_RC = np.zeros(shown.topic_RC.shape, dtype=bool)
    return [chances(shown, *state) for state in ((no_RC, no_RC), (~no_RC, no_RC), (no_RC, ~no_RC))]


def expected_chance(shown: Shown, known: list[Floats]) -> Floats:
    """Return (R, C) the chance of a repin by two distributions (R, K), of intent and dislike.

    No topic is both intended and disliked.
    """
    neither_RC, *either = (repin_chance(shown, each) for each in _by_state(shown))
    expected_RC = neither_RC
    for chance_RC, known_RK in zip(either, known, strict=True):
        likely_RC = np.take_along_axis(known_RK, shown.topic_RC, axis=1)
        expected_RC = expected_RC + likely_RC * (chance_RC - neither_RC)
    return expected_RC


def evidence_of(shown: Shown, outcome_RC: Ints) -> list[Floats]:
    """Return (R, K) what outcomes say of the intent and of the dislike: log-likelihoods."""
    usual_RC, *logs = (log_likelihood(each, outcome_RC) for each in _by_state(shown))
    shape = (len(shown.topic_RC), shown.requests.users.taste_UK.shape[1])
    key = (shown.topic_RC + shape[1] * np.arange(shape[0])[:, None]).ravel()
    sums = (
        np.bincount(key, weights=(log_RC - usual_RC).ravel(), minlength=shape[0] * shape[1])
        for log_RC in logs
    )
    return [np.asarray(each, dtype=np.float64).reshape(shape) for each in sums]


def carried(stay_R1: Floats, posterior_RK: Floats, prior_RK: Floats) -> Floats:
    """Return what is known of a chain's state before the next request."""
    return stay_R1 * posterior_RK + (1.0 - stay_R1) * prior_RK


def updated(predicted_RK: Floats, evidence_RK: Floats) -> Floats:
    """Return what is known of a chain's state after a request's outcomes."""
    joint_RK = predicted_RK * np.exp(evidence_RK - evidence_RK.max(axis=1, keepdims=True))
    return joint_RK / joint_RK.sum(axis=1, keepdims=True)


def log_likelihood(chance_ARC: Floats, outcome_RC: Ints) -> Floats:
    """Return (R, C) the logarithm of the outcomes' probability under these chances."""
    seen_ARC = chance_ARC * EXAMINATION_C
    none_1RC = 1.0 - seen_ARC.sum(axis=0, keepdims=True)
    by_outcome = np.concatenate([none_1RC, seen_ARC])
    return np.log(np.take_along_axis(by_outcome, outcome_RC[None], axis=0)[0])


def unit_rows(rows: Floats) -> Floats:
    """Return the rows scaled to length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _logistic(logit: npt.ArrayLike) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=np.float64))))
