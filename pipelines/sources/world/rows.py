"""The rows of a world's log: what was drawn of requests, as the tables of an event log.

Not for what is drawn (`pipelines.sources.world.draws`).

Letters: U users, W weeks, R requests, C candidates, N rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.config import SnapshotConfig
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import ActionTimes, has_recent_action, place_in_run
from pipelines.sources.world import draws
from pipelines.sources.world.draws import Catalogue, Ints, Requests
from pipelines.sources.world.parameters import WorldParameters

FADING_PINS = PINS.append(pa.field("created_at", pa.int64(), nullable=False))
"""PINS of a world whose pins fade: when each was born, in milliseconds since the epoch."""
MIN_ACTING_MS = 2_000
"""How long after an impression a user acts at least."""
_MAX_DELAY_MS, _SLOW_SHARE = 120_000, 0.04  # until a row is known; rows that take longer
_CORE_DAYS = SnapshotConfig.model_fields["core_days"].default


def request_ids(numbers: Ints) -> pa.Array:
    """Return the ids of requests by their numbers."""
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 12, "0")
    return pc.binary_join_element_wise("w", digits, "")


def pin_rows(catalogue: Catalogue) -> pa.Table:
    """Return PINS of all pins, or FADING_PINS."""
    world = catalogue.world
    version = "world-1" if world.like == "world" else "pinsage-1"  # as the recipe calls it
    embeddings = to_list_column(catalogue.embedding_PE.astype(np.float32))
    pin_ids = np.arange(world.num_pins, dtype=np.int64)
    columns, schema = [pin_ids, pa.repeat(version, world.num_pins), embeddings], PINS
    if world.pin_lifetime_days is not None:
        columns, schema = [*columns, catalogue.born_ms_P], FADING_PINS
    return pa.table(columns, schema=schema)


def impression_rows(requests: Requests, request_id_R: pa.Array, known_R: Ints) -> pa.Table:
    """Return IMPRESSIONS, a row for each candidate in its order, requests as they come."""
    num_candidates = draws.NUM_CANDIDATES
    row_N = np.repeat(np.arange(len(requests.user_R)), num_candidates)
    num_alive_R = requests.end_pin_R - requests.first_pin_R
    is_exploration_N = requests.is_exploration_R[row_N]
    chance_N = (num_candidates / num_alive_R).astype(np.float32)[row_N]
    columns = [
        request_id_R.take(pa.array(row_N)),
        requests.users.user_id_U[requests.user_R[row_N]],
        requests.pin_RC.ravel(),
        requests.impressed_at_R[row_N],
        known_R[row_N],
        np.tile(np.arange(num_candidates, dtype=np.int16), len(requests.user_R)),
        pa.repeat("homefeed", len(row_N)),
        is_exploration_N,
        pa.array(chance_N, mask=~is_exploration_N),
    ]
    return pa.table(columns, schema=IMPRESSIONS)


@dataclass
class LogRows:
    """Makes the rows that need further draws: delays, times of actions, noise of embeddings."""

    world: WorldParameters
    rng: np.random.Generator

    def actions(self, requests: Requests, request_id_R: pa.Array, outcome_RC: Ints) -> pa.Table:
        """Return ACTIONS by the time of the action."""
        request, place = np.nonzero(outcome_RC)
        # Before the user's next request in any case.
        acting_ms = self.rng.integers(MIN_ACTING_MS, draws.MAX_ACTING_MS, len(request))
        # A row per action: whose outcome it is, which of it, from 0, and its type.
        types = draws.OUTCOMES[self.world.like]
        num_actions_A = np.array([len(each) for each in types])
        outcome = outcome_RC[request, place] - 1
        num_actions = num_actions_A[outcome]
        row = np.repeat(np.arange(len(outcome)), num_actions)
        number = place_in_run(row)
        first_A = np.cumsum(num_actions_A) - num_actions_A
        names = pa.array([name for each in types for name in each])
        # The last action of an outcome comes at the drawn time, and those before it evenly spread.
        since_ms = acting_ms[row] * (number + 1) // num_actions[row]
        acted_at = requests.impressed_at_R[request[row]] + since_ms
        order = np.argsort(acted_at, kind="stable")
        action_type = (first_A[outcome[row]] + number)[order]
        request, place, acted_at = request[row][order], place[row][order], acted_at[order]
        columns = [
            requests.users.user_id_U[requests.user_R[request]],
            requests.pin_RC[request, place],
            names.take(pa.array(action_type)),
            acted_at,
            acted_at + self.delays_ms(len(request)),
            request_id_R.take(pa.array(request)),
        ]
        return pa.table(columns, schema=ACTIONS)

    def delays_ms(self, count: int) -> Ints:
        """Draw how long rows take to reach the log: up to 2 minutes, a few up to two days."""
        is_slow = self.rng.random(count) < _SLOW_SHARE
        usual = self.rng.integers(0, _MAX_DELAY_MS, count)
        return np.where(is_slow, self.rng.integers(0, 2 * DAY_MS, count), usual)

    def users(
        self,
        catalogue: Catalogue,
        requests: Requests,
        actions: pa.Table,
        start_ms: int,
        end_ms: int,
    ) -> pa.Table:
        """Return USERS: a row a week from a user's first request on, by (user, as_of).

        The embedding is what a daily batch job might know of a taste, with noise. The state is
        'new' in the first 28 days after the first request, else 'core' with a repin in the last 28
        days that was known by then, else 'non_core'.
        """
        users = requests.users
        first_U = np.full(len(users.user_id_U), np.iinfo(np.int64).max)
        np.minimum.at(first_U, requests.user_R, requests.impressed_at_R)
        as_of_W = np.arange(start_ms, end_ms, 7 * DAY_MS)
        user, week = np.nonzero(first_U[:, None] < as_of_W[None, :])
        as_of_N, user_id_N = as_of_W[week], users.user_id_U[user]
        is_new_N = first_U[user] >= as_of_N - _CORE_DAYS * DAY_MS
        repins = actions.filter(pc.equal(actions["action_type"], "repin"))
        names = ("user_id", "acted_at", "known_at")
        repin_times = ActionTimes(*(np.asarray(repins[name]) for name in names))
        is_core_N = has_recent_action(repin_times, user_id_N, as_of_N, _CORE_DAYS * DAY_MS)
        mean_NE = draws.unit_rows(users.taste_UK[user] @ catalogue.centre_KE)
        noise_NE = draws.USER_NOISE * draws.unit_rows(self.rng.normal(size=mean_NE.shape))
        columns = [
            user_id_N,
            as_of_N,
            to_list_column(draws.unit_rows(mean_NE + noise_NE).astype(np.float32)),
            np.where(is_new_N, "new", np.where(is_core_N, "core", "non_core")),
            pa.nulls(len(user), pa.string()),
        ]
        return pa.table(columns, schema=USERS)
