"""A whole log is checked: all that breaks the contract in one report, and what is counted."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import CategoricalFeature, NumericFeature, RunConfig
from pipelines.contracts.schemas import ACTIONS
from pipelines.event_log.rules import Finding, Severity
from pipelines.log_check import measuring
from pipelines.log_check.measuring import check_log
from pipelines.log_check.report import LogReport, lines_of, told_problems
from pipelines.sources.event_log_writer import id_of
from support.mistakes import IMPRESSIONS_16, MISTAKES, PINS, TOGETHER
from support.own_tables import write_own_log
from support.tiny_log import (
    acted,
    january,
    rewrite,
    shown,
    tiny_actions,
    tiny_config,
    tiny_impressions,
    with_pin_times,
    write_tiny_log,
)
from support.worlds import write_planted_world

NOTE, WARNING, ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR


def errors(report: LogReport) -> dict[str, Finding]:
    return {p.rule: p for p in report.problems if p.severity is ERROR}


def with_features(**features: tuple) -> RunConfig:
    base = tiny_config()
    return base.model_copy(update={"features": base.features.model_copy(update=features)})


def test_all_errors_of_the_contract_are_in_one_report_each_with_its_place(log: Path) -> None:
    for name in TOGETHER:
        MISTAKES[name].plant(log)
    report = check_log(str(log), tiny_config())
    found, told = errors(report), [text for _, text in told_problems(report)]
    for name in TOGETHER:
        assert any(re.search(MISTAKES[name].says, text) for text in told)
    null = found["null"]
    assert (null.table, null.column, null.row) == ("impressions", "pin_id", 1)
    assert null.ids == (("request_id", "B"), ("user_id", 2), ("pin_id", None))
    assert (null.value, null.num_rows) == ("None", 1)
    assert null.where.endswith(IMPRESSIONS_16)
    assert all(not text.startswith("/") for text in told)


TWO_USERS = shown("A", 2, "15 01:00", 30)
TOO_EARLY = acted(1, 10, "repin", "17 22:00", "18 02:00", "C")


def repeated_and_missing_pins(log: Path) -> None:
    write_tiny_log(log, [*tiny_impressions(), *TWO_USERS], [*tiny_actions(), TOO_EARLY])
    pins = pq.read_table(log / PINS)
    pq.write_table(pa.concat_tables([pins.slice(0, 3), pins.slice(0, 1)]), log / PINS)


def beside_rows_of_nobody(log: Path) -> None:
    """Rows without a user do not count, and the early action's request is the right one yet."""
    rows = [acted(1, 20, "click", "17 01:00", "17 01:00", f"nobody-{n}") for n in range(3)]
    table = pa.Table.from_pylist([*rows, TOO_EARLY], schema=ACTIONS)
    nobody = pa.array([None, None, None, 1], pa.int64())
    table = table.set_column(0, ACTIONS.field(0).with_nullable(True), nobody)
    pq.write_table(table, log / "actions/day=2017-01-17/part-1.parquet")


def beside_a_file_that_cannot_be_read(log: Path) -> None:
    write_tiny_log(log, [*tiny_impressions(), *TWO_USERS])
    folder = log / "impressions/day=2017-01-15"
    (folder / "part-0.parquet").rename(folder / "part-1.parquet")
    (folder / "part-0.parquet").write_bytes(b"no Parquet")


def times_in_some_files(log: Path) -> None:
    rows = pq.read_table(log / PINS)
    pq.write_table(rows.slice(0, 2), log / PINS)
    later = rows.slice(2).append_column("known_at", pa.array([january("01 00:00")] * 3))
    pq.write_table(later, log / "pins/part-1.parquet")


EARLY = "names request 'C', which was shown later"


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (repeated_and_missing_pins, {
            "request_of_two_users": "request 'A' belongs to users 1 and 2",
            "repeated_embedding": "pin 10 has more than one embedding",
            "pin_without_embedding": "1 of 4 pins",
            "action_before_request": "most of them by 2 to 3 h"}),
        (beside_rows_of_nobody, {"action_before_request": EARLY}),
        (beside_a_file_that_cannot_be_read, {
            "request_of_two_users": "request 'A' belongs to users 1 and 2",
            "unreadable": "not a readable Parquet file"}),
        (times_in_some_files, {"pin_times_in_some": "part-0.parquet has no column 'known_at'"}),
    ],
)  # fmt: skip
def test_what_the_kernel_would_refuse_is_found_too(
    log: Path, plant: Callable[[Path], None], says: dict[str, str]
) -> None:
    plant(log)
    found = errors(check_log(str(log), tiny_config()))
    assert all(part in found[rule].message for rule, part in says.items())


def test_without_a_recipe_action_types_are_listed_and_not_judged(log: Path) -> None:
    MISTAKES["an unknown type"].plant(log)
    report = check_log(str(log))
    assert errors(report) == {}
    assert report.total("actions")["hide"] == 1


def test_threads_batches_and_files_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_world(tmp_path / "log", num_days=6, num_users=40)
    whole = list(lines_of(check_log(str(tmp_path / "log"))))
    monkeypatch.setattr(measuring, "BATCH_ROWS", 25)
    for num_workers in (1, 3):
        monkeypatch.setattr(measuring, "usable_cores", lambda num=num_workers: num)
        assert list(lines_of(check_log(str(tmp_path / "log")))) == whole
    for path in list((tmp_path / "log").glob("actions/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        pq.write_table(rows.slice(0, len(rows) // 2), path)
        pq.write_table(rows.slice(len(rows) // 2), path.with_name("part-1.parquet"))
    assert list(lines_of(check_log(str(tmp_path / "log")))) == whole


def test_labels_are_those_of_the_snapshot(log: Path) -> None:
    """The tiny log's examples are worked out by hand in the tests of the kernel's labels."""
    report = check_log(str(log), tiny_config())
    by_day = {day.day: report.of(day, "labelled") for day in report.days_of("impressions")}
    assert by_day[15].get("repin", 0) == 1  # A's first pin; the other came 24 h later
    assert by_day[16] == {"repin": 1, "long_click": 1}  # B's second pin
    # C's two pins: of the second, the log knows only after the tiny snapshot's as_of.
    assert by_day[18].get("repin", 0) == 2
    assert (report.total("named")["all"], report.total("named")["found"]) == (4, 3)
    # The label window of the 18th, the last day with actions, may still bring some.
    assert [day.day for day in report.label_rates()["repin"]] == [14, 15, 16, 17]


@pytest.mark.parametrize("named", ["X", None])
def test_the_label_window_is_half_open(log: Path, named: str | None) -> None:
    times = ((40, "15 01:00"), (50, "16 01:00"))  # at once, and too late
    saves = [acted(2, pin, "save", time, time, named) for pin, time in times]
    impressions = [*tiny_impressions(), *shown("X", 2, "15 01:00", 40, 50)]
    write_tiny_log(log, impressions, [*tiny_actions(), *saves])
    assert check_log(str(log)).total("labelled")["save"] == 1


def test_a_request_of_another_user_is_told_from_an_unknown_one(log: Path) -> None:
    pairs = ((2, "A"), (1, "nowhere"))
    actions = [acted(of, 10, "repin", "15 02:00", "15 02:00", request) for of, request in pairs]
    write_tiny_log(log, tiny_impressions(), actions)
    named = check_log(str(log)).total("named")
    assert (named["in_span"], named["found"], named["of_other_user"]) == (2, 0, 1)


def test_rows_are_counted_over_batches_and_named_by_their_place_in_the_file(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "BATCH_ROWS", 1)
    for pins, place in (([20, None], (1, 1)), ([None, None], (0, 2))):
        rewrite(log, IMPRESSIONS_16, "pin_id", pa.array(pins, pa.int64()))
        null = errors(check_log(str(log)))["null"]
        assert (null.row, null.num_rows) == place


def test_pins_are_told_with_the_texts_that_their_ids_were_made_from(tmp_path: Path) -> None:
    write_own_log(tmp_path / "own", 1, 2)
    path = next((tmp_path / "own/pins").glob("*.parquet"))
    rows = pq.read_table(path)
    some = rows.filter(pc.not_equal(rows["pin_id"], id_of("p1")))
    twice = some.filter(pc.equal(some["pin_id"], id_of("p2")))
    pq.write_table(pa.concat_tables([some, twice]), path)
    told = [text for _, text in told_problems(check_log(str(tmp_path / "own")))]
    for says, name in (("more than one embedding", "p2"), ("first: ", "p1")):
        [text] = [text for text in told if says in text]
        assert text.endswith(f"({id_of(name)} is pin {name!r})")


def test_windows_that_the_log_does_not_reach_are_an_error_for_its_recipe_alone(log: Path) -> None:
    config = tiny_config(holdout_days=1, embargo_days=30)
    found = errors(check_log(str(log), config))["window_without_impressions"]
    assert re.search("no impressions in the training window .* of as_of 2017-01-20", found.message)
    assert "covers 2017-01-14 to 2017-01-19" in found.message
    some_days = check_log(str(log), config, date(2017, 1, 18), date(2017, 1, 19))
    assert "window_without_impressions" not in errors(some_days)


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("known_at", pa.array([january("01 00:00")] * 5), None),
        ("known_at", pa.array([january("01 00:00") // 1000] * 5), "implausible_time"),
        ("known_at", pa.array([january("01 00:00")] * 4 + [None]), "null"),
        ("known_at", pa.array(["2017-01-01"] * 5), "wrong_kind"),
        ("length", pa.array([1] * 5, pa.int32()), None),
        ("length", pa.array(["1"] * 5), "wrong_kind"),
        ("length", pa.array([1.0, 2.0, float("inf"), 1.0, 1.0]), "infinite_number"),
        ("length", None, "missing_column"),
    ],
)
def test_optional_and_declared_columns_of_pins_are_checked_as_well(
    log: Path, column: str, values: pa.Array | None, rule: str | None
) -> None:
    with_pin_times(log, dict.fromkeys((10, 20, 30, 40, 50), "01 00:00"))
    numeric = (NumericFeature(name="pins.length"),) if column == "length" else ()
    rows = pq.read_table(log / PINS)
    rows = rows.drop_columns([column]) if column in rows.column_names else rows
    if values is not None:
        pq.write_table(rows.append_column(column, values), log / PINS)
    found = errors(check_log(str(log), with_features(numeric=numeric)))
    assert list(found) == ([rule] if rule else [])
    if rule:
        assert (found[rule].table, found[rule].column) == ("pins", column)
    if rule == "infinite_number":
        assert (found[rule].row, found[rule].value) == (2, "inf")


NOT_LISTED = "have a value that the recipe does not list:"


@pytest.mark.parametrize(
    ("groups", "severity", "says"),
    [
        ("aaaaa", None, ""),
        ([1, 1, 2, 1, 2], None, ""),  # whole numbers are read as texts
        ("aaaab", NOTE, f"1 of 5 rows (20.00%) {NOT_LISTED} 'b' 1; expected values of"),
        ("aaabb", WARNING, f"2 of 5 rows (40.00%) {NOT_LISTED} 'b' 2;"),
        ("bbcbb", ERROR, f"5 of 5 rows (100.00%) {NOT_LISTED} 'b' 4, 'c' 1;"),
        ([None, "b", None, "a", "a"], WARNING,
         f"3 of 5 rows (60.00%) {NOT_LISTED} null 2, 'b' 1;"),
        ([None] * 5, ERROR, f"5 of 5 rows (100.00%) {NOT_LISTED} null 5;"),
    ],
)  # fmt: skip
def test_values_that_a_feature_does_not_list_are_told_by_their_share(
    log: Path, groups: list, severity: Severity | None, says: str
) -> None:
    """In each table; `state` and `surface` of the tiny log are the same throughout."""
    column = pa.array(list(groups), None if any(groups) else pa.string())
    pq.write_table(pq.read_table(log / PINS).append_column("group", column), log / PINS)
    listed = {("pins", "group"): "a12", ("users", "state"): "n", ("impressions", "surface"): "s"}
    categorical = tuple(
        CategoricalFeature(table=table, name=name, values=tuple(values))
        for (table, name), values in listed.items()
    )
    problems = check_log(str(log), with_features(categorical=categorical)).problems
    told = {p.message.split(": ")[1]: p for p in problems if p.rule == "unlisted_values"}
    assert [told.pop(name).message.split(";")[0] for name in ("surface", "state")] == [
        f"impressions: surface: 11 of 11 rows (100.00%) {NOT_LISTED} 'homefeed' 11",
        f"users: state: 3 of 3 rows (100.00%) {NOT_LISTED} 'core' 3",
    ]
    assert [p.severity for p in told.values()] == ([severity] if severity else [])
    assert all(p.message.startswith(f"pins: group: {says}") for p in told.values())
