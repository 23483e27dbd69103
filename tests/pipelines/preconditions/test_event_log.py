"""What a log cannot feed is listed before anything is built, all of it at once."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.config import CategoricalFeature, Head, NumericFeature, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.event_log.log_files import open_event_log
from pipelines.preconditions import cycle
from pipelines.preconditions.cycle import Asked, Glimpse, ask_event_log, ask_fed
from pipelines.settings import Settings
from pipelines.storage import to_uri
from support.mistakes import PINS, USERS
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
    asked = Asked.beforehand(config, Settings(event_log=str(folder)), as_of, as_of)
    try:
        ask_event_log(asked)
        ask_fed(asked)
    except DataContractError as error:
        return list(error.problems)
    return []


def with_displays(folder: Path) -> None:
    """Give all days but the first the column, as one that came in mid-life has it."""
    for day, rows in ((16, 2), (17, 1), (18, 4), (19, 1)):
        path = folder / f"impressions/day=2017-01-{day}/part-0.parquet"
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("display", pa.array(["A"] * rows)), path)


def some_pins_with_times(folder: Path) -> None:
    rows = pq.read_table(folder / PINS)
    times = pa.array([1_480_000_000_000] * len(rows))
    pq.write_table(rows.append_column("known_at", times), folder / "pins/part-1.parquet")


def nothing(folder: Path) -> None:
    """Leave the log as it is."""


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (nothing, recipe(), []),
        (nothing, recipe(heads=(REPIN, SAVE)), [
            "head 'save' predicts action type 'save', which no action from 2016-12-17 to "
            "2017-01-20 has; found ['click', 'long_click', 'repin']; correct the head, or add "
            "these actions to the log"]),
        (nothing, recipe(action_types=("repin", "long_click")), [
            "actions/day=2017-01-09/part-0.parquet, which is not in features"]),
        (nothing, recipe(version="planted-2"), [
            "is 'planted-2', and no pin has an embedding of it; found ['planted-1']"]),
        (nothing, recipe(numeric=(NumericFeature(name="pins.price"),)), [
            "missing column 'price' (declared as features by the recipe)"]),
        (some_pins_with_times, recipe(), ["part-0.parquet has no column 'known_at'"]),
        (with_displays, recipe(categorical=(DISPLAY,)), [
            "day=2017-01-15/part-0.parquet: missing column 'display'"]),
        (lambda folder: rewrite(folder, USERS, "state", None),
         recipe(version="planted-2", heads=(REPIN, SAVE), categorical=(DISPLAY,)),
         ["'display'", "'state'", "'save'", "'planted-2'"]),
        (lambda folder: [(folder / path).unlink() for path in (PINS, USERS)], recipe(),
         ["has no table 'pins'", "has no table 'users'"]),
        (lambda folder: (folder / ACTIONS_15).write_bytes(b"PAR1 no more"), recipe(), [
            f"{ACTIONS_15} is not a readable Parquet file"]),
    ],
)  # fmt: skip
def test_all_that_a_log_lacks_is_listed(
    folder: Path, change: Callable[[Path], object], config: RunConfig, says: list[str]
) -> None:
    change(folder)
    found = problems(folder, config)
    assert len(found) == len(says)
    assert all(part in problem for part, problem in zip(says, found, strict=True))
    assert len(found) > 1 or not any("more files" in problem for problem in found)


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


def test_days_without_a_log_are_all_that_is_said(folder: Path) -> None:
    far = TINY_AS_OF + timedelta(days=30)
    [problem] = problems(folder, recipe(version="none", categorical=(DISPLAY,)), far)
    assert "no impressions in the training window" in problem
    assert "covers 2017-01-14 to 2017-01-19" in problem


@pytest.fixture
def seen(folder: Path) -> Glimpse:
    late = acted(1, 30, "hide", "18 00:30", "20 00:00")  # known at as_of, not before
    write_tiny_log(folder, actions=[*tiny_actions(), late])
    return look(folder)


def look(folder: Path, as_of: str = "20 00:00") -> Glimpse:
    return Glimpse(open_event_log(to_uri(folder)), january(as_of))


def test_texts_are_those_of_known_rows_in_the_files_asked_for(folder: Path, seen: Glimpse) -> None:
    files = seen.event_log.files_of("actions")
    assert set(seen.texts(files)) == {"repin", "click", "long_click"}
    of_17 = [file for file in files if file.day and file.day.day == 17]
    assert seen.texts(of_17) == dict.fromkeys(("repin", "long_click"), of_17[0])
    assert set(look(folder, "20 00:01").texts(files)) == {"repin", "click", "long_click", "hide"}
    write_rows(folder / "more", "pins", pins_of([60], "planted-2"))
    (folder / "more" / PINS).rename(folder / "pins/part-1.parquet")
    rewrite(folder, PINS, "embedding_version", pa.array(["planted-1"] * 5).dictionary_encode())
    again = look(folder)
    assert set(again.texts(again.event_log.files_of("pins"))) == {"planted-1", "planted-2"}


def test_each_file_is_read_once_and_in_parts(
    folder: Path, seen: Glimpse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "_BATCH_ROWS", 2)
    kinds = [f"kind-{n}" for n in range(5)]
    actions = [acted(1, 10, kind, "15 01:00", "15 01:00") for kind in kinds]
    actions.append(acted(1, 10, "late", "15 01:00", "20 01:00"))
    write_tiny_log(folder, actions=actions)
    read, known = [], cycle.iterate_batches
    seen_by = lambda *given: read.append(given[2]) or known(*given)  # noqa: E731
    monkeypatch.setattr(cycle, "iterate_batches", seen_by)
    files = look(folder).event_log.files_of("actions")
    assert [set(seen.texts(files)) for _ in range(2)] == [set(kinds)] * 2
    assert read == [["action_type"]] * len(files)


def test_what_is_wrong_with_columns_is_said_once_for_files_alike(
    folder: Path, seen: Glimpse
) -> None:
    files = seen.event_log.files_of("impressions")
    assert seen.column_problems(files, ()) == []
    [problem] = seen.column_problems(files, ["display"])
    assert problem.startswith(files[0].path)
    assert problem.endswith(f"(and {len(files) - 1} more files)")
    rewrite(folder, IMPRESSIONS_15, "pin_id", pa.array(["10", "20"]))
    [problem] = look(folder).column_problems(files, ())
    assert "column 'pin_id' is string; expected int64" in problem and "more files" not in problem
