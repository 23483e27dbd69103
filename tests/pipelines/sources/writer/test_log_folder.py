"""A folder of tables tells what it holds."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log import log_files
from pipelines.event_log.record import EventLogRecord, Vectors
from pipelines.sources.writer import log_folder
from support.own_tables import record_of, write_own_log
from support.tiny_log import january, pins_of, tiny_actions, tiny_impressions, users_of


def shown() -> pa.Table:
    rows = pa.Table.from_pylist(tiny_impressions(), schema=IMPRESSIONS)
    return rows.sort_by([("impressed_at", "ascending")])


def test_a_record_counts_what_was_added(tmp_path: Path) -> None:
    for table, rows, part in (
        ("impressions", shown().append_column("tone", [["x"] * len(shown())]), "a"),
        ("impressions", shown().slice(0, 2), "b"),
        ("actions", pa.Table.from_pylist(tiny_actions()[:1], schema=ACTIONS), "a"),
        ("pins", pins_of([1, 2]), "a"),
        ("users", users_of([(1, january("10 00:00"))]), "a"),
    ):
        log_folder.write_table(tmp_path / "log", table, rows, part)
    record = log_folder.record_of(tmp_path / "log", "mine-3")
    assert (record.made_by, record.generation) == ("mine-3", 1)
    assert record.num_rows == {"impressions": 13, "actions": 1, "pins": 2, "users": 1}
    assert list(record.days["impressions"].items())[:2] == [("2017-01-14", 2), ("2017-01-15", 3)]
    assert record.extra_columns["impressions"] == {"tone": "string"}
    assert record.embedding_versions == {"planted-1": Vectors(embedding_dim=32, type="float32")}
    assert record.user_embeddings == Vectors(embedding_dim=32, type="float32")
    found = (path.relative_to(tmp_path / "log").as_posix() for path in tmp_path.rglob("*.parquet"))
    assert sorted(found) == list(record.files)


def test_a_log_whose_record_is_replaced_while_it_is_listed_is_to_be_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_log(tmp_path / "log", 5)
    record, reads = record_of(tmp_path / "log"), []

    def read_replaced(uri: str, kind: type[EventLogRecord]) -> EventLogRecord:
        reads.append(uri)
        return record.model_copy(update={"generation": len(reads)})

    monkeypatch.setattr(log_files, "read_model", read_replaced)
    with pytest.raises(
        TransientStorageError,
        match="changed while its files were listed: event_log.json was replaced.*then retry",
    ):
        log_files.open_event_log(str(tmp_path / "log"))


def test_each_day_with_rows_gets_one_file(tmp_path: Path) -> None:
    times = [0, DAY_MS - 1, 3 * DAY_MS]
    rows = pa.table({"acted_at": times, "n": [1, 2, 3]})
    log_folder.write_table(tmp_path, "actions", rows, "00007")
    found = {
        path.relative_to(tmp_path).as_posix(): pq.ParquetFile(path).read()["n"].to_pylist()
        for path in tmp_path.rglob("*.parquet")
    }
    assert found == {
        "actions/day=1970-01-01/part-00007.parquet": [1, 2],
        "actions/day=1970-01-04/part-00007.parquet": [3],
    }
