"""What a log cannot feed is listed before anything is built, all of it at once."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import CategoricalFeature, Head, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.event_log.log_files import open_event_log
from pipelines.preconditions import event_log
from pipelines.preconditions.event_log import Glimpse, look_at, require_fed
from pipelines.storage import to_uri
from support.tiny_log import (
    ACTIONS_15,
    IMPRESSIONS_15,
    TINY_AS_OF,
    acted,
    days_before,
    january,
    pins_of,
    rewrite,
    tiny_actions,
    tiny_config,
    write_tiny_log,
)
from support.worlds import write_rows

REPIN = Head(name="repin", action_type="repin", utility_weight=1.0)
SAVE = Head(name="save", action_type="save", utility_weight=0.0)
DISPLAY = CategoricalFeature(name="display", table="impressions", values=("A",))
TYPES = ("repin", "click", "long_click", "save")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_log(tmp_path)
    return tmp_path


def recipe(version: str = "planted-1", **features: Any) -> RunConfig:
    """Return a recipe of the tiny log, whose only head is repin."""
    base = tiny_config(embedding_version=version)
    chosen = {"action_types": TYPES, "heads": (REPIN,), **features}
    return base.model_copy(update={"features": base.features.model_copy(update=chosen)})


def problems(folder: Path, config: RunConfig, as_of: datetime = TINY_AS_OF) -> list[str]:
    try:
        require_fed(config, look_at(to_uri(folder), as_of), as_of)
    except DataContractError as error:
        return list(error.problems)
    return []


def test_a_log_that_has_everything_has_no_problem(folder: Path) -> None:
    assert problems(folder, recipe()) == []


def test_what_is_wrong_with_where_files_lie_is_told_at_once(folder: Path) -> None:
    for path in ("pins/part-0.parquet", "users/part-0.parquet"):
        (folder / path).unlink()
    pins, users = problems(folder, recipe())
    assert "has no table 'pins'" in pins and "has no table 'users'" in users
    assert "correct HOMEFEED_EVENT_LOG" in pins


def test_a_head_that_the_log_never_shows_is_named(folder: Path) -> None:
    [problem] = problems(folder, recipe(heads=(REPIN, SAVE)))
    assert problem == (
        "head 'save' predicts action type 'save', which no action from 2016-12-17 to 2017-01-20 "
        "has; found ['click', 'long_click', 'repin']; correct the head, or add these actions to "
        "the log"
    )


def test_a_head_counts_only_in_days_that_are_read_and_rows_that_are_known(tmp_path: Path) -> None:
    config = recipe(heads=(REPIN, SAVE))
    # The first day that is read is 17 December: popularity looks back 28 days from training.
    early = days_before(acted(1, 30, "save", "08 23:59", "09 00:00"), 23)
    late = acted(1, 30, "save", "18 00:30", "20 00:00")  # known at as_of, not before
    write_tiny_log(tmp_path, actions=[*tiny_actions(), early, late])
    assert len(problems(tmp_path, config)) == 1
    within = days_before(acted(1, 30, "save", "09 00:00", "09 00:01"), 23)
    write_tiny_log(tmp_path, actions=[*tiny_actions(), within])
    assert problems(tmp_path, config) == []


def test_an_action_type_that_reading_would_refuse_is_named_with_its_file(folder: Path) -> None:
    [problem] = problems(folder, recipe(action_types=("repin", "long_click")))
    assert "the log has actions of type 'click', first in" in problem
    assert "actions/day=2017-01-09/part-0.parquet, which is not in features" in problem


def test_an_embedding_version_that_no_pin_has_is_named(folder: Path) -> None:
    [problem] = problems(folder, recipe(version="planted-2"))
    assert "is 'planted-2', and no pin has an embedding of it; found ['planted-1']" in problem


def test_pins_of_which_some_files_have_times_are_named(folder: Path) -> None:
    rows = pq.read_table(folder / "pins/part-0.parquet")
    times = pa.array([1_480_000_000_000] * len(rows))
    pq.write_table(rows.append_column("known_at", times), folder / "pins/part-1.parquet")
    [problem] = problems(folder, recipe())
    assert "part-0.parquet has no column 'known_at'" in problem


def test_a_column_that_came_in_mid_life_lacks_in_the_days_before(folder: Path) -> None:
    for day, rows in ((16, 2), (17, 1), (18, 4), (19, 1)):
        place = f"impressions/day=2017-01-{day}/part-0.parquet"
        path = folder / place
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("display", pa.array(["A"] * rows)), path)
    [problem] = problems(folder, recipe(categorical=(DISPLAY,)))
    assert "day=2017-01-15/part-0.parquet: missing column 'display'" in problem
    assert "more files" not in problem


def test_days_without_a_log_are_all_that_is_said(folder: Path) -> None:
    far = TINY_AS_OF + timedelta(days=30)
    [problem] = problems(folder, recipe(version="none", categorical=(DISPLAY,)), far)
    assert "no impressions in the training window" in problem
    assert "covers 2017-01-14 to 2017-01-19" in problem


def test_everything_is_refused_at_once(folder: Path) -> None:
    rewrite(folder, "users/part-0.parquet", "state", None)
    config = recipe(version="planted-2", heads=(REPIN, SAVE), categorical=(DISPLAY,))
    with pytest.raises(DataContractError) as caught:
        require_fed(config, look_at(to_uri(folder), TINY_AS_OF), TINY_AS_OF)
    first, *lines = str(caught.value).splitlines()
    assert first == f"the event log at {to_uri(folder)} cannot feed recipe smoke as of 2017-01-20:"
    assert [line.partition(" ")[0] for line in lines] == ["-"] * 4
    for line, part in zip(lines, ("'display'", "'state'", "'save'", "'planted-2'"), strict=True):
        assert part in line


@pytest.fixture
def seen_folder(tmp_path: Path) -> Path:
    late = acted(1, 30, "hide", "18 00:30", "20 00:00")  # known at as_of, not before
    write_tiny_log(tmp_path, actions=[*tiny_actions(), late])
    return tmp_path


def look(folder: Path) -> Glimpse:
    return Glimpse(open_event_log(to_uri(folder)), january("20 00:00"))


def test_action_types_are_those_of_known_rows_in_the_files_asked_for(seen_folder: Path) -> None:
    seen = look(seen_folder)
    files = seen.event_log.files_of("actions")
    assert set(seen.texts(files)) == {"repin", "click", "long_click"}
    of_17 = [file for file in files if file.day and file.day.day == 17]
    shown = seen.texts(of_17)
    assert {name: file.day for name, file in shown.items()} == {
        "repin": of_17[0].day,
        "long_click": of_17[0].day,
    }
    later = Glimpse(seen.event_log, january("20 00:01"))
    assert set(later.texts(files)) == {"repin", "click", "long_click", "hide"}


def test_each_file_is_read_once(seen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, known = [], event_log.iterate_batches
    seen_by = lambda *given: read.append(given[2]) or known(*given)  # noqa: E731
    monkeypatch.setattr(event_log, "iterate_batches", seen_by)
    seen = look(seen_folder)
    files, pins = (seen.event_log.files_of(table) for table in ("actions", "pins"))
    for _ in range(2):
        seen.texts(files)
        assert set(seen.texts(pins)) == {"planted-1"}
    assert read == [["action_type"]] * len(files) + [["embedding_version"]]


def test_versions_are_those_of_all_files_also_as_a_dictionary(seen_folder: Path) -> None:
    pins = pins_of([60], "planted-2")
    write_rows(seen_folder / "more", "pins", pins)
    (seen_folder / "more/pins/part-0.parquet").rename(seen_folder / "pins/part-1.parquet")
    versions = pa.array(["planted-1"] * 5).dictionary_encode()
    rewrite(seen_folder, "pins/part-0.parquet", "embedding_version", versions)
    seen = look(seen_folder)
    assert set(seen.texts(seen.event_log.files_of("pins"))) == {"planted-1", "planted-2"}


def test_what_is_wrong_with_columns_is_said_once_for_files_alike(seen_folder: Path) -> None:
    seen = look(seen_folder)
    files = seen.event_log.files_of("impressions")
    assert seen.column_problems(files, ()) == []
    [problem] = seen.column_problems(files, ["display"])
    assert "missing column 'display' (declared as features by the recipe)" in problem
    assert problem.startswith(files[0].path)
    assert problem.endswith(f"(and {len(files) - 1} more files)")
    rewrite(seen_folder, IMPRESSIONS_15, "pin_id", pa.array(["10", "20"]))
    [problem] = look(seen_folder).column_problems(files, ())
    assert "column 'pin_id' is string; expected int64" in problem and "more files" not in problem


def test_a_large_file_is_read_in_parts_and_all_its_types_are_found(
    seen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_BATCH_ROWS", 2)
    kinds = [f"kind-{n}" for n in range(5)]
    actions = [acted(1, 10, kind, "15 01:00", "15 01:00") for kind in kinds]
    actions.append(acted(1, 10, "late", "15 01:00", "20 01:00"))
    write_tiny_log(seen_folder, actions=actions)
    seen = look(seen_folder)
    assert set(seen.texts(seen.event_log.files_of("actions"))) == set(kinds)


def test_the_pins_optional_times_and_declared_numbers_are_columns_too(seen_folder: Path) -> None:
    rows = pins_of([10]).append_column("known_at", pa.array(["2017-01-01"]))
    write_rows(seen_folder, "pins", rows)
    seen = look(seen_folder)
    files = seen.event_log.files_of("pins")
    assert "column 'known_at' is string" in seen.column_problems(files, ())[0]
    price, weight, _ = seen.column_problems(files, (), ["price", "weight"])
    assert "missing column 'price' (declared as features by the recipe)" in price
    assert "missing column 'weight'" in weight


def test_a_damaged_file_is_named_and_ends_nothing(seen_folder: Path) -> None:
    (seen_folder / ACTIONS_15).write_bytes(b"PAR1 no more")
    seen = look(seen_folder)
    files = seen.event_log.files_of("actions")
    assert set(seen.texts(files)) == {"repin", "click", "long_click"}
    [problem] = seen.column_problems(files, ())
    assert ACTIONS_15 in problem and "is not a readable Parquet file" in problem
