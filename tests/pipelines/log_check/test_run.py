"""Every way to break the contract, in one log at once: each is in one report, with its place."""

import os
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import ACTIONS
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.rules import Finding
from pipelines.log_check import run
from pipelines.log_check.found import LogReport, Severity
from pipelines.log_check.reading import request_id_in, request_of_hash
from pipelines.log_check.run import Span, check_log, choose_num_workers
from pipelines.log_check.text import lines_of, told_problems
from pipelines.preconditions.recipe_alone import require_sound
from pipelines.sources.writer.identifiers import id_of
from pipelines.storage import to_uri
from support.own_tables import write_own_log
from support.tiny_log import (
    ACTIONS_15,
    IMPRESSIONS_15,
    acted,
    january,
    rewrite,
    shown,
    tiny_actions,
    tiny_config,
    tiny_impressions,
    write_tiny_log,
)
from support.worlds import write_planted_world

IMPRESSIONS_16 = "impressions/day=2017-01-16/part-0.parquet"
IMPRESSIONS_17 = "impressions/day=2017-01-17/part-0.parquet"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "event_log")
    return tmp_path / "event_log"


def errors(report: LogReport) -> dict[str, Finding]:
    found = [p.finding for p in report.problems if p.severity is Severity.ERROR]
    return {finding.rule: finding for finding in found}


def break_kind(log: Path) -> None:
    rewrite(log, IMPRESSIONS_15, "user_id", pa.array(["1", "1"]))


def break_null(log: Path) -> None:
    rewrite(log, IMPRESSIONS_16, "pin_id", pa.array([20, None], pa.int64()))


def break_unit(log: Path) -> None:
    seconds = pa.array([january("17 00:00") // 1000])
    for column in ("impressed_at", "known_at"):
        rewrite(log, IMPRESSIONS_17, column, seconds)


def break_order(log: Path) -> None:
    rewrite(log, ACTIONS_15, "known_at", pa.array([january("14 00:00")]))


def break_day(log: Path) -> None:
    (log / "actions/day=2017-01-12").rename(log / "actions/day=2017-01-11")


def break_folder(log: Path) -> None:
    (log / "actions/day=2017-01-10").rename(log / "actions/2017-01-10")


def break_type(log: Path) -> None:
    rewrite(log, "actions/day=2017-01-16/part-0.parquet", "action_type", pa.array(["hide"]))


def break_chance(log: Path) -> None:
    path = "impressions/day=2017-01-19/part-0.parquet"
    rewrite(log, path, "propensity", pa.array([1.5], pa.float32()))


def break_embedding(log: Path) -> None:
    rows = pq.read_table(log / "pins/part-0.parquet")["embedding"].to_pylist()
    rows[1][3] = float("nan")
    rows[2] = rows[2][:16]
    rewrite(log, "pins/part-0.parquet", "embedding", pa.array(rows, pa.list_(pa.float32())))


def break_users(log: Path) -> None:
    rows = pq.read_table(log / "users/part-0.parquet")
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), log / "users/part-0.parquet")


def break_parquet(log: Path) -> None:
    (log / "impressions/day=2017-01-14/part-0.parquet").write_bytes(b"no Parquet")


def break_column(log: Path) -> None:
    rewrite(log, "actions/day=2017-01-18/part-0.parquet", "known_at", None)


BREAKS: dict[str, Callable[[Path], None]] = {
    "wrong_kind": break_kind,
    "null": break_null,
    "implausible_time": break_unit,
    "known_before_it_happened": break_order,
    "wrong_day": break_day,
    "no_day_folder": break_folder,
    "unknown_action_type": break_type,
    "propensity": break_chance,
    "embedding_number": break_embedding,
    "embedding_width": lambda log: None,  # planted with the one before
    "repeated_user_row": break_users,
    "unreadable": break_parquet,
    "missing_column": break_column,
}


def test_a_sound_log_has_no_error(log: Path) -> None:
    report = check_log(str(log), tiny_config())
    assert errors(report) == {}
    assert report.shown.rows == 11
    assert (report.num_requests, report.num_users, report.num_pins) == (7, 2, 4)


def test_all_errors_of_the_contract_are_in_one_report(log: Path) -> None:
    for break_it in BREAKS.values():
        break_it(log)
    found = errors(check_log(str(log), tiny_config()))
    assert set(BREAKS) <= set(found)
    null = found["null"]
    assert (null.table, null.column, null.row) == ("impressions", "pin_id", 1)
    assert null.key == "request_id=B, user_id=2, pin_id=None"
    assert (null.value, null.num_rows) == ("null", 1)
    assert null.where.endswith(IMPRESSIONS_16)
    assert "looks like seconds" in found["implausible_time"].problem
    assert found["embedding_number"].key == "pin_id=20"
    assert found["embedding_number"].row == 1
    assert found["unknown_action_type"].value == "hide"
    assert found["missing_column"].column == "known_at"
    assert "several widths: 4 of 32 numbers, 1 of 16" in found["embedding_width"].message
    assert all(finding.expected and finding.remedy for finding in found.values())


@pytest.mark.parametrize("rule", [rule for rule in BREAKS if rule != "embedding_width"])
def test_each_error_is_told_with_its_file_and_what_to_change(log: Path, rule: str) -> None:
    BREAKS[rule](log)
    told = [text for _, text in told_problems(check_log(str(log), tiny_config()))]
    finding = errors(check_log(str(log), tiny_config()))[rule]
    line = next(text for text in told if finding.remedy in text and finding.column in text)
    assert re.search(r"(day=|pins|users|actions)", line)
    assert "; expected " in line


def test_what_the_kernel_would_refuse_is_found_too(tmp_path: Path) -> None:
    impressions = [*tiny_impressions(), *shown("A", 2, "15 01:00", 30)]
    actions = [*tiny_actions(), acted(1, 10, "repin", "17 22:00", "18 02:00", "C")]
    write_tiny_log(tmp_path / "log", impressions, actions)
    pins = pq.read_table(tmp_path / "log/pins/part-0.parquet")
    pq.write_table(pa.concat_tables([pins.slice(0, 3), pins.slice(0, 1)]),
                   tmp_path / "log/pins/part-0.parquet")  # fmt: skip
    found = errors(check_log(str(tmp_path / "log"), tiny_config()))
    assert "request 'A' belongs to users 1 and 2" in found["request_of_two_users"].message
    early = found["action_before_request"].message
    assert "names request 'C', which was shown later" in early
    assert "pin 10 has more than one embedding" in found["repeated_embedding"].message
    assert "1 of 4 pins" in found["pin_without_embedding"].message
    assert "most of them by 2 to 3 h" in found["clock"].message


def test_a_row_is_named_by_where_it_stands_in_its_file(log: Path) -> None:
    """Rows without a user do not count, and the early action's request is the right one yet."""
    folder = log / "actions/day=2017-01-17"
    rows = [acted(1, 20, "click", "17 01:00", "17 01:00", f"nobody-{n}") for n in range(3)]
    rows.append(acted(1, 10, "repin", "17 22:00", "18 02:00", "C"))
    nobody = pa.array([None, None, None, 1], pa.int64())
    table = pa.Table.from_pylist(rows, schema=ACTIONS)
    fields = [field.with_nullable(True) for field in ACTIONS]
    table = table.set_column(0, fields[0], nobody)
    pq.write_table(table, folder / "part-1.parquet")
    found = errors(check_log(str(log), tiny_config()))
    assert "names request 'C', which was shown later" in found["action_before_request"].message
    (folder / "part-0.parquet").write_bytes(b"no Parquet")
    found = errors(check_log(str(log), tiny_config()))
    assert "names request 'C', which was shown later" in found["action_before_request"].message
    assert "part-0.parquet is not a readable Parquet file" in found["unreadable"].problem


def test_a_request_of_two_users_is_named_beside_a_file_that_cannot_be_read(log: Path) -> None:
    write_tiny_log(log, [*tiny_impressions(), *shown("A", 2, "15 01:00", 30)])
    folder = log / "impressions/day=2017-01-15"
    (folder / "part-0.parquet").rename(folder / "part-1.parquet")
    (folder / "part-0.parquet").write_bytes(b"no Parquet")
    found = errors(check_log(str(log), tiny_config()))
    assert "request 'A' belongs to users 1 and 2" in found["request_of_two_users"].message
    assert "unreadable" in found


def test_a_name_that_cannot_be_read_any_more_is_a_question_mark(log: Path) -> None:
    file = open_event_log(to_uri(log)).files_of("impressions")[0]
    (log / "impressions/day=2017-01-14/part-0.parquet").write_bytes(b"no Parquet")
    event_log = open_event_log(to_uri(log))
    assert request_id_in(event_log, file, 0) == "?"
    assert request_of_hash(event_log, [file], 7) == "?"


def test_as_many_processes_as_cores_and_memory_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(run, "memory_limit_bytes", lambda: 2 << 30)
    assert choose_num_workers() <= 2
    monkeypatch.setattr(run, "memory_limit_bytes", lambda: 100 << 20)
    assert choose_num_workers() == 1


def test_missing_tables_are_all_named_and_the_rest_is_judged(log: Path) -> None:
    for table in ("pins", "users"):
        (log / table / "part-0.parquet").unlink()
    report = check_log(str(log))
    told = [text for _, text in told_problems(report)]
    assert sum("has no table" in text for text in told) == 2
    assert report.shown.rows == 11


def test_without_a_recipe_action_types_are_listed_and_not_judged(log: Path) -> None:
    break_type(log)
    report = check_log(str(log))
    assert errors(report) == {}
    assert report.acted.by_type["hide"] == 1


def test_parts_and_processes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_world(tmp_path / "log", num_days=6, num_users=40)
    whole = list(lines_of(check_log(str(tmp_path / "log"), num_workers=1)))
    monkeypatch.setattr(run, "ROWS_PER_PART", 25)
    monkeypatch.setattr(run, "REQUESTS_PER_BUCKET", 7)
    assert list(lines_of(check_log(str(tmp_path / "log"), num_workers=1))) == whole
    assert list(lines_of(check_log(str(tmp_path / "log"), num_workers=2))) == whole


def test_labels_are_those_of_the_snapshot(tmp_path: Path) -> None:
    """The tiny log's examples are worked out by hand in the tests of the kernel's labels."""
    write_tiny_log(tmp_path / "log")
    report = check_log(str(tmp_path / "log"), tiny_config())
    by_day = {day.day: found.labelled for day, found in report.exposures.items()}
    assert by_day[15].get("repin", 0) == 1  # A's first pin; the other came 24 h later
    assert by_day[16] == {"repin": 1, "long_click": 1}  # B's second pin
    # C's two pins: of the second, the log knows only after the tiny snapshot's as_of.
    assert by_day[18].get("repin", 0) == 2
    assert report.acted.named == 4 and report.acted.found == 3
    assert int(np.sum(report.sequence_lengths)) == 7


def test_a_recipe_that_no_cycle_could_be_begun_with_is_an_error(log: Path) -> None:
    """The questions are those of `homefeed recipe check` about the recipe alone."""
    base = tiny_config()
    gate = base.model_gate.model_copy(update={"target_metric": "hit_at_3.bye"})
    config = base.model_copy(update={"model_gate": gate})
    found = [p.finding.message for p in check_log(str(log), config).problems]
    [message] = [text for text in found if "hit_at_3.bye" in text]
    with pytest.raises(ConfigurationError) as refused:
        require_sound(config)
    assert refused.value.problems[0] in message
    assert message.startswith(f"recipe {config.reference} cannot be run: ")
    assert "recipe" in errors(check_log(str(log), config))
    assert "recipe" not in errors(check_log(str(log), base))


def test_pins_are_told_with_the_texts_that_their_ids_were_made_from(tmp_path: Path) -> None:
    write_own_log(tmp_path / "own", 1, 2)
    path = next((tmp_path / "own/pins").glob("*.parquet"))
    rows = pq.read_table(path)
    some = rows.filter(pc.not_equal(rows["pin_id"], id_of("p1")))
    twice = some.filter(pc.equal(some["pin_id"], id_of("p2")))
    pq.write_table(pa.concat_tables([some, twice]), path)
    told = [text for _, text in told_problems(check_log(str(tmp_path / "own")))]
    [repeated] = [text for text in told if "more than one embedding" in text]
    assert repeated.endswith(f"({id_of('p2')} is pin 'p2')")
    [missing] = [text for text in told if "embedding of version" in text and "first: " in text]
    assert missing.endswith(f"({id_of('p1')} is pin 'p1')")


def test_windows_that_the_log_does_not_reach_are_an_error_for_its_recipe_alone(log: Path) -> None:
    config = tiny_config(holdout_days=1, embargo_days=30)
    found = errors(check_log(str(log), config))["window_without_impressions"]
    assert re.search("no impressions in the training window .* of as_of 2017-01-20", found.message)
    assert "covers 2017-01-14 to 2017-01-19" in found.message
    assert "window_without_impressions" not in errors(check_log(str(log), tiny_config()))
    some_days = Span(date(2017, 1, 18), date(2017, 1, 19))
    assert "window_without_impressions" not in errors(check_log(str(log), config, some_days))
