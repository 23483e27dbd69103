"""A world with a known answer, as an event log of any size (`homefeed ingest world`).

Everything is drawn from one seeded generator. While the log is written, the best that any ranker
can do is computed too (`draws.predict`) and lies beside the log, so that a trained model can be
held against the truth. Not a model of people: its use is that nothing in it is unknown.

Numbers are those of `pipelines.sources.world.draws`; s(x) = 1 / (1 + exp(-x)).

    topics    K unit centres m_k in the embedding space; popularity g_k(day): two slow sines
    pins      topic z; embedding unit(m_z + 0.8 noise); appeal ~ N(0, 0.3)
    users     taste t: 3 to 5 topics, Dirichlet(4); warmth ~ N(0, 0.4); weekly row
              unit(unit(sum_k t_k m_k) + 0.5 noise); three users in ten arrive later
    sessions  Poisson, 3 a week on average, gamma distributed over users; 2 to 6 requests, 2 to 10
              minutes apart
    intent    one topic, first drawn from t; at each request it stays with chance 0.95 within a
              session and 0.95 (exp(-gap / 12 h) + exp(-gap / 7 d)) / 2 after a gap, or is drawn
              from t again (and may be the same)
    dislike   one topic outside the taste; stays with chance exp(-gap / 21 d), or is drawn again
    shown     12 different pins in random order, each from the taste (0.4), from the topics popular
              that day (0.3, by exp(g)) or any pin (0.3). One request in twenty shows uniform pins:
              is_exploration, with propensity = chance that the pin is among them = 12 / pins
    seen      position j, from 0, is looked at with chance e_j = 0.95^j
    repin     q_repin = s(-4.2 + 3.4 [z = intent] + 2 t_z - 2 [z = dislike]
                          + appeal + 0.4 g_z + warmth)
    hide      q_hide  = s(-5.5 + 4 [z = dislike])
    click     q_click = s(-3.2 + 2 [z = intent] + t_z + appeal + 0.4 g_z)
              one outcome at most, in this order of precedence: see `draws`
    known_at  up to 2 minutes later, in 4 % of the cases up to two days

With `--like production` the log has what the recipe `production` reads: its action types, and its
embedding version `pinsage-1`. Repins, clicks and hides have the chances above; besides there are

    closeup     q_closeup = s(-2.4 + 1.5 [z = intent] + t_z + appeal + 0.4 g_z) of a pin that is
                looked at and gets no repin, hide or click; also before every second repin
    long_click  after a click with chance s(-0.8 + 1.2 [z = intent])

With `--pin-lifetime-days L` a pin is born at some time, is shown for 4 L days, and fades:

    born      evenly over the days of the log and the 4 L days before them, in the order of the
              pin_ids; the table pins tells when: created_at, int64 milliseconds
    shown     as above, but of the pins that are born and at most 4 L days old; the propensity is
              12 / how many these are
    appeal    (3 + appeal) 2^(-age / L) stands in the place of appeal

Neither the times of requests nor the candidates depend on intent and dislike, so they tell nothing
about them; only outcomes do.

    <log>/impressions, actions, pins, users          as every event log
    <log>/truth/impressions/day=YYYY-MM-DD/          TRUTH_IMPRESSIONS
    <log>/record/                                    with the sizes, in `made_of`

Every chunk of users adds one file per day and table. Letters: U users, W weeks, R requests, C
candidates, N rows.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.config import SnapshotConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import ActionTimes, has_recent_action, place_in_run
from pipelines.sources.publish import SourceAdapter, write_table
from pipelines.sources.world import draws
from pipelines.sources.world.draws import Catalogue, Ints, Requests
from pipelines.sources.world.parameters import WorldParameters

FADING_PINS = PINS.append(pa.field("created_at", pa.int64(), nullable=False))
"""PINS of a world whose pins fade: when each was born, in milliseconds since the epoch."""
TRUTH = "truth/impressions"
"""Folder beside the tables; the snapshot builder reads none but the tables it knows."""
TRUTH_KEYS = ("request_id", "pin_id", "user_id", "impressed_at")
_CHANCES = ("oracle", "filtered", "no_sequence", "expected_repins")
TRUTH_IMPRESSIONS = pa.schema(
    [
        *(IMPRESSIONS.field(name) for name in TRUTH_KEYS),
        *(pa.field(name, pa.float32(), nullable=False) for name in _CHANCES),
        pa.field("is_repin", pa.bool_(), nullable=False),
        *(pa.field(name, pa.int8(), nullable=False) for name in ("intent", "disliked")),
    ]
)
"""One row per impression, with the impression's own TRUTH_KEYS. `expected_repins` is the chance of
a repin at the position that the pin had. `oracle`, `filtered` and `no_sequence` are the chance of a
repin once the pin is looked at, whatever its position, by what each of them knows."""

MIN_ACTING_MS = 2_000
"""How long after an impression a user acts at least."""
_MAX_DELAY_MS, _SLOW_SHARE = 120_000, 0.04  # until a row is known; rows that take longer
_REQUESTS_PER_CHUNK = 100_000  # about 1.2 million impressions, under 1 GiB while they are drawn
_CORE_DAYS = SnapshotConfig.model_fields["core_days"].default


class WorldAdapter(SourceAdapter):
    """The world of some parameters (`make_parameters`), as an event log and its truth."""

    version = "world-1"

    def __init__(self, parameters: WorldParameters) -> None:
        self.made_of = {"adapter": "world", **parameters.model_dump(mode="json")}
        self._world = parameters
        self._rng = np.random.default_rng(parameters.seed)

    def write_tables(self, folder: Path) -> None:
        """Write all tables, a chunk of users at a time.

        Raises:
            ConfigurationError: the world is so small that it has no action or no user row.
        """
        world = self._world
        self._rng = np.random.default_rng(world.seed)
        catalogue = draws.draw_catalogue(self._rng, world)
        version = "world-1" if world.like == "world" else "pinsage-1"  # as the recipe calls it
        embeddings = to_list_column(catalogue.embedding_PE.astype(np.float32))
        pin_ids = np.arange(world.num_pins, dtype=np.int64)
        columns, schema = [pin_ids, pa.repeat(version, world.num_pins), embeddings], PINS
        if world.pin_lifetime_days is not None:
            columns, schema = [*columns, catalogue.born_ms_P], FADING_PINS
        write_table(folder, "pins", pa.table(columns, schema=schema), "00000")
        per_session = (draws.MIN_REQUESTS + draws.MAX_REQUESTS) / 2
        per_user = per_session * draws.SESSIONS_PER_WEEK * world.num_days / 7
        step = max(1, int(_REQUESTS_PER_CHUNK / per_user))
        num_rows = Counter[str]()
        firsts = tracked(range(0, world.num_users, step), "groups of users")
        for number, first in enumerate(firsts):
            user_ids = range(first, min(first + step, world.num_users))
            num_requests = num_rows["impressions"] // draws.NUM_CANDIDATES
            for table, rows in self._draw_chunk(catalogue, user_ids, num_requests).items():
                write_table(folder, table, rows, f"{number:05d}")
                num_rows[table] += len(rows)
        if num_rows["actions"] == 0 or num_rows["users"] == 0:
            raise ConfigurationError(
                f"{world.num_users} users over {world.num_days} days gave {num_rows['actions']} "
                f"actions and {num_rows['users']} weekly user rows; expected some of each; raise "
                f"--num-users, or --num-days above 7"
            )

    def _draw_chunk(
        self, catalogue: Catalogue, user_ids: range, first_request: int
    ) -> dict[str, pa.Table]:
        """Draw some users, their requests and actions; return the rows by table.

        Impressions, IMPRESSIONS by (time, request, position), and their truth, TRUTH_IMPRESSIONS,
        agree row for row.
        """
        users = draws.draw_users(self._rng, self._world, user_ids)
        requests = draws.draw_requests(self._rng, catalogue, users)
        shown = draws.describe(catalogue, requests)
        outcome_RC = draws.draw_outcomes(self._rng, shown)
        numbers = pa.array(first_request + np.arange(len(requests.user_R)))
        digits = pc.utf8_lpad(numbers.cast(pa.string()), 12, "0")
        request_id_R = pc.binary_join_element_wise("w", digits, "")

        num_candidates = draws.NUM_CANDIDATES
        order_R = np.argsort(requests.impressed_at_R, kind="stable")
        row_N = np.repeat(order_R, num_candidates)
        known_R = requests.impressed_at_R + self._delays_ms(len(order_R))
        num_alive_R = requests.end_pin_R - requests.first_pin_R
        is_exploration_N = requests.is_exploration_R[row_N]
        columns = [
            request_id_R.take(pa.array(row_N)),
            users.user_id_U[requests.user_R[row_N]],
            requests.pin_RC[order_R].ravel(),
            requests.impressed_at_R[row_N],
            known_R[row_N],
            np.tile(np.arange(num_candidates, dtype=np.int16), len(order_R)),
            pa.repeat("homefeed", len(row_N)),
            is_exploration_N,
            pa.array(
                (num_candidates / num_alive_R).astype(np.float32)[row_N], mask=~is_exploration_N
            ),
        ]
        impressions = pa.table(columns, schema=IMPRESSIONS)

        best = draws.predict(shown, outcome_RC)
        is_repin_O = np.array([False, *("repin" in types for types in draws.OUTCOMES[shown.like])])
        columns = [
            *impressions.select(TRUTH_KEYS).columns,
            *(
                values_RC[order_R].ravel().astype(np.float32)
                for values_RC in (*best, best[0] * draws.EXAMINATION_C)
            ),
            is_repin_O[outcome_RC[order_R]].ravel(),
            requests.intent_R[row_N].astype(np.int8),
            requests.disliked_R[row_N].astype(np.int8),
        ]
        truth = pa.table(columns, schema=TRUTH_IMPRESSIONS)
        actions = self._actions(requests, request_id_R, outcome_RC)
        user_rows = self._user_rows(catalogue, requests, actions)
        return {"impressions": impressions, TRUTH: truth, "actions": actions, "users": user_rows}

    def _actions(self, requests: Requests, request_id_R: pa.Array, outcome_RC: Ints) -> pa.Table:
        """Return ACTIONS by the time of the action."""
        request, place = np.nonzero(outcome_RC)
        # Before the user's next request in any case.
        acting_ms = self._rng.integers(MIN_ACTING_MS, draws.MAX_ACTING_MS, len(request))
        # A row per action: whose outcome it is, which of it, from 0, and its type.
        types = draws.OUTCOMES[self._world.like]
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
            acted_at + self._delays_ms(len(request)),
            request_id_R.take(pa.array(request)),
        ]
        return pa.table(columns, schema=ACTIONS)

    def _delays_ms(self, count: int) -> Ints:
        """Draw how long rows take to reach the log: up to 2 minutes, a few up to two days."""
        is_slow = self._rng.random(count) < _SLOW_SHARE
        usual = self._rng.integers(0, _MAX_DELAY_MS, count)
        return np.where(is_slow, self._rng.integers(0, 2 * DAY_MS, count), usual)

    def _user_rows(self, catalogue: Catalogue, requests: Requests, actions: pa.Table) -> pa.Table:
        """Return USERS: a row a week from a user's first request on, by (user, as_of).

        The embedding is what a daily batch job might know of a taste, with noise. The state is
        'new' in the first 28 days after the first request, else 'core' with a repin in the last 28
        days that was known by then, else 'non_core'.
        """
        users = requests.users
        first_U = np.full(len(users.user_id_U), np.iinfo(np.int64).max)
        np.minimum.at(first_U, requests.user_R, requests.impressed_at_R)
        as_of_W = np.arange(self._world.start_ms, self._world.end_ms, 7 * DAY_MS)
        user, week = np.nonzero(first_U[:, None] < as_of_W[None, :])
        as_of_N, user_id_N = as_of_W[week], users.user_id_U[user]
        is_new_N = first_U[user] >= as_of_N - _CORE_DAYS * DAY_MS
        repins = actions.filter(pc.equal(actions["action_type"], "repin"))
        names = ("user_id", "acted_at", "known_at")
        repin_times = ActionTimes(*(np.asarray(repins[name]) for name in names))
        is_core_N = has_recent_action(repin_times, user_id_N, as_of_N, _CORE_DAYS * DAY_MS)
        mean_NE = draws.unit_rows(users.taste_UK[user] @ catalogue.centre_KE)
        noise_NE = draws.USER_NOISE * draws.unit_rows(self._rng.normal(size=mean_NE.shape))
        columns = [
            user_id_N,
            as_of_N,
            to_list_column(draws.unit_rows(mean_NE + noise_NE).astype(np.float32)),
            np.where(is_new_N, "new", np.where(is_core_N, "core", "non_core")),
            pa.nulls(len(user), pa.string()),
        ]
        return pa.table(columns, schema=USERS)
