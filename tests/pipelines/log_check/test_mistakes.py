"""A stranger's mistakes as data: each is planted alone, and one message names it.

The good log is a sound world that the stages accept, with a recipe of its own. A mistake that a
stage would refuse is an error of the check, by the same function; any other is warned of.
"""

import math
import re
import shutil
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import NumericFeature, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import DAY_MS, HOUR_MS, to_ms
from pipelines.event_log.completeness import completeness
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.rules import Finding, Severity
from pipelines.log_check.measuring import check_log
from pipelines.log_check.trial import try_stages
from pipelines.recipes import smoke
from pipelines.snapshot.plan import shard_of
from pipelines.sources.event_log_writer import id_of
from pipelines.stages import runner
from pipelines.storage import to_uri
from support.damage import flip_a_byte
from support.mistakes import MISTAKES, Change, Plant, column, everywhere, in_file, without
from support.own_tables import acted_on, give_log, write_own_log
from support.runs import make_run, save_run
from support.tiny_log import build_tiny, tiny_config, write_tiny_log
from support.worlds import PLANTED_START, embedding_column, write_planted_world

DAY, NUM_DAYS = "2017-01-11", 16
AS_OF = PLANTED_START.replace(day=1 + NUM_DAYS)
ERROR, WARNING, NOTE = Severity


class Mistake(NamedTuple):
    """A mistake of the good log: how it is made, how bad it is, and what its message must say."""

    plant: Plant
    severity: Severity
    rule: str
    says: str  # a pattern, with the table and the column or day

    @property
    def is_refused(self) -> bool:
        """By a stage too; of two errors the gate only warns, because there are few such rows."""
        return self.severity is ERROR and self.rule not in ("early_actions", "days_without_actions")


def good_recipe() -> RunConfig:
    base = smoke()
    days = {"training_days": 7, "embargo_days": 1, "holdout_days": 3, "history_days": 4}
    age = NumericFeature(name="pin_age", column="created_at")
    features = base.features.model_copy(update={"numeric": (*base.features.numeric, age)})
    snapshot = base.snapshot.model_copy(update=days | {"popularity_days": 3, "core_days": 4})
    return base.model_copy(update={"snapshot": snapshot, "features": features})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "event_log"
    write_planted_world(folder, num_days=NUM_DAYS, num_users=200, requests_per_user_day=0.6)
    made = pa.array([to_ms(PLANTED_START) - n * DAY_MS for n in range(80)])
    in_file("pins", lambda rows: rows.append_column("created_at", made))(folder)
    return folder


@pytest.fixture
def log(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "event_log")
    return tmp_path / "event_log"


def on_day(table: str, change: Change) -> Plant:
    return in_file(f"{table}/day={DAY}", change)


def number(rows: pa.Table, name: str) -> np.ndarray:
    return np.asarray(rows[name])


def shifted(hours: Callable[[pa.Table], object], *names: str) -> Change:
    """Return a change that moves some times of each row by hours."""

    def change(rows: pa.Table) -> pa.Table:
        by = np.asarray(hours(rows)) * HOUR_MS
        for name in names:
            rows = column(name, lambda rows, name=name: number(rows, name) + by)(rows)
        return rows

    return change


def keep(is_kept: Callable[[pa.Table], object]) -> Change:
    return lambda rows: rows.filter(pa.array(np.asarray(is_kept(rows))))


def hour(rows: pa.Table, name: str) -> np.ndarray:
    return number(rows, name) // HOUR_MS % 24


def unnamed(rows: pa.Table) -> pa.Table:
    return column("request_id", lambda rows: pa.nulls(len(rows), pa.string()))(rows)


def unknown(rows: pa.Table) -> list[str | None]:
    ids = rows["request_id"].to_pylist()
    return [f"x{name}" if name and n % 10 < 7 else name for n, name in enumerate(ids)]


def other_user(rows: pa.Table) -> np.ndarray:
    """Give a request's first row to another user of the same shard."""
    users, own = np.arange(200), number(rows, "user_id").copy()
    shards = shard_of(users, good_recipe().snapshot.num_shards)
    own[0] = users[(shards == shards[own[0]]) & (users > own[0])][0]
    return own


def every_ninth(rows: pa.Table) -> np.ndarray:
    return np.where(np.arange(len(rows)) % 9 == 0, -3, 0)


def vectors(table: str, change: Callable[[np.ndarray], object]) -> Plant:
    def changed(rows: pa.Table) -> pa.Array:
        found = change(np.stack(rows["embedding"].to_pylist()))
        return found if isinstance(found, pa.Array) else embedding_column(np.asarray(found))

    return in_file(table, column("embedding", changed))


def one_short(rows: np.ndarray) -> pa.Array:
    return pa.array([rows[0][:7], *rows[1:]], pa.list_(pa.float32()))


def sessions(log: Path) -> None:
    """Give each user one request id for all days."""
    for table in ("impressions", "actions"):
        everywhere(table, column("request_id", lambda rows: [
            name and f"user-{user}"
            for name, user in zip(*map(pa.ChunkedArray.to_pylist, (
                rows["request_id"], rows["user_id"])), strict=True)]))(log)  # fmt: skip


def answered_by(log: Path) -> Callable[[pa.Table], list[bool]]:
    """Return what says which impressions an action names."""
    keys = ["request_id", "pin_id"]
    acted = [pq.read_table(path, partitioning=None) for path in log.glob("actions/*/*.parquet")]
    named = {tuple(row.values()) for rows in acted for row in rows.select(keys).to_pylist()}
    return lambda rows: [tuple(row.values()) in named for row in rows.select(keys).to_pylist()]


def only_answered(log: Path) -> None:
    everywhere("impressions", keep(answered_by(log)))(log)


def told_by(name: str, most: int) -> Plant:
    """Return what adds a column to impressions that is large where an action follows."""

    def plant(log: Path) -> None:
        answered, rng = answered_by(log), np.random.default_rng(5)
        everywhere("impressions", lambda rows: rows.append_column(name, pa.array(
            rng.random(len(rows)) * 100 + most * np.array(answered(rows)))))(log)  # fmt: skip

    return plant


def in_2031(log: Path) -> None:
    def change(rows: pa.Table) -> pa.Table:
        years = np.where(np.arange(len(rows)) < 5, 14 * 365 * 24, 0)
        return shifted(lambda _: years, "acted_at", "known_at")(unnamed(rows))

    everywhere("actions", change)(log)


def flipped(log: Path) -> None:
    path = log / f"impressions/day={DAY}/part-0.parquet"
    pq.write_table(pq.read_table(path, partitioning=None), path, write_page_checksum=True)
    flip_a_byte(path)


def unknown_user(log: Path) -> None:
    """Give user 3 the id that is made of NA."""
    named = column("user_id", lambda rows: np.where(
        number(rows, "user_id") == 3, id_of("NA"), number(rows, "user_id")))  # fmt: skip
    for table in ("impressions", "actions"):
        everywhere(table, named)(log)
    in_file("users", named)(log)


def known_in_some(log: Path) -> None:
    rows = pq.read_table(log / "pins/part-0.parquet")
    some = rows.slice(40).append_column("known_at", pa.array([to_ms(PLANTED_START)] * 40))
    pq.write_table(some, log / "pins/part-1.parquet")
    pq.write_table(rows.slice(0, 40), log / "pins/part-0.parquet")


def cut(log: Path) -> None:
    last = f"day={date(2017, 1, NUM_DAYS)}"
    for table, name in (("impressions", "impressed_at"), ("actions", "acted_at")):
        in_file(f"{table}/{last}", keep(lambda rows, name=name: hour(rows, name) < 6))(log)


def local_on(sunday: date, change: Change) -> Plant:
    """Return what moves the log so that its 8th day is a Sunday on which clocks change."""

    def plant(log: Path) -> None:
        hours = (sunday - date(2017, 1, 8)).days * 24
        for table, name in (("impressions", "impressed_at"), ("actions", "acted_at")):
            everywhere(table, shifted(lambda _: hours, name, "known_at"))(log)
        in_file("users", shifted(lambda _: hours, "as_of"))(log)
        in_file(f"impressions/day={sunday}", change)(log)

    return plant


HOURS_9_TO_16 = "in the hours .*8, 9, 10"
MISTAKES_OF_A_WORLD = {
    # Rows and days that are missing
    "a day without actions": Mistake(on_day("actions", lambda rows: rows.slice(0, 0)), ERROR,
        "label_rate", rf"^actions: on {DAY} 0.00% of the impressions got 'repin'"),
    "a day's rate collapses": Mistake(on_day("actions", lambda rows: rows.take(
        pa.array(np.arange(0, len(rows), 8)))), WARNING, "label_rate", rf"^actions: on {DAY} "),
    "hours without actions": Mistake(on_day("actions", keep(
        lambda rows: ~np.isin(hour(rows, "acted_at"), range(8, 17)))), WARNING,
        "hours_without_actions", rf"^actions: impressions of {DAY} got 0 .* {HOURS_9_TO_16}"),
    "a day without impressions": Mistake(without(f"impressions/day={DAY}", 0, 1), WARNING,
        "few_impressions", f"^impressions: {DAY} has 0 rows"),
    "actions that stop": Mistake(without("actions/day=*", -6, None), ERROR,
        "days_without_actions", "^actions: none from .*the last is of 2017-01-10"),
    "actions that begin late": Mistake(without("actions/day=*", 0, 3), ERROR,
        "days_without_actions", "^actions: .*3 days with impressions; the first is of"),
    "a last day that is cut": Mistake(cut, WARNING, "cut_day",
        "^impressions: the last row is of 2017-01-16 0[56]:.*is cut; .*newest as_of is 2017-01-16"),
    "only impressions that were answered": Mistake(only_answered, ERROR, "only_answered",
        "^impressions: 100% of the .* were others left out"),
    # Requests
    "requests that match nothing": Mistake(everywhere("actions", column(
        "request_id", unknown)), ERROR, "unknown_requests",
        r"^actions: .*\(70%\) name none of their user's in the log, 0 of them"),
    "a session's id as the request's": Mistake(sessions, ERROR, "long_request",
        r"^impressions: request 'user-\d+' has rows from .* such requests\).*request_id unique"),
    "rows twice": Mistake(on_day("impressions", lambda rows: pa.concat_tables([rows, rows])),
        WARNING, "duplicates", "^impressions: .* repeat a request and pin of the same day"),
    "all is exploration": Mistake(everywhere("impressions", column("is_exploration",
        lambda rows: [True] * len(rows))), WARNING, "all_exploration",
        "^impressions: is_exploration is true in 100%"),
    # Times
    "a slow clock": Mistake(everywhere("actions", shifted(every_ninth, "acted_at", "known_at")),
        ERROR, "action_before_request", "^actions: .*acted_at.*|names.*most of them by 2 to 3 h"),
    "a slow clock, no request named": Mistake(everywhere("actions", lambda rows: shifted(
        every_ninth, "acted_at", "known_at")(unnamed(rows))), ERROR, "early_actions",
        "^actions: about 3 h before their impressions are 1[01]% of"),
    "actions in local time": Mistake(everywhere("actions", shifted(
        lambda _: 2, "acted_at", "known_at")), WARNING, "late_actions",
        "^actions: .* come 2 to 3 h after their impressions, .*time zone"),
    "impressions in local time": Mistake(everywhere("impressions", shifted(
        lambda _: 2, "impressed_at", "known_at")), ERROR, "action_before_request",
        "^actions: .* most of them by 1 to 2 h; expected acted_at >= impressed_at.*time zone"),
    "local times in spring": Mistake(local_on(date(2017, 3, 26), keep(
        lambda rows: hour(rows, "impressed_at") != 2)), WARNING, "clock_change",
        "^impressions: on 2017-03-26, .* 0 rows are of 2 to 3 h .*impressed_at"),
    "local times in autumn": Mistake(local_on(date(2017, 10, 29), shifted(
        lambda rows: -1 * (hour(rows, "impressed_at") == 3), "impressed_at", "known_at")),
        WARNING, "clock_change", r"^impressions: on 2017-10-29, .* 1\d\d rows are of 2 to 3 h "),
    "actions in 2031": Mistake(in_2031, WARNING, "far_days",
        r"^actions: 5 rows are of 2030-12-\d+ to .* days from .*correct acted_at"),
    "a column that tells the future": Mistake(told_by("dwell_ms", 900), WARNING, "telling_column",
        "^impressions: dwell_ms alone tells an impression that got an action .* 0.9"),
    # Pins and users
    "another width": Mistake(vectors("pins", one_short), ERROR, "embedding_widths",
        "^pins: embeddings of pins .*1 of 7"),
    "another width than users": Mistake(vectors("pins", lambda rows: rows[:, :20]), ERROR,
        "width_of_users", "^users: embeddings are 32 wide, .*pins of version 'planted-1' 20"),
    "some zeros": Mistake(vectors("pins", lambda rows: rows * (np.arange(80) != 3)[:, None]),
        ERROR, "zero_embeddings", "^pins: 1 of 80 embeddings of .* are all zero"),
    "all zeros": Mistake(vectors("pins", np.zeros_like), ERROR, "zero_embeddings",
        "^pins: 80 of 80 embeddings of .* are all zero"),
    "one vector for all": Mistake(vectors("pins", lambda rows: rows * 0 + rows[0]), ERROR,
        "gate_refuses", r"pin_embeddings_differ \(Pins do not share one embedding"),
    "vectors of odd length": Mistake(vectors("pins", lambda rows: rows * 1e6), ERROR,
        "gate_refuses", r"pin_embedding_norm \(Pin embeddings are zero or have a length"),
    "users of the export's time": Mistake(in_file("users", shifted(
        lambda _: NUM_DAYS * 24, "as_of")), WARNING, "late_users",
        "^users: as_of of all .* rows is after every request"),
    "pins that are left out": Mistake(in_file("pins", lambda rows: rows.slice(3)), ERROR,
        "pin_without_embedding", "^pins: 3 of 80 pins in the impressions and actions have no"),
    "another version than the recipe's": Mistake(in_file("pins", column(
        "embedding_version", lambda rows: ["v2"] * len(rows))), ERROR, "missing_version",
        r"^pins: no embedding of version 'planted-1' at .*; found the versions \['v2'\]"),
    "known_at in some files": Mistake(known_in_some, ERROR, "pin_times_in_some",
        "^pins: .*part-0.parquet has no column 'known_at', and .*part-1.parquet has"),
    "an infinite number": Mistake(in_file("pins", column("created_at", lambda rows: [
        math.inf, *number(rows, "created_at")[1:].astype(float)])), ERROR, "infinite_number",
        "pins/part-0.parquet: column 'created_at' has a number that is infinite"),
    "a request of two users": Mistake(on_day("impressions", column("user_id", other_user)), ERROR,
        "request_of_two_users",
        r"^impressions: request 'r\d+' belongs to users \d+ and \d+; .*request_id unique"),
    "created_at in seconds": Mistake(in_file("pins", column(
        "created_at", lambda rows: number(rows, "created_at") // 1000)), WARNING,
        "created", r"^pins: created_at of 80 of 80 pins that were shown \(100%\) .*not seconds"),
    "created_at of the export": Mistake(in_file("pins", column(
        "created_at", lambda rows: [to_ms(AS_OF) - 2 * DAY_MS] * len(rows))), WARNING,
        "created", r"^pins: created_at of 80 of 80 pins that were shown \(100%\) is after that"),
    "a head that is never seen": Mistake(everywhere("actions", keep(
        lambda rows: np.asarray(pc.not_equal(rows["action_type"], "save")))), WARNING,
        "head_without_labels", "^actions: no impression got 'save'"),
    "a flipped byte": Mistake(flipped, ERROR, "unreadable",
        f"impressions: .*day={DAY}/part-0.parquet is not a readable Parquet file .*CRC"),
    "one user of all who are unknown": Mistake(unknown_user, WARNING, "word_for_none",
        r"^impressions: [\d,]+ impressions and actions have the id 'NA', .*no value; .*`where`"),
    # The recipe's windows
    "too few rows": Mistake(lambda log: [everywhere(table, keep(
        lambda rows: number(rows, "user_id") < 18))(log) for table in ("impressions", "actions")],
        ERROR, "gate_refuses",
        r"enough_training_requests \(Requests .*: found .*, expected at least 100"),
    "a log that is too short": Mistake(lambda log: [without(f"{table}/day=*", 0, -4)(log)
        for table in ("impressions", "actions")], ERROR, "window_without_impressions",
        "no impressions in the training window .*the event log at .* covers 2017-01-13 to"),
}  # fmt: skip
"""By name; to grow."""


def told(log: Path, recipe: RunConfig) -> list[Finding]:
    """Return the errors and warnings of a log."""
    report = check_log(str(log), recipe)
    try_stages(report, recipe)
    return [each for each in report.problems if each.severity is not NOTE]


def refused_by_stages(home: Path, as_of: datetime = AS_OF) -> str:
    run = save_run(make_run(home, config=good_recipe(), as_of=as_of))
    try:
        for stage in ("build_snapshot", "check_snapshot"):
            runner.run_stage(stage, run.run_uri)
    except DataContractError as error:
        return str(error)
    return ""


@pytest.mark.docs
def test_the_good_log_is_accepted_by_the_check_and_by_the_stages(log: Path) -> None:
    assert told(log, good_recipe()) == []
    assert refused_by_stages(log.parent) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES_OF_A_WORLD)
def test_a_mistake_has_one_message_which_names_it(log: Path, name: str) -> None:
    mistake = MISTAKES_OF_A_WORLD[name]
    mistake.plant(log)
    [found] = told(log, good_recipe())
    assert (found.rule, found.severity) == (mistake.rule, mistake.severity)
    assert re.search(mistake.says, found.message) and re.search("expected |choose ", found.message)
    # What is warned of was tried by the check itself.
    refused = refused_by_stages(log.parent, newest(log)) if mistake.is_refused else ""
    assert bool(refused) == mistake.is_refused
    if found.rule == "gate_refuses":
        named = re.findall(r"- (\w+) \(critical\)", refused)
        assert re.findall(r"(?:by|;) (\w+) \(", found.message) == named != []


def newest(log: Path) -> datetime:
    """Return the newest as_of of which the log has the labels; the day after the last, if none."""
    try:
        return completeness(open_event_log(to_uri(log))).as_of
    except DataContractError:
        return AS_OF


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is told of the tiny log without a mistake."""
    home = tmp_path_factory.mktemp("tiny")
    write_tiny_log(home / "event_log")
    return {each.rule for each in told_of_tiny(home)}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_broken_rule_has_one_message_and_is_refused_by_the_build_too(
    tmp_path: Path, usual: set[str], name: str
) -> None:
    write_tiny_log(tmp_path / "event_log")
    MISTAKES[name].plant(tmp_path / "event_log")
    found = [each for each in told_of_tiny(tmp_path) if each.rule not in usual]
    assert {(each.rule, each.severity) for each in found} == {(MISTAKES[name].rule, ERROR)}
    assert len({each.column for each in found}) == len(found)
    assert all(each.table for each in found)
    with pytest.raises(DataContractError):
        build_tiny(tmp_path)


def told_of_tiny(home: Path) -> list[Finding]:
    problems = check_log(str(home / "event_log"), tiny_config()).problems
    return [each for each in problems if each.severity is not NOTE]


def test_every_rule_by_which_a_build_refuses_rows_has_a_mistake(repository: Path) -> None:
    rooms = ("event_log", "snapshot")
    files = (path for room in rooms for path in (repository / "pipelines" / room).rglob("*.py"))
    named = re.compile(r'(?:finding|_marked)\(\s*"(\w+)"')
    asked = {name for path in files for name in named.findall(path.read_text())}
    planted = {each.rule for each in (*MISTAKES.values(), *MISTAKES_OF_A_WORLD.values())}
    assert asked - planted == {"embedding_width"}  # which the check tells as embedding_widths


def test_a_timetable_that_follows_a_local_clock_is_no_mistake(log: Path) -> None:
    """In right UTC times, what comes an hour earlier in summer is never again of that hour."""
    sunday = date(2017, 3, 26)
    local_on(sunday, keep(lambda rows: hour(rows, "impressed_at") != 2))(log)
    for path in sorted(log.glob("impressions/day=*")):
        if path.name > f"day={sunday}":
            in_file(f"impressions/{path.name}", keep(
                lambda rows: hour(rows, "impressed_at") != 2))(log)  # fmt: skip
    assert "clock_change" not in {each.rule for each in told(log, good_recipe())}


SMALL_LOGS = {
    "no users": in_file("users", lambda rows: rows.slice(0, 0)),
    "one row a user at the first visit": in_file("users", keep(
        lambda rows: number(rows, "as_of") == to_ms(PLANTED_START))),
    "users without embeddings": vectors("users", np.zeros_like),
    "one file whose column may be null": on_day("impressions", column(
        "user_id", lambda rows: number(rows, "user_id"))),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL_LOGS)
def test_a_smaller_log_is_no_mistake(log: Path, name: str) -> None:
    SMALL_LOGS[name](log)
    assert told(log, good_recipe()) == []
    assert refused_by_stages(log.parent) == ""


def test_what_the_writer_gives_is_checked_by_its_pages(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2, 3)
    for path in tmp_path.glob("log/*/*.parquet"):
        flip_a_byte(path)
    assert {each.rule for each in check_log(str(tmp_path / "log")).problems} >= {"unreadable"}


def test_times_with_a_zone_and_without_are_told(tmp_path: Path) -> None:
    at = pd.Timestamp(2024, 1, 2, 7, tz="Europe/Berlin")
    give_log(tmp_path / "log", actions=acted_on(2).assign(acted_at=at))
    [found] = (p for p in check_log(str(tmp_path / "log")).problems if p.rule == "mixed_zones")
    assert found.message.startswith(
        "impressions: times without a zone (impressions.impressed_at) were taken for UTC, and "
        "others have one (actions.acted_at); expected one kind"
    )


def test_a_column_of_users_that_follows_from_their_actions_is_told(tmp_path: Path) -> None:
    users = [f"u{n}" for n in range(300)]
    shown = pd.DataFrame({"request_id": users, "user_id": users, "pin_id": "p0"})
    shown = shown.assign(impressed_at=pd.Timestamp(2024, 1, 2, 8))
    acted = shown.iloc[::2].drop(columns="impressed_at").assign(action_type="repin")
    acted = acted.assign(acted_at=pd.Timestamp(2024, 1, 2, 9))
    known = pd.DataFrame({"user_id": users, "as_of": pd.Timestamp(2024, 1, 1, tz="UTC")})
    known = known.assign(has_bought=[n % 2 == 0 for n in range(300)])
    give_log(tmp_path / "log", impressions=shown, actions=acted, users=known)
    report = check_log(str(tmp_path / "log"))
    assert report.telling == {"users.has_bought": 1.0}
    [found] = [each for each in report.problems if each.rule == "telling_column"]
    assert re.match("users: has_bought alone tells an impression", found.message)


def test_a_log_says_that_its_candidates_were_drawn(tmp_path: Path) -> None:
    for candidates, name in (("", "logged"), ("5 others of a day", "drawn")):
        give_log(tmp_path / name, candidates=candidates)
        notes = [str(each.message) for each in check_log(str(tmp_path / name)).problems]
        said = [note for note in notes if "they were drawn: 5 others of a day" in note]
        assert bool(said) == bool(candidates)
