"""What the writer holds in memory, and how many rows a file gets, whatever their width."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import EventLogWriter
from pipelines.sources.writer import assemble
from support.own_tables import VERSION, acted_on, pins, shown_on, write_own_log


def test_of_the_log_s_names_only_those_that_came_again_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins(0, 500))
        writer.impressions(shown_on(2))
        writer.actions(acted_on(2))
    held: list[int] = []

    def check(place: str, column: str, names: pa.Table) -> None:
        held.append(len(names))

    monkeypatch.setattr(assemble, "check_collisions", check)
    with EventLogWriter(tmp_path / "log", VERSION) as writer:
        writer.pins(pins(500, 503))
        writer.actions(acted_on(3))
    assert sorted(held) == [2, 5]  # users u0 and u1; pins p1, p2 and three new ones
    names = pq.read_table(tmp_path / "log" / "names" / "pins")["name"].to_pylist()
    assert sorted(names) == sorted(f"p{number}" for number in range(503))


def test_files_of_wide_events_have_fewer_rows_however_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "MAX_BYTES", 4000)
    shown = shown_on(2, num_requests=20).assign(text="x" * 900, position=0)
    contents = []
    for step in (1, 7, len(shown)):
        log = tmp_path / str(step)
        with EventLogWriter(log, VERSION) as writer:
            for start in range(0, len(shown), step):
                writer.impressions(shown.iloc[start : start + step])
            writer.actions(acted_on(2))
            writer.pins(pins())
        found = sorted(log.rglob("*.*"))
        contents.append({path.relative_to(log): path.read_bytes() for path in found})
        rows = [pq.read_metadata(path).num_rows for path in (log / "impressions").rglob("*.*")]
        assert sum(rows) == len(shown) and max(rows) <= 4
    assert contents[0] == contents[1] == contents[2]


def test_narrow_rows_fill_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "MAX_FILE_ROWS", 9)
    write_own_log(tmp_path / "log", 2, 3)
    files = sorted((tmp_path / "log" / "impressions").rglob("*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in files] == [9, 9]
