"""A world with a known answer, as an event log of any size (`homefeed ingest world`).

Everything is drawn from one seeded generator, and the best that any ranker can do is computed while
the log is written (`world_filter`), so that a model trained on it can be held against the truth
(`world_truth.known_answer`). Not a model of people: its use is that nothing in it is unknown.

Numbers are those of `world_parameters`; s(x) = 1 / (1 + exp(-x)).

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
              one action at most, in this order of precedence: see `world_actions`
    known_at  up to 2 minutes later, in 4 % of the cases up to two days

Neither the times of requests nor the candidates depend on intent and dislike, so they tell nothing
about them; only outcomes do.

    <log>/impressions, actions, pins, users          as every event log
    <log>/truth/impressions/day=YYYY-MM-DD/          TRUTH_IMPRESSIONS of `world_tables`
    <log>/truth/topics, pins, users                  topics, appeals, tastes
    <log>/truth/parameters.json, <log>/world.json    all numbers; counts (written last)
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.sources.world import actions as world_actions
from pipelines.sources.world import filter as world_filter
from pipelines.sources.world import people as world_people
from pipelines.sources.world import requests as world_requests
from pipelines.sources.world import tables
from pipelines.sources.world.parameters import WorldParameters
from pipelines.storage import (
    exclusive_lock,
    exists,
    is_local,
    join,
    list_names,
    publish_folder,
    read_model,
    remove,
    scratch_folder,
    to_uri,
    translated_errors,
    write_bytes,
    write_model,
)

log = logging.getLogger(__name__)

ADAPTER_VERSION = "world-1"
"""Changes whenever the same parameters give another event log; an older one is then made anew."""

MARKER = "world.json"
PARAMETERS = "parameters.json"
_STARTED = "ingesting.json"
_REQUESTS_PER_CHUNK = 100_000  # about 1.2 million impressions, under 1 GiB while they are drawn


class World(Frozen):
    """What was written; `world.json` beside the tables, written last."""

    adapter_version: str
    embedding_version: str
    parameters: WorldParameters
    num_requests: int = Field(description="Requests, exploration included.")
    num_impressions: int
    num_actions: int
    num_user_rows: int


def ingest(to_location: str, parameters: WorldParameters) -> World:
    """Write the event log and its truth to a path or URI, whole or not at all.

    Args:
        to_location: folder of the event log; empty, missing, or written with these parameters.
        parameters: see `world_parameters.make_parameters`.

    Returns:
        Counts of what is there; at once if it was there.

    Raises:
        ConfigurationError: the folder holds something else, or the world has no request.
        RunInProgressError: another ingest writes to the same place.
        TransientStorageError: the storage failed or is full.
    """
    uri = to_uri(to_location)
    with exclusive_lock(uri, f"ingest to {uri}"):
        found = _already_there(uri, parameters)
        if found is not None:
            log.info("%s is already there: %d impressions", uri, found.num_impressions)
            return found
        with scratch_folder(uri.rsplit("/", 1)[0]) as scratch:
            with translated_errors(uri, "writing the event log for"):
                world = _write(scratch / "event_log", parameters)
            _publish(scratch / "event_log", uri, world)
        log.info("wrote %s: %d impressions", uri, world.num_impressions)
        return world


def _already_there(uri: str, parameters: WorldParameters) -> World | None:
    """Return what a finished ingest wrote; None if there is nothing or less than that."""
    if exists(join(uri, MARKER)):
        found = read_model(join(uri, MARKER), World)
        if found.parameters != parameters:
            raise ConfigurationError(
                f"{uri} holds a world of other parameters ({_difference(found, parameters)}); "
                f"expected the same ones or an empty folder; choose another --to or delete it"
            )
        if found.adapter_version == ADAPTER_VERSION:
            return found
        log.info("%s was written by %s; making it anew", uri, found.adapter_version)
        return None
    if list_names(uri) and not exists(join(uri, _STARTED)):
        raise ConfigurationError(
            f"{uri} holds {list_names(uri)[:5]} and no {MARKER}: it is not an event log of this "
            f"adapter and would be overwritten; choose an empty folder with --to"
        )
    return None


def _difference(found: World, wanted: WorldParameters) -> str:
    """Return the first parameter that differs, for a message."""
    ours, theirs = wanted.model_dump(), found.parameters.model_dump()
    name = next(name for name in ours if ours[name] != theirs[name])
    return f"{name} is {theirs[name]} there and {ours[name]} here"


def _publish(folder: Path, uri: str, world: World) -> None:
    """Publish the tables; the marker becomes visible with them (local) or after them."""
    if is_local(uri):
        write_model(to_uri(folder / MARKER), world)
        publish_folder(folder, uri)
        return
    remove(join(uri, MARKER))
    write_bytes(join(uri, _STARTED), b"{}")
    # an upload that was cut off, of a larger world perhaps, has parts that this one will not have
    for name in list_names(uri):
        if name != _STARTED:
            remove(join(uri, name))
    publish_folder(folder, uri)
    write_model(join(uri, MARKER), world)
    remove(join(uri, _STARTED))


def _write(folder: Path, parameters: WorldParameters) -> World:
    """Write all tables below a folder, a chunk of users at a time."""
    rng = np.random.default_rng(parameters.seed)
    catalogue = world_people.draw_catalogue(rng, parameters)
    tables.write_part(folder / "pins", tables.pins_table(catalogue), 0)
    num_requests = num_actions = num_user_rows = 0
    for number, (first, end) in enumerate(_chunks(parameters)):
        chunk = _draw_chunk(rng, parameters, catalogue, (first, end), num_requests)
        events = tables.event_tables(rng, parameters, chunk)
        for name, rows in zip(("impressions", "truth/impressions", "actions"), events, strict=True):
            time_column = "acted_at" if name == "actions" else "impressed_at"
            tables.write_days(folder / name, rows, time_column, number)
        made = (chunk.requests, events[2])
        user_rows = tables.users_table(rng, parameters, catalogue, chunk.users, made)
        tables.write_part(folder / "users", user_rows, number)
        tables.write_truth_tables(folder, parameters, catalogue, chunk.users, number)
        num_requests += len(chunk.requests.user_R)
        num_actions += len(events[2])
        num_user_rows += len(user_rows)
        log.info("%d of %d users, %d requests", end, parameters.num_users, num_requests)
    _check_anything(parameters, num_actions, num_user_rows)
    write_model(to_uri(folder / tables.TRUTH / PARAMETERS), parameters)
    return World(
        adapter_version=ADAPTER_VERSION,
        embedding_version=tables.EMBEDDING_VERSION,
        parameters=parameters,
        num_requests=num_requests,
        num_impressions=num_requests * parameters.num_candidates,
        num_actions=num_actions,
        num_user_rows=num_user_rows,
    )


def _chunks(parameters: WorldParameters) -> Iterator[tuple[int, int]]:
    """Yield [first, end) user ids of chunks that have about as many requests each."""
    per_session = (parameters.min_requests + parameters.max_requests) / 2
    per_user = per_session * parameters.sessions_per_week * parameters.num_days / 7
    size = max(1, int(_REQUESTS_PER_CHUNK / per_user))
    for first in range(0, parameters.num_users, size):
        yield first, min(first + size, parameters.num_users)


def _draw_chunk(
    rng: np.random.Generator,
    parameters: WorldParameters,
    catalogue: world_people.Catalogue,
    user_range: tuple[int, int],
    first_request: int,
) -> tables.Chunk:
    """Draw users, their requests and actions, and compute the best predictions."""
    users = world_people.draw_users(rng, parameters, *user_range)
    requests = world_requests.draw_requests(rng, parameters, catalogue, users)
    shown = world_actions.describe(parameters, catalogue, users, requests)
    truth = world_actions.chances(parameters, shown, *world_filter.hidden_flags(shown, requests))
    outcome_RC = world_actions.draw_outcomes(rng, shown, truth)
    return tables.Chunk(
        users=users,
        requests=requests,
        outcome_RC=outcome_RC,
        best=world_filter.predict(parameters, users, requests, shown, outcome_RC),
        examination_C=shown.examination_C,
        first_request=first_request,
    )


def _check_anything(parameters: WorldParameters, num_actions: int, num_user_rows: int) -> None:
    if num_actions == 0 or num_user_rows == 0:
        raise ConfigurationError(
            f"{parameters.num_users} users over {parameters.num_days} days gave {num_actions} "
            f"actions and {num_user_rows} weekly user rows; expected some of each; raise "
            f"--num-users, or --num-days above 7"
        )
