"""The world as Arrow tables and Parquet files: a chunk of users at a time.

Every chunk adds one file per day and table; what only the truth knows goes below truth/. Not for
drawing: that is `pipelines.sources.world.requests` and `pipelines.sources.world.actions`.

Letters: U users, W weeks, R requests, C candidates, N rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.config import SnapshotConfig
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import ActionTimes, has_recent_action
from pipelines.sources.world.actions import (
    MIN_ACTING_MS,
    NO_ACTION,
    draw_delays_ms,
    is_repin_A,
    outcomes,
)
from pipelines.sources.world.filter import BestPredictions
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.world.people import Catalogue, Floats, Ints, Users, draw_user_vectors
from pipelines.sources.world.requests import Requests
from pipelines.sources.writer.log_folder import write_part

_EMBEDDING_VERSION, _PRODUCTION_EMBEDDING_VERSION = "world-1", "pinsage-1"
FADING_PINS = PINS.append(pa.field("created_at", pa.int64(), nullable=False))
"""PINS of a world whose pins fade: when each was born, in milliseconds since the epoch."""

TRUTH = "truth"
"""Folder beside the tables; the snapshot builder reads none but the tables it knows."""

TRUTH_KEYS = ("request_id", "pin_id", "user_id", "impressed_at")
TRUTH_IMPRESSIONS = pa.schema(
    [
        *(IMPRESSIONS.field(name) for name in TRUTH_KEYS),
        pa.field("oracle", pa.float32(), nullable=False),
        pa.field("filtered", pa.float32(), nullable=False),
        pa.field("no_sequence", pa.float32(), nullable=False),
        pa.field("expected_repins", pa.float32(), nullable=False),
        pa.field("is_repin", pa.bool_(), nullable=False),
        pa.field("intent", pa.int8(), nullable=False),
        pa.field("disliked", pa.int8(), nullable=False),
    ]
)
"""One row per impression, with the impression's own TRUTH_KEYS. `expected_repins` is the chance of
a repin at the position that the pin had. `oracle`, `filtered` and `no_sequence` are the chance of a
repin once the pin is looked at, whatever its position, by what each of them knows."""

_CORE_DAYS = SnapshotConfig.model_fields["core_days"].default


@dataclass(frozen=True)
class Chunk:
    """A chunk of users with everything drawn."""

    users: Users
    requests: Requests
    outcome_RC: Ints
    best: BestPredictions
    examination_C: Floats
    first_request: int  # number of the chunk's first request in the whole world

    @property
    def by_time_R(self) -> Ints:
        """The positions of the requests, the earliest request first."""
        return np.argsort(self.requests.impressed_at_R, kind="stable")


def embedding_version(world: WorldParameters) -> str:
    """Return what the world calls its embeddings: as the recipe does that reads it."""
    return _EMBEDDING_VERSION if world.production is None else _PRODUCTION_EMBEDDING_VERSION


def pins_table(world: WorldParameters, catalogue: Catalogue) -> pa.Table:
    """Return PINS, or FADING_PINS where they fade, by pin_id."""
    columns = [
        np.arange(world.num_pins, dtype=np.int64),
        pa.repeat(embedding_version(world), world.num_pins),
        to_list_column(catalogue.embedding_PE.astype(np.float32)),
    ]
    if world.fading is None:
        return pa.table(columns, schema=PINS)
    return pa.table([*columns, catalogue.born_ms_P], schema=FADING_PINS)


def impressions_table(rng: np.random.Generator, world: WorldParameters, chunk: Chunk) -> pa.Table:
    """Return IMPRESSIONS of a chunk by (time, request, position)."""
    requests, order_R = chunk.requests, chunk.by_time_R
    request_id_R = _request_ids(chunk.first_request + np.arange(len(order_R)))
    known_R = requests.impressed_at_R + draw_delays_ms(rng, world, len(order_R))
    row_N = np.repeat(order_R, world.num_candidates)
    propensity_R = (world.num_candidates / requests.num_alive_R).astype(np.float32)
    columns = [
        request_id_R.take(pa.array(row_N)),
        chunk.users.user_id_U[requests.user_R[row_N]],
        requests.pin_RC[order_R].ravel(),
        requests.impressed_at_R[row_N],
        known_R[row_N],
        np.tile(np.arange(world.num_candidates, dtype=np.int16), len(order_R)),
        pa.repeat("homefeed", len(row_N)),
        requests.is_exploration_R[row_N],
        pa.array(propensity_R[row_N], mask=~requests.is_exploration_R[row_N]),
    ]
    return pa.table(columns, schema=IMPRESSIONS)


def truth_table(world: WorldParameters, chunk: Chunk, impressions: pa.Table) -> pa.Table:
    """Return TRUTH_IMPRESSIONS of a chunk's impressions, row for row."""
    requests, best, order_R = chunk.requests, chunk.best, chunk.by_time_R
    row_N = np.repeat(order_R, requests.pin_RC.shape[1])
    expected_RC = best.oracle_RC * chunk.examination_C
    is_repin_RC = np.append(False, is_repin_A(world))[chunk.outcome_RC]
    columns = [
        *impressions.select(TRUTH_KEYS).columns,
        *(
            values_RC[order_R].ravel().astype(np.float32)
            for values_RC in (best.oracle_RC, best.filtered_RC, best.no_sequence_RC, expected_RC)
        ),
        is_repin_RC[order_R].ravel(),
        requests.intent_R[row_N].astype(np.int8),
        requests.disliked_R[row_N].astype(np.int8),
    ]
    return pa.table(columns, schema=TRUTH_IMPRESSIONS)


def actions_table(rng: np.random.Generator, world: WorldParameters, chunk: Chunk) -> pa.Table:
    """Return ACTIONS of a chunk by the time of the action."""
    request, place = np.nonzero(chunk.outcome_RC != NO_ACTION)
    # Before the user's next request in any case.
    acting_ms = rng.integers(MIN_ACTING_MS, world.max_acting_ms, len(request))
    outcome = chunk.outcome_RC[request, place] - 1
    row, number, action_type = _actions_of(world, outcome)
    # The last action of an outcome comes at the drawn time, and those before it evenly spread.
    num_actions = np.array([len(types) for types in outcomes(world)])[outcome[row]]
    request, place = request[row], place[row]
    since_ms = acting_ms[row] * (number + 1) // num_actions
    acted_at = chunk.requests.impressed_at_R[request] + since_ms
    order = np.argsort(acted_at, kind="stable")
    request, place, acted_at = request[order], place[order], acted_at[order]
    columns = [
        chunk.users.user_id_U[chunk.requests.user_R[request]],
        chunk.requests.pin_RC[request, place],
        action_type.take(pa.array(order)),
        acted_at,
        acted_at + draw_delays_ms(rng, world, len(request)),
        _request_ids(chunk.first_request + request),
    ]
    return pa.table(columns, schema=ACTIONS)


def _actions_of(world: WorldParameters, outcome_N: Ints) -> tuple[Ints, Ints, pa.Array]:
    """Return, for each action of outcomes: whose outcome it is, which of it, from 0, and its type.

    Args:
        world: says which outcomes there are.
        outcome_N: positions in `outcomes`.
    """
    all_types = outcomes(world)
    num_actions_A = np.array([len(types) for types in all_types])
    first_A = np.cumsum(num_actions_A) - num_actions_A
    num_N = num_actions_A[outcome_N]
    row = np.repeat(np.arange(len(outcome_N)), num_N)
    number = np.arange(len(row)) - np.repeat(np.cumsum(num_N) - num_N, num_N)
    names = pa.array([name for types in all_types for name in types])
    return row, number, names.take(pa.array(first_A[outcome_N[row]] + number))


def users_table(
    rng: np.random.Generator,
    world: WorldParameters,
    catalogue: Catalogue,
    chunk: Chunk,
    actions: pa.Table,
) -> pa.Table:
    """Return USERS: a row a week from a user's first request on, by (user, as_of).

    The state is 'new' in the first 28 days after the first request, else 'core' with a repin in
    the last 28 days that was known by then, else 'non_core'.
    """
    users, requests = chunk.users, chunk.requests
    first_U = np.full(len(users.user_id_U), np.iinfo(np.int64).max)
    np.minimum.at(first_U, requests.user_R, requests.impressed_at_R)
    as_of_W = np.arange(world.start_ms, world.end_ms, 7 * DAY_MS)
    user, week = np.nonzero(first_U[:, None] < as_of_W[None, :])
    as_of_N = as_of_W[week]
    is_new_N = first_U[user] >= as_of_N - _CORE_DAYS * DAY_MS
    repins = actions.filter(pc.equal(actions["action_type"], "repin"))
    names = ("user_id", "acted_at", "known_at")
    repin_times = ActionTimes(*(np.asarray(repins[name]) for name in names))
    user_id_N = users.user_id_U[user]
    is_core_N = has_recent_action(repin_times, user_id_N, as_of_N, _CORE_DAYS * DAY_MS)
    vector_NE = draw_user_vectors(rng, world, catalogue, users.taste_UK[user])
    state_N = np.where(is_new_N, 2, np.where(is_core_N, 0, 1))
    columns = [
        user_id_N,
        as_of_N,
        to_list_column(vector_NE.astype(np.float32)),
        pa.array(["core", "non_core", "new"]).take(pa.array(state_N)),
        pa.nulls(len(user), pa.string()),
    ]
    return pa.table(columns, schema=USERS)


def write_catalogue_truth(
    folder: Path, world: WorldParameters, catalogue: Catalogue, part: str
) -> None:
    """Write what only the truth knows of topics and pins."""
    days = np.tile(np.arange(world.num_days), world.num_topics)
    topics = np.repeat(np.arange(world.num_topics), world.num_days)
    popularity = catalogue.popularity_KD.ravel()
    curve = pa.table({"topic": topics, "day": days, "log_popularity": popularity})
    write_part(folder / TRUTH / "topics", curve, part)
    pins = {"topic": catalogue.topic_P, "appeal": catalogue.appeal_P}
    pin_id = np.arange(world.num_pins)
    write_part(folder / TRUTH / "pins", pa.table({"pin_id": pin_id, **pins}), part)


def write_users_truth(folder: Path, users: Users, part: str) -> None:
    """Write what only the truth knows of a chunk's users."""
    taste = to_list_column(users.taste_UK)
    hidden = {"user_id": users.user_id_U, "taste": taste, "warmth": users.warmth_U}
    write_part(folder / TRUTH / "users", pa.table(hidden), part)


def _request_ids(numbers: Ints) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 12, "0")
    return pc.binary_join_element_wise("w", digits, "")
