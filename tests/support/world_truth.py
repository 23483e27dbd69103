"""The known answer of a world: the repins in the top 3 that rankings of its requests can get.

Three rankings go by the truth that was saved with the log, one by popularity, one by chance. Not
for judging a model: a model's own number comes from
`validation.model_gate.ranking_metrics.top_k_hits` on the same requests, and is held against these.

    oracle       by the true chance of a repin, hidden intent and dislike included: out of reach
    filtered     by the exact chance given the true parameters, the user's taste, and all that they
                 were shown and did before the request: no model that sees only the log can be
                 better on average. It knows of actions at once, also where the log learns of them
                 late, and of impressions without an action, which a sequence of actions lacks
    no_sequence  by the chance given the taste alone: as far as a model without a sequence can get
    popularity   by the wanted actions on the pin in the 28 days before the request's day
    random       by nothing

No ranking knows the position that a pin had in the log, as no model here does. `expected` counts a
repin by its chance at that position; the rankings order by the chance once the pin is looked at.
"""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.event_log.log_files import EventLog, LogFile, open_event_log
from pipelines.event_log.reader import open_file, read_file
from pipelines.snapshot.pin_counts import ActionCounts, Popularity, trailing_popularity
from pipelines.sources.world.adapter import TRUTH, TRUTH_IMPRESSIONS, World, WorldAdapter
from pipelines.sources.world.draws import NUM_CANDIDATES, Floats, Ints
from pipelines.sources.world.parameters import WorldParameters
from pipelines.storage import exists, join, list_names, open_filesystem, read_model

POPULARITY_DAYS = 28
RANKINGS = ("oracle", "filtered", "no_sequence", "popularity", "random")
_TIE_SEED = 3


class TopRepins(Frozen):
    """Mean over requests of the repins among the k best-ranked candidates, per ranking."""

    oracle: float
    filtered: float
    no_sequence: float
    popularity: float
    random: float


class KnownAnswer(Frozen):
    """What the rankings get on the requests of a window; HIT@k is the mean * requests / users."""

    num_requests: int
    num_users: int
    k: int
    expected: TopRepins
    realised: TopRepins


def known_answer(event_log_uri: str, start: datetime, end: datetime, k: int = 3) -> KnownAnswer:
    """Return what rankings get on the requests in [start, end).

    Args:
        event_log_uri: a log that `homefeed ingest world` wrote.
        start: with a time zone; a holdout's start, for instance.
        end: excluded.
        k: how many candidates of a request count.

    Returns:
        Repins expected by the true chances (`expected`, little noise), and those that happened
        (`realised`, what a model's volume on this holdout compares with).

    Raises:
        ConfigurationError: this is no world, k is out of range, or no request is in the window.
    """
    world = _parameters(event_log_uri)
    if not 1 <= k <= NUM_CANDIDATES:
        raise ConfigurationError(f"k is {k}; expected 1 to {NUM_CANDIDATES}")
    start_ms, end_ms = to_ms(start), to_ms(end)
    event_log = open_event_log(event_log_uri)
    popularity = _popularity(event_log, world, start_ms, end_ms)
    rng = np.random.default_rng(_TIE_SEED)
    users: list[Ints] = []
    parts = []
    for rows in _truth_rows(event_log, start_ms, end_ms):
        users.append(np.asarray(rows["user_id"])[::NUM_CANDIDATES])
        score = {name: np.asarray(rows[name]) for name in RANKINGS[:3]}
        day = np.asarray(rows["impressed_at"]) // DAY_MS
        day_places = np.searchsorted(popularity.days, day)
        places = popularity.places_of(day_places, np.asarray(rows["pin_id"]))
        score["popularity"] = popularity.at(places, POPULARITY_DAYS)
        parts.append(_sums(rows, score, NUM_CANDIDATES, k, rng))
    if not parts:
        first, last = event_log.span("impressions")
        raise ConfigurationError(
            f"no requests in [{start}, {end}) of {event_log_uri}; it covers {first} to {last}"
        )
    num_requests = sum(len(part) for part in users)
    mean_QV = np.sum(parts, axis=0) / num_requests
    expected, realised = (
        TopRepins(**dict(zip(RANKINGS, map(float, mean_Q), strict=True))) for mean_Q in mean_QV.T
    )
    num_users = len(np.unique(np.concatenate(users)))
    return KnownAnswer(
        num_requests=num_requests, num_users=num_users, k=k, expected=expected, realised=realised
    )


def read_truth(event_log_uri: str, start: datetime, end: datetime) -> pa.Table:
    """Return TRUTH_IMPRESSIONS of the requests in [start, end), a request's rows together.

    Raises:
        ConfigurationError: this is no world.
    """
    _parameters(event_log_uri)
    event_log = open_event_log(event_log_uri)
    parts = list(_truth_rows(event_log, to_ms(start), to_ms(end)))
    return pa.concat_tables([TRUTH_IMPRESSIONS.empty_table(), *parts])


def _popularity(
    event_log: EventLog, world: WorldParameters, start_ms: int, end_ms: int
) -> Popularity:
    """Return the wanted actions per pin before each day, as the snapshot counts them."""
    first_day = start_ms // DAY_MS
    counts = []
    from_ms = (first_day - POPULARITY_DAYS) * DAY_MS
    for file in event_log.files_between("actions", from_ms, end_ms):
        columns = ["pin_id", "acted_at", "known_at", "action_type"]
        rows = read_file(open_file(event_log, file), file, columns, None)
        rows = rows.filter(pc.not_equal(rows["action_type"], "hide"))
        counts.append(ActionCounts.of(*(np.asarray(rows[name]) for name in columns[:3])))
    return trailing_popularity(
        counts,
        pin_ids=np.arange(world.num_pins, dtype=np.int64),
        days=np.arange(first_day, (end_ms - 1) // DAY_MS + 1),
        windows_days=(POPULARITY_DAYS,),
    )


def _sums(
    rows: pa.Table,
    score: dict[str, Floats],
    num_candidates: int,
    k: int,
    rng: np.random.Generator,
) -> Floats:
    """Return (rankings, 2) expected and realised repins in the top k, summed over requests."""
    worth_VRC = np.stack(
        [
            np.asarray(rows[name]).astype(np.float64).reshape(-1, num_candidates)
            for name in ("expected_repins", "is_repin")
        ]
    )
    # Ties are broken by chance: a constant score is worth what a random order is.
    chance_RC = rng.random(worth_VRC.shape[1:])
    sums = []
    for name in RANKINGS[:-1]:
        order_RC = np.lexsort((chance_RC, -score[name].reshape(-1, num_candidates)), axis=1)
        top_VRC = np.take_along_axis(worth_VRC, order_RC[None, :, :k], axis=2)
        sums.append(top_VRC.sum(axis=(1, 2)))
    sums.append(worth_VRC.sum(axis=(1, 2)) * k / num_candidates)
    return np.stack(sums)


def _truth_rows(event_log: EventLog, start_ms: int, end_ms: int) -> Iterator[pa.Table]:
    """Yield the truth of the requests in a window, file by file."""
    _, root = open_filesystem(event_log.uri)
    for file in event_log.files_between("impressions", start_ms, end_ms):
        relative = file.path.removeprefix(root).strip("/")
        path = f"{root}/{TRUTH}/{relative}"
        truth = LogFile(f"{TRUTH}/impressions", path, file.day, 0)
        rows = read_file(open_file(event_log, truth), truth, TRUTH_IMPRESSIONS.names, None)
        when = np.asarray(rows["impressed_at"])
        rows = rows.filter(pa.array((when >= start_ms) & (when < end_ms)))
        if len(rows):
            yield rows


def _parameters(event_log_uri: str) -> WorldParameters:
    marker_uri = join(event_log_uri, WorldAdapter.marker)
    if not exists(marker_uri):
        raise ConfigurationError(
            f"{event_log_uri} has no {WorldAdapter.marker}; found "
            f"{list_names(event_log_uri)[:5]}; expected an event log written by "
            f"`homefeed ingest world --to FOLDER`: no other has a known answer"
        )
    return read_model(marker_uri, World).parameters
