"""A world with a known answer, as an event log of any size (`homefeed ingest world`).

Everything is drawn from one seeded generator. While the log is written, the best that any ranker
can do is computed too (`pipelines.sources.world.filter`) and lies beside the log, so that a trained
model can be held against the truth. Not a model of people: its use is that nothing in it is
unknown.

Numbers are those of `pipelines.sources.world.parameters`; s(x) = 1 / (1 + exp(-x)).

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
              one outcome at most, in this order of precedence: see `actions`
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

Such a log is for holding a model against the ranking by created_at, newest first, which is far
better than chance there. A ranking by the actions of four weeks is not: it prefers what has faded.

Neither the times of requests nor the candidates depend on intent and dislike, so they tell nothing
about them; only outcomes do.

    <log>/impressions, actions, pins, users          as every event log
    <log>/truth/impressions/day=YYYY-MM-DD/          TRUTH_IMPRESSIONS of `tables`
    <log>/truth/topics, pins, users                  topics, appeals, tastes
    <log>/truth/parameters.json, <log>/world.json    all numbers; counts (written last)
"""

import logging
from pathlib import Path

import numpy as np
from pydantic import Field

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import write_json
from pipelines.sources.publish import IngestedLog, SourceAdapter
from pipelines.sources.world import actions, people, requests, tables
from pipelines.sources.world.filter import predict
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.writer.log_folder import LogFolder, write_days

log = logging.getLogger(__name__)

PARAMETERS = "parameters.json"
_REQUESTS_PER_CHUNK = 100_000  # about 1.2 million impressions, under 1 GiB while they are drawn


class World(IngestedLog):
    """What was drawn; `world.json`."""

    embedding_version: str
    parameters: WorldParameters
    num_requests: int = Field(description="Requests, exploration included.")
    num_impressions: int
    num_actions: int
    num_user_rows: int


class WorldAdapter(SourceAdapter[World]):
    """The world of some parameters, as an event log and its truth.

    Args:
        parameters: see `pipelines.sources.world.parameters.make_parameters`.
    """

    name = "world"
    version = "world-1"
    marker = "world.json"
    made_type = World

    def __init__(self, parameters: WorldParameters) -> None:
        self._parameters = parameters

    def check_same_input(self, uri: str, found: World) -> None:
        """Check that a world which is there has the same parameters.

        Raises:
            ConfigurationError: it has others.
        """
        for name in WorldParameters.model_fields:
            ours, theirs = (getattr(each, name) for each in (self._parameters, found.parameters))
            if ours != theirs:
                raise ConfigurationError(
                    f"{uri} holds a world of other parameters ({name} is {theirs} there and "
                    f"{ours} here); expected the same ones or an empty folder; choose another --to "
                    f"or delete it"
                )

    def write_tables(self, folder: Path) -> World:
        """Write all tables, a chunk of users at a time.

        Raises:
            ConfigurationError: the world is so small that it has no action or no user row.
        """
        parameters = self._parameters
        rng = np.random.default_rng(parameters.seed)
        catalogue = people.draw_catalogue(rng, parameters)
        event_log = LogFolder(folder, self.version)
        event_log.add("pins", tables.pins_table(parameters, catalogue), _part(0))
        tables.write_catalogue_truth(folder, parameters, catalogue, _part(0))
        num_requests = num_actions = num_user_rows = 0
        for number, user_ids in enumerate(_chunks(parameters)):
            part = _part(number)
            chunk = _draw_chunk(rng, parameters, catalogue, user_ids, num_requests)
            impressions = tables.impressions_table(rng, parameters, chunk)
            event_log.add("impressions", impressions, part)
            truth = tables.truth_table(parameters, chunk, impressions)
            write_days(folder / tables.TRUTH / "impressions", truth, "impressed_at", part)
            acted = tables.actions_table(rng, parameters, chunk)
            event_log.add("actions", acted, part)
            user_rows = tables.users_table(rng, parameters, catalogue, chunk, acted)
            event_log.add("users", user_rows, part)
            tables.write_users_truth(folder, chunk.users, part)
            num_requests += len(chunk.requests.user_R)
            num_actions += len(acted)
            num_user_rows += len(user_rows)
            users = parameters.num_users
            log.info("%d of %d users, %d requests", user_ids.stop, users, num_requests)
        if num_actions == 0 or num_user_rows == 0:
            raise ConfigurationError(
                f"{parameters.num_users} users over {parameters.num_days} days gave {num_actions} "
                f"actions and {num_user_rows} weekly user rows; expected some of each; raise "
                f"--num-users, or --num-days above 7"
            )
        event_log.write_record()
        write_json(folder / tables.TRUTH / PARAMETERS, parameters)
        return World(
            adapter_version=self.version,
            embedding_version=tables.embedding_version(parameters),
            parameters=parameters,
            num_requests=num_requests,
            num_impressions=num_requests * parameters.num_candidates,
            num_actions=num_actions,
            num_user_rows=num_user_rows,
        )


def _chunks(parameters: WorldParameters) -> list[range]:
    """Return the user_ids of chunks that have about as many requests each."""
    per_session = (parameters.min_requests + parameters.max_requests) / 2
    per_user = per_session * parameters.sessions_per_week * parameters.num_days / 7
    size = max(1, int(_REQUESTS_PER_CHUNK / per_user))
    user_ids = range(parameters.num_users)
    return [user_ids[first : first + size] for first in user_ids[::size]]


def _draw_chunk(
    rng: np.random.Generator,
    parameters: WorldParameters,
    catalogue: people.Catalogue,
    user_ids: range,
    first_request: int,
) -> tables.Chunk:
    """Draw users, their requests and actions, and compute the best predictions."""
    users = people.draw_users(rng, parameters, user_ids)
    drawn = requests.draw_requests(rng, parameters, catalogue, users)
    shown = actions.describe(parameters, catalogue, users, drawn)
    truth = actions.true_chances(parameters, shown, drawn)
    outcome_RC = actions.draw_outcomes(rng, shown, truth)
    return tables.Chunk(
        users=users,
        requests=drawn,
        outcome_RC=outcome_RC,
        best=predict(parameters, users, drawn, shown, outcome_RC),
        examination_C=shown.examination_C,
        first_request=first_request,
    )


def _part(number: int) -> str:
    """Return the name of a chunk's part in every table."""
    return f"{number:05d}"
