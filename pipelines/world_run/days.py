"""Days of a world, one after another: a policy ranks, users answer, and the log grows by a day.

Who asks when, what could be shown, what users want and with which luck they answer is drawn from
the world's seed (`pipelines.sources.world`), the same for every policy. What is seen depends on the
order: so two policies' days differ in nothing but in what they put first. How many repins a day's
orders bring on average is computed from the hidden chances, not counted. A user's requests of a day
follow one another in rounds, because what is done in one changes what is known in the next.

    <log>/impressions, actions, pins, users          as every event log
    <log>/truth/days/YYYY-MM-DD.json                 DayOfWorld, written before the day is published

A day becomes part of the log whole. After a kill the next run goes on with the first day that the
log lacks, and draws the same. Tested in tests/pipelines/world_run/.

Letters: R requests, C candidates.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipelines import storage
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import TOP_K
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import ACTIONS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import place_in_run
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import open_file, read_file
from pipelines.event_log.record import EventLogRecord, read_record
from pipelines.sources.publish import publish, write_table
from pipelines.sources.world import draws
from pipelines.sources.world.draws import Catalogue, Floats, Ints, Requests, Users
from pipelines.sources.world.parameters import WorldParameters, make_parameters
from pipelines.sources.world.rows import LogRows, impression_rows, pin_rows, request_ids
from pipelines.world_run.asked_day import AskedDay
from pipelines.world_run.policies import Policy

log = logging.getLogger(__name__)
MADE_BY = "world-run-1"
TRUTH_DAYS = "truth/days"
_LUCK, _KNOWN, _ACTING, _USERS = range(4)  # what a generator of its own draws


class DayOfWorld(Frozen):
    """A day of a policy, and what it was worth."""

    day: date = Field(description="UTC.")
    policy: str = Field(description="Who ranked: a model of the registry, optimum or random.")
    num_requests: int = Field(ge=0, description="With those of exploration.")
    expected_repins: float = Field(ge=0, description="Of all requests, by the hidden chances.")
    expected_in_top_3: float = Field(ge=0, description="Of them, those at the first three places.")
    num_repins: int = Field(ge=0, description="As drawn.")


@dataclass(frozen=True)
class DrawnWorld:
    """A world whose users have not been answered yet."""

    world: WorldParameters
    catalogue: Catalogue
    users: Users
    requests: Requests
    luck_RC: Floats  # of each candidate, wherever it is shown
    ids: pa.Array

    @staticmethod
    def of(world: WorldParameters) -> "DrawnWorld":
        """Draw a world of these sizes, all users at once."""
        rng = np.random.default_rng(world.seed)
        catalogue = draws.draw_catalogue(rng, world)
        users = draws.draw_users(rng, world, range(world.num_users))
        requests = draws.draw_requests(rng, catalogue, users)
        luck_RC = _generator(world, _LUCK).random(requests.pin_RC.shape)
        ids = request_ids(np.arange(len(requests.user_R)))
        return DrawnWorld(world, catalogue, users, requests, luck_RC, ids)

    def rounds(self, day: int) -> Iterator[Ints]:
        """Yield the rows of a day's requests: the first of each user, the second, and so on."""
        rows = np.flatnonzero(self.requests.day_R == day)
        places = place_in_run(self.requests.user_R[rows])
        for place in range(int(places.max(initial=-1)) + 1):
            yield rows[places == place]


def read_world(uri: str, **sizes: Any) -> WorldParameters:
    """Return the sizes of the world whose days a log has; of a new one those that are given.

    Raises:
        ConfigurationError: the log is another one, or has other sizes than those that are given.
    """
    found = read_record(uri)
    if found is None:
        return make_parameters(**sizes)
    known = {name: value for name, value in found.made_of.items() if name != "adapter"}
    if found.made_by != MADE_BY or make_parameters(**(known | sizes)) != make_parameters(**known):
        raise ConfigurationError(
            f"{uri} was made by {found.made_by} of {found.made_of}; expected a world that was run, "
            f"of {sizes}; leave the sizes out to go on with it, or choose another --to"
        )
    return make_parameters(**known)


def run_days(
    uri: str, world: WorldParameters, policy_of: Callable[[DrawnWorld], Policy], num_days: int
) -> Iterator[DayOfWorld]:
    """Let a world run for some more days; yield each once it is part of the log.

    Args:
        uri: Event log that was made by this function, or a place where nothing is.
        world: As `read_world` returns it.
        policy_of: Returns who ranks; it is asked anew before each day.
        num_days: How many; fewer where the world ends.

    Raises:
        RunInProgressError: another run writes the same log.
        HomefeedError: the policy fails; days before stay.
    """
    parent = uri.rsplit("/", 1)[0]
    with storage.exclusive_lock(uri, f"running a world in {uri}"):
        drawn = DrawnWorld.of(world)
        for _ in range(num_days):
            record = read_record(uri)
            event_log = open_event_log(uri) if record and record.files else None
            day = len({f.day for f in event_log.files_of("impressions")}) if event_log else 0
            if day >= world.num_days:
                log.info("the world of %s has no more than %d days", uri, world.num_days)
                return
            with storage.scratch_folder(parent) as scratch:
                yield _run_day(drawn, day, policy_of(drawn), event_log, uri, record, scratch)


def _run_day(
    drawn: DrawnWorld,
    day: int,
    policy: Policy,
    event_log: EventLog | None,
    uri: str,
    record: EventLogRecord | None,
    scratch: Path,
) -> DayOfWorld:
    world, when = drawn.world, drawn.world.start + timedelta(days=day)
    rows = np.flatnonzero(drawn.requests.day_R == day)
    rows = rows[np.argsort(drawn.requests.impressed_at_R[rows], kind="stable")]
    delays = LogRows(world, _generator(world, _KNOWN, day)).delays_ms(len(rows))
    known_R, ids = drawn.requests.impressed_at_R[rows] + delays, drawn.ids.take(pa.array(rows))
    if len(rows) == 0:
        raise ConfigurationError(f"nobody asks on {when}; expected requests; raise num_users")
    asked = None
    if policy.config is not None:
        if event_log is None:
            raise ConfigurationError("a world begins with the policy random or optimum")
        candidates = impression_rows(drawn.requests.take(rows), ids, known_R)
        types = sorted({name for each in draws.OUTCOMES[world.like] for name in each})
        (scratch / "asked").mkdir()
        asked = AskedDay(event_log, policy.config, when, candidates, scratch / "asked", types)
    pin_RC, done, expected_C = _rounds(drawn, day, policy, asked)
    folder = scratch / "event_log"
    answered = replace(drawn.requests.take(rows), pin_RC=pin_RC[rows])
    write_table(folder, "impressions", impression_rows(answered, ids, known_R), "0")
    write_table(folder, "actions", done, "0")
    if day == 0:
        write_table(folder, "pins", pin_rows(drawn.catalogue), "0")
        write_table(folder, "users", USERS.empty_table(), "0")
    elif (day + 1) % 7 == 0:  # so that the next day's requests find them
        write_table(folder, "users", _users_after(drawn, day, event_log, done), "0")
    told = DayOfWorld(
        day=when,
        policy=policy.label,
        num_requests=len(rows),
        expected_repins=float(expected_C.sum()),
        expected_in_top_3=float(expected_C[:TOP_K].sum()),
        num_repins=pc.sum(pc.equal(done["action_type"], "repin")).as_py() or 0,
    )
    storage.write_model(storage.join(uri, TRUTH_DAYS, f"{when}.json"), told)
    made_of = {"adapter": "world run", **world.model_dump(mode="json")}
    publish(folder, uri, EventLogRecord(made_by=MADE_BY, made_of=made_of, files={}), record)
    return told


def _rounds(
    drawn: DrawnWorld, day: int, policy: Policy, asked: AskedDay | None
) -> tuple[Ints, pa.Table, Floats]:
    """Let a day's requests be ranked and answered, round by round.

    Returns:
        The pins of all the world's requests, those of the day as they were shown; ACTIONS by time;
        and how many repins each position brings on average (C,).
    """
    pin_RC, actions = drawn.requests.pin_RC.copy(), [ACTIONS.empty_table()]
    expected_C = np.zeros(draws.NUM_CANDIDATES)
    for number, rows in enumerate(drawn.rounds(day)):
        ids = drawn.ids.take(pa.array(rows))
        offered = draws.describe(drawn.catalogue, drawn.requests.take(rows))
        order_RC = np.argsort(-policy.scores(ids, offered, asked), axis=1, kind="stable")
        is_drawn_R1 = drawn.requests.is_exploration_R[rows, None]  # They are shown as drawn.
        order_RC = np.where(is_drawn_R1, np.arange(order_RC.shape[1]), order_RC)
        shown = _shown(drawn, rows, order_RC)
        luck_RC = np.take_along_axis(drawn.luck_RC[rows], order_RC, axis=1)
        outcome_RC = draws.draw_outcomes(luck_RC, shown)
        chance_RC = draws.repin_chance(shown, draws.true_chances(shown)) * draws.EXAMINATION_C
        expected_C += chance_RC.sum(axis=0)
        made = LogRows(drawn.world, _generator(drawn.world, _ACTING, day, number))
        found = made.actions(shown.requests, ids, outcome_RC)
        policy.learn(shown, outcome_RC)
        if asked is not None:
            asked.learn(found)
        pin_RC[rows] = shown.requests.pin_RC
        actions.append(found)
    return pin_RC, pa.concat_tables(actions).sort_by("acted_at"), expected_C


def _shown(drawn: DrawnWorld, rows: Ints, order_RC: Ints) -> draws.Shown:
    """Return requests whose candidates stand as they are shown."""
    requests = drawn.requests.take(rows)
    pin_RC = np.take_along_axis(requests.pin_RC, order_RC, axis=1)
    return draws.describe(drawn.catalogue, replace(requests, pin_RC=pin_RC))


def replay(drawn: DrawnWorld, policy: Policy, event_log: EventLog) -> None:
    """Let a policy learn what users did on the days that a log has."""
    asked = ["request_id", "position", "pin_id"]
    by_id = dict(zip(drawn.ids.to_pylist(), range(len(drawn.ids)), strict=True))
    pin_RC = drawn.requests.pin_RC.copy()
    for file in event_log.files_of("impressions"):
        found = read_file(open_file(event_log, file), file, asked, None)
        row = np.array([by_id[each] for each in found["request_id"].to_pylist()])
        pin_RC[row, np.asarray(found["position"])] = np.asarray(found["pin_id"])
    # Where each shown pin stood among the candidates as they were drawn.
    place_RC = (pin_RC[:, :, None] == drawn.requests.pin_RC[:, None, :]).argmax(axis=2)
    for day in range(len({file.day for file in event_log.files_of("impressions")})):
        for rows in drawn.rounds(day):
            shown = _shown(drawn, rows, place_RC[rows])
            luck_RC = np.take_along_axis(drawn.luck_RC[rows], place_RC[rows], axis=1)
            policy.learn(shown, draws.draw_outcomes(luck_RC, shown))


def _users_after(
    drawn: DrawnWorld, day: int, event_log: EventLog | None, done: pa.Table
) -> pa.Table:
    """Return the weekly rows of USERS as of a day's end, by what the log has and was done since."""
    actions = done
    if event_log is not None:
        files, names = event_log.files_of("actions"), ACTIONS.names
        parts = [read_file(open_file(event_log, f), f, names, None).select(names) for f in files]
        actions = pa.concat_tables([done, *parts])
    as_of = drawn.world.start_ms + (day + 1) * DAY_MS
    before = drawn.requests.take(np.flatnonzero(drawn.requests.day_R <= day))
    made = LogRows(drawn.world, _generator(drawn.world, _USERS, day))
    return made.users(drawn.catalogue, before, actions, as_of, as_of + 1)


def _generator(world: WorldParameters, *of: int) -> np.random.Generator:
    return np.random.default_rng([world.seed, *of])
