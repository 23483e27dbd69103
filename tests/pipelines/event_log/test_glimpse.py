"""What a log shows at a glance is what its known rows hold, and no more is read than was asked."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.event_log import glimpse
from pipelines.event_log.glimpse import Glimpse
from pipelines.event_log.log_files import open_event_log
from pipelines.storage import to_uri
from support.tiny_log import (
    ACTIONS_15,
    IMPRESSIONS_15,
    acted,
    january,
    pins_of,
    rewrite,
    tiny_actions,
    write_tiny_log,
)
from support.worlds import write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    late = acted(1, 30, "hide", "18 00:30", "20 00:00")  # known at as_of, not before
    write_tiny_log(tmp_path, actions=[*tiny_actions(), late])
    return tmp_path


def look(folder: Path) -> Glimpse:
    return Glimpse(open_event_log(to_uri(folder)), january("20 00:00"))


def test_action_types_are_those_of_known_rows_in_the_files_asked_for(folder: Path) -> None:
    seen = look(folder)
    files = seen.event_log.files_of("actions")
    assert set(seen.action_types(files)) == {"repin", "click", "long_click"}
    of_17 = [file for file in files if file.day and file.day.day == 17]
    shown = seen.action_types(of_17)
    assert {name: file.day for name, file in shown.items()} == {
        "repin": of_17[0].day,
        "long_click": of_17[0].day,
    }
    later = Glimpse(seen.event_log, january("20 00:01"))
    assert set(later.action_types(files)) == {"repin", "click", "long_click", "hide"}


def test_each_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, known = [], glimpse.iterate_batches
    seen_by = lambda *given: read.append(given[2]) or known(*given)  # noqa: E731
    monkeypatch.setattr(glimpse, "iterate_batches", seen_by)
    seen = look(folder)
    files = seen.event_log.files_of("actions")
    for _ in range(2):
        seen.action_types(files)
        assert seen.embedding_versions == {"planted-1"}
    assert read == [["action_type"]] * len(files) + [["embedding_version"]]


def test_versions_are_those_of_all_files_also_as_a_dictionary(folder: Path) -> None:
    pins = pins_of([60], "planted-2")
    write_rows(folder / "more", "pins", pins)
    (folder / "more/pins/part-0.parquet").rename(folder / "pins/part-1.parquet")
    versions = pa.array(["planted-1"] * 5).dictionary_encode()
    rewrite(folder, "pins/part-0.parquet", "embedding_version", versions)
    assert look(folder).embedding_versions == {"planted-1", "planted-2"}


def test_what_is_wrong_with_columns_is_said_once_for_files_alike(folder: Path) -> None:
    seen = look(folder)
    files = seen.event_log.files_of("impressions")
    assert seen.column_problems(files, ()) == []
    [problem] = seen.column_problems(files, ["display"])
    assert "missing column 'display' (declared as features by the recipe)" in problem
    assert problem.startswith(files[0].path)
    assert problem.endswith(f"(and {len(files) - 1} more files)")
    rewrite(folder, IMPRESSIONS_15, "pin_id", pa.array(["10", "20"]))
    [problem] = look(folder).column_problems(files, ())
    assert "column 'pin_id' is string; expected int64" in problem and "more files" not in problem


def test_a_large_file_is_read_in_parts_and_all_its_types_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glimpse, "_BATCH_ROWS", 2)
    kinds = [f"kind-{n}" for n in range(5)]
    actions = [acted(1, 10, kind, "15 01:00", "15 01:00") for kind in kinds]
    actions.append(acted(1, 10, "late", "15 01:00", "20 01:00"))
    write_tiny_log(folder, actions=actions)
    seen = look(folder)
    assert set(seen.action_types(seen.event_log.files_of("actions"))) == set(kinds)


def test_the_pins_optional_times_and_declared_numbers_are_columns_too(folder: Path) -> None:
    rows = pins_of([10]).append_column("known_at", pa.array(["2017-01-01"]))
    write_rows(folder, "pins", rows)
    seen = look(folder)
    files = seen.event_log.files_of("pins")
    assert "column 'known_at' is string" in seen.column_problems(files, ())[0]
    price, weight, _ = seen.column_problems(files, (), ["price", "weight"])
    assert "missing column 'price' (declared as features by the recipe)" in price
    assert "missing column 'weight'" in weight


def test_a_damaged_file_is_named_and_ends_nothing(folder: Path) -> None:
    (folder / ACTIONS_15).write_bytes(b"PAR1 no more")
    seen = look(folder)
    files = seen.event_log.files_of("actions")
    assert set(seen.action_types(files)) == {"repin", "click", "long_click"}
    [problem] = seen.column_problems(files, ())
    assert ACTIONS_15 in problem and "is not a readable Parquet file" in problem
