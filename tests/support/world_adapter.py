"""A batch of a world's days in a drawn order, with the best that any ranker can do beside the log.

The order says nothing about the candidates, as in the product's policy `random`; all users' days
are drawn at once, for benchmarks and tests of large logs.

    <log>/impressions, actions, pins, users          as every event log
    <log>/truth/impressions/day=YYYY-MM-DD/          TRUTH_IMPRESSIONS
    <log>/record/                                    with the sizes, in `made_of`

Every chunk of users adds one file per day and table. Letters: U users, W weeks, R requests, C
candidates, N rows.
"""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import IMPRESSIONS
from pipelines.event_log.event_index import place_in_run
from pipelines.sources.publish import SourceAdapter, write_table
from pipelines.sources.world import draws
from pipelines.sources.world.draws import Catalogue, Floats, Ints, Shown
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.world.rows import LogRows, impression_rows, pin_rows, request_ids

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

_REQUESTS_PER_CHUNK = 100_000  # about 1.2 million impressions, under 1 GiB while they are drawn


class WorldAdapter(SourceAdapter):
    """The world of some parameters (`make_parameters`), as an event log and its truth."""

    version = "world-1"

    def __init__(self, parameters: WorldParameters) -> None:
        self.made_of = {"adapter": "world", **parameters.model_dump(mode="json")}
        self._world = parameters
        self._rows = LogRows(parameters, np.random.default_rng(parameters.seed))

    def write_tables(self, folder: Path) -> None:
        """Write all tables, a chunk of users at a time.

        Raises:
            ConfigurationError: the world is so small that it has no action or no user row.
        """
        world = self._world
        self._rows = LogRows(world, np.random.default_rng(world.seed))
        catalogue = draws.draw_catalogue(self._rows.rng, world)
        write_table(folder, "pins", pin_rows(catalogue), "00000")
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
                f"num_users, or num_days above 7"
            )

    def _draw_chunk(
        self, catalogue: Catalogue, user_ids: range, first_request: int
    ) -> dict[str, pa.Table]:
        """Draw some users, their requests and actions; return the rows by table.

        Impressions, IMPRESSIONS by (time, request, position), and their truth, TRUTH_IMPRESSIONS,
        agree row for row.
        """
        rng = self._rows.rng
        users = draws.draw_users(rng, self._world, user_ids)
        requests = draws.draw_requests(rng, catalogue, users)
        shown = draws.describe(catalogue, requests)
        outcome_RC = draws.draw_outcomes(rng.random(shown.topic_RC.shape), shown)
        request_id_R = request_ids(first_request + np.arange(len(requests.user_R)))

        order_R = np.argsort(requests.impressed_at_R, kind="stable")
        row_N = np.repeat(order_R, draws.NUM_CANDIDATES)
        known_R = (requests.impressed_at_R + self._rows.delays_ms(len(order_R)))[order_R]
        in_order = request_id_R.take(pa.array(order_R))
        impressions = impression_rows(requests.take(order_R), in_order, known_R)

        best = predict(shown, outcome_RC)
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
        actions = self._rows.actions(requests, request_id_R, outcome_RC)
        days = (self._world.start_ms, self._world.end_ms)
        user_rows = self._rows.users(catalogue, requests, actions, *days)
        return {"impressions": impressions, TRUTH: truth, "actions": actions, "users": user_rows}


def predict(shown: Shown, outcome_RC: Ints) -> tuple[Floats, Floats, Floats]:
    """Return (R, C) the chance of a repin once a candidate is looked at, by three rankers.

    Returns:
        By the oracle, which knows the hidden state; by the filter, which knows all that the user
        did and was shown before the request; and by the user's taste alone.
    """
    requests, users = shown.requests, shown.requests.users
    priors = (users.taste_UK, users.dislike_prior_UK)
    stays = (requests.intent_stay_R, requests.dislike_stay_R)
    known = [
        forward_filter(prior_UK, requests.user_R, stay_R, evidence_RK)
        for prior_UK, stay_R, evidence_RK in zip(
            priors, stays, draws.evidence_of(shown, outcome_RC), strict=True
        )
    ]
    by_taste = [prior_UK[requests.user_R] for prior_UK in priors]
    oracle_RC = draws.repin_chance(shown, draws.true_chances(shown))
    return oracle_RC, draws.expected_chance(shown, known), draws.expected_chance(shown, by_taste)


def forward_filter(prior_UK: Floats, user_R: Ints, stay_R: Floats, evidence_RK: Floats) -> Floats:
    """Return (R, K) the distribution of a chain's state before each request.

    Args:
        prior_UK: each user's distribution of new draws; the stationary one too.
        user_R: whose request it is; a user's requests stand together, by time.
        stay_R: chance that the state is the previous request's; anything at a user's first.
        evidence_RK: log-likelihood of the request's outcomes, up to a constant per request.
    """
    predicted_RK = np.empty_like(evidence_RK)
    number_R = place_in_run(user_R)
    by_number = np.argsort(number_R, kind="stable")  # first requests, then second ones, and so on
    ends = np.cumsum(np.bincount(number_R))
    posterior_UK = prior_UK.copy()
    for start, end in itertools.pairwise([0, *ends]):
        row = by_number[start:end]
        user, stay = user_R[row], stay_R[row][:, None]
        predicted_RK[row] = draws.carried(stay, posterior_UK[user], prior_UK[user])
        posterior_UK[user] = draws.updated(predicted_RK[row], evidence_RK[row])
    return predicted_RK
