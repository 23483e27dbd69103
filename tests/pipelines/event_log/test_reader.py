"""Bad event logs: each is refused with the table, the file, what was found and what to change."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import CategoricalFeature, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.event_log.reader import open_event_log
from pipelines.snapshot.build import build_snapshot
from pipelines.storage import list_names, to_uri
from support.runs import make_run
from support.tiny_log import (
    TINY_AS_OF,
    acted,
    january,
    pins_of,
    rewrite,
    tiny_actions,
    tiny_config,
    tiny_impressions,
    users_of,
    write_tiny_log,
)
from support.worlds import write_rows

IMPRESSIONS_15 = "impressions/day=2017-01-15/part-0.parquet"
ACTIONS_15 = "actions/day=2017-01-15/part-0.parquet"


def build(folder: Path, as_of: datetime = TINY_AS_OF, config: RunConfig | None = None) -> Snapshot:
    return build_snapshot(make_run(folder, config or tiny_config(), as_of))


def assert_refused(folder: Path, pattern: str, **arguments: object) -> None:
    """Check that the snapshot is refused for this reason and that nothing was published."""
    with pytest.raises(DataContractError, match=pattern) as caught:
        build(folder, **arguments)  # type: ignore[arg-type]
    assert caught.value.exit_code == 65
    assert not caught.value.is_retryable
    assert list_names(to_uri(folder / "workspace" / "snapshots")) == []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path / "event_log")
    return tmp_path / "event_log"


def test_a_missing_log_names_the_place_and_the_command(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"no event log at file://.*/event_log: .*homefeed ingest")


def test_an_empty_log_is_missing(tmp_path: Path) -> None:
    (tmp_path / "event_log").mkdir()
    assert_refused(tmp_path, "the folder is missing or empty")


@pytest.mark.parametrize("table", ["impressions", "actions", "pins", "users"])
def test_a_missing_table_is_named(log: Path, table: str) -> None:
    shutil.rmtree(log / table)
    assert_refused(log.parent, f"has no table '{table}'")


@pytest.mark.parametrize(
    ("file", "column"),
    [
        (IMPRESSIONS_15, "request_id"),
        (IMPRESSIONS_15, "known_at"),
        (ACTIONS_15, "action_type"),
        ("pins/part-0.parquet", "embedding"),
        ("users/part-0.parquet", "as_of"),
    ],
)
def test_a_missing_column_is_named_with_its_file(log: Path, file: str, column: str) -> None:
    rewrite(log, file, column, None)
    assert_refused(log.parent, rf"{re.escape(file)}: missing column '{column}'; found \[")


@pytest.mark.parametrize(
    ("file", "column", "values", "found"),
    [
        (IMPRESSIONS_15, "user_id", pa.array(["1", "1"]), "string; expected int64"),
        (IMPRESSIONS_15, "pin_id", pa.array([10.0, 20.0]), "double; expected int64"),
        (
            IMPRESSIONS_15,
            "impressed_at",
            pa.array([january("15 00:00")] * 2, pa.timestamp("ms")),
            r"timestamp\[ms\]; expected int64 milliseconds since the epoch",
        ),
        (IMPRESSIONS_15, "is_exploration", pa.array([0, 1]), "int64; expected bool"),
        (ACTIONS_15, "action_type", pa.array([1]), "int64; expected string"),
        ("pins/part-0.parquet", "embedding", pa.array(["x"] * 5), "string; expected fixed_size"),
    ],
)
def test_a_wrong_type_is_refused(
    log: Path, file: str, column: str, values: pa.Array, found: str
) -> None:
    rewrite(log, file, column, values)
    assert_refused(log.parent, rf"{re.escape(file)}: column '{column}' is {found}")


def test_other_widths_of_the_same_kind_are_cast(log: Path) -> None:
    expected = build(log.parent).digest
    for path in sorted(log.glob("impressions/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        rows = rows.set_column(1, "user_id", rows["user_id"].cast(pa.int32()))
        rows = rows.set_column(5, "position", rows["position"].cast(pa.int64()))
        rows = rows.set_column(6, "surface", rows["surface"].dictionary_encode())
        pq.write_table(rows, path)
    pins = pq.read_table(log / "pins" / "part-0.parquet")
    lists = pins["embedding"].cast(pa.list_(pa.float64()))
    pq.write_table(pins.set_column(2, "embedding", lists), log / "pins" / "part-0.parquet")
    assert build(log.parent).digest == expected


def test_a_value_too_wide_is_refused(log: Path) -> None:
    rewrite(log, IMPRESSIONS_15, "position", pa.array([0, 70_000]))
    assert_refused(log.parent, "'position' .* does not fit int16")


def test_an_embedding_of_another_length_is_refused(log: Path) -> None:
    rewrite(log, "pins/part-0.parquet", "embedding", pa.array([[0.5] * 31] * 5))
    assert_refused(log.parent, r"pins/part-0\.parquet: column 'embedding' .* does not fit")


@pytest.mark.parametrize(
    ("file", "column", "values"),
    [
        (IMPRESSIONS_15, "pin_id", pa.array([10, None], pa.int64())),
        (IMPRESSIONS_15, "known_at", pa.array([january("15 00:00"), None], pa.int64())),
        (ACTIONS_15, "acted_at", pa.array([None], pa.int64())),
        ("pins/part-0.parquet", "pin_id", pa.array([10, 20, 30, 40, None], pa.int64())),
    ],
)
def test_a_null_where_none_may_be_is_refused(
    log: Path, file: str, column: str, values: pa.Array
) -> None:
    rewrite(log, file, column, values)
    assert_refused(log.parent, rf"{re.escape(file)}: column '{column}' has 1 nulls")


def test_an_unknown_action_type_is_named(log: Path) -> None:
    rewrite(log, ACTIONS_15, "action_type", pa.array(["hide"]))
    assert_refused(log.parent, rf"{re.escape(ACTIONS_15)}: unknown action type 'hide'.*'repin'")


@pytest.mark.parametrize(
    ("factor", "unit"), [(0.001, "seconds"), (1000, "microseconds"), (1_000_000, "nanoseconds")]
)
def test_times_in_another_unit_are_recognised(log: Path, factor: float, unit: str) -> None:
    for column in ("impressed_at", "known_at"):
        rewrite(log, IMPRESSIONS_15, column, pa.array([int(january("15 00:00") * factor)] * 2))
    assert_refused(log.parent, rf"{re.escape(IMPRESSIONS_15)}: .*looks like {unit}")


def test_a_partition_of_1970_asks_for_the_unit(log: Path) -> None:
    (log / "impressions" / "day=2017-01-15").rename(log / "impressions" / "day=1970-01-18")
    assert_refused(log.parent, "year 1970.*seconds.*instead of milliseconds")


def test_a_row_in_another_days_partition_is_refused(log: Path) -> None:
    (log / "actions" / "day=2017-01-15").rename(log / "actions" / "day=2017-01-14")
    assert_refused(log.parent, "in the partition day=2017-01-14; expected")


def test_a_file_outside_a_day_folder_is_refused(log: Path) -> None:
    shutil.copy(log / ACTIONS_15, log / "actions" / "loose.parquet")
    with pytest.raises(DataContractError, match="not in a day=YYYY-MM-DD folder"):
        open_event_log(to_uri(log))


def test_known_before_it_happened_is_refused(log: Path) -> None:
    rewrite(log, ACTIONS_15, "known_at", pa.array([january("14 00:00")]))
    assert_refused(
        log.parent, rf"{re.escape(ACTIONS_15)}: 1 of 1 rows have acted_at after known_at"
    )


@pytest.mark.parametrize("day", [20, 23])
def test_an_event_dated_after_as_of_and_known_before_is_refused(log: Path, day: int) -> None:
    early = acted(1, 10, "repin", f"{day} 08:00", f"{day} 08:00") | {
        "known_at": january("19 08:00")
    }
    write_tiny_log(log, actions=[*tiny_actions(), early])
    assert_refused(
        log.parent, f"1 rows of .*day=2017-01-{day}.* happen at or after as_of 2017-01-20"
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("table", ["pins", "users"])
def test_a_number_that_is_none_in_an_embedding_is_refused(
    log: Path, table: str, number: float | None
) -> None:
    path = log / table / "part-0.parquet"
    lists = pq.read_table(path)["embedding"].to_pylist()
    lists[1][7] = number
    rewrite(
        log, f"{table}/part-0.parquet", "embedding", pa.array(lists, pa.list_(pa.float32(), 32))
    )
    key = "pin_id=20" if table == "pins" else "user_id=1"
    assert_refused(
        log.parent, rf"{table}/part-0\.parquet: embedding of {key} has a null, NaN or infinite"
    )


def test_a_missing_embedding_version_lists_what_is_there(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 30, 40], version="other-7"))
    assert_refused(
        log.parent, r"no embedding of version 'planted-1'.*found the versions \['other-7'\]"
    )


def test_a_pin_without_embedding_is_named(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 40]))
    assert_refused(log.parent, "1 of 4 pins .* have no embedding of version 'planted-1', first: 30")


def test_a_pin_with_two_embeddings_is_named(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 20, 30, 40]))
    assert_refused(log.parent, "pin 20 has more than one embedding")


def test_two_rows_of_a_user_for_one_as_of_are_refused(log: Path) -> None:
    write_rows(log, "users", users_of([(1, january("10 00:00"))] * 2))
    assert_refused(log.parent, "user 1 has more than one row of as_of=")


def test_a_declared_feature_without_its_column_is_named(log: Path) -> None:
    config = tiny_config()
    feature = CategoricalFeature(name="mailer", table="impressions", values=("A",))
    features = config.features.model_copy(update={"categorical": (feature,)})
    assert_refused(
        log.parent,
        "missing column 'mailer' .declared as features by the recipe",
        config=config.model_copy(update={"features": features}),
    )


@pytest.mark.parametrize(
    "as_of", [datetime(2016, 6, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)]
)
def test_an_as_of_outside_the_log_says_what_it_covers(log: Path, as_of: datetime) -> None:
    assert_refused(log.parent, "covers 2017-01-14 to 2017-01-19; choose an as_of", as_of=as_of)


def test_rows_that_all_became_known_too_late_leave_an_empty_window(log: Path) -> None:
    late = [row | {"known_at": january("25 00:00")} for row in tiny_impressions()]
    write_tiny_log(log, impressions=late)
    assert_refused(
        log.parent, "no impressions known before as_of 2017-01-20 in the training window"
    )


@pytest.mark.parametrize(("request_id", "window"), [("C", "holdout"), ("A", "training")])
def test_a_window_without_positives_is_refused(log: Path, request_id: str, window: str) -> None:
    actions = [a for a in tiny_actions() if a["request_id"] != request_id and a["user_id"] == 1]
    write_tiny_log(log, actions=actions)
    assert_refused(log.parent, f"no impression in the {window} window .* got a 'repin' within 24 h")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _scramble(path: Path) -> None:
    """Damage the pages and leave the footer whole."""
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _scramble, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", [IMPRESSIONS_15, "pins/part-0.parquet", "users/part-0.parquet"])
def test_a_corrupt_file_is_named(log: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(log / file)
    assert_refused(log.parent, rf"{re.escape(file)} is not a readable Parquet file")


def test_hidden_and_unfinished_files_are_passed_over(log: Path) -> None:
    expected = build(log.parent).digest
    (log / "impressions" / "day=2017-01-15" / "_SUCCESS").write_text("")
    (log / "impressions" / "day=2017-01-15" / ".part-1.parquet").write_text("unfinished")
    assert build(log.parent).digest == expected


def test_several_files_of_a_day_are_one_day(log: Path) -> None:
    expected = build(log.parent).digest
    path = log / IMPRESSIONS_15
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.slice(1), path.with_name("part-1.parquet"))
    pq.write_table(rows.slice(0, 1), path)
    assert build(log.parent).digest == expected


def test_days_are_listed_from_the_folders(log: Path) -> None:
    listed = open_event_log(to_uri(log))
    assert [str(file.day) for file in listed.files_of("impressions")][:2] == [
        "2017-01-14",
        "2017-01-15",
    ]
    assert [str(day) for day in listed.span("actions")] == ["2017-01-09", "2017-01-18"]
