from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.time import DAY_MS
from pipelines.sources.parquet import write_days


def test_each_day_with_rows_gets_one_file(tmp_path: Path) -> None:
    times = [0, DAY_MS - 1, 3 * DAY_MS]
    write_days(tmp_path, pa.table({"acted_at": times, "n": [1, 2, 3]}), "acted_at", "00007")
    found = {
        path.relative_to(tmp_path).as_posix(): pq.ParquetFile(path).read()["n"].to_pylist()
        for path in tmp_path.rglob("*.parquet")
    }
    assert found == {
        "day=1970-01-01/part-00007.parquet": [1, 2],
        "day=1970-01-04/part-00007.parquet": [3],
    }


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    write_days(tmp_path, pa.table({"acted_at": pa.array([], pa.int64())}), "acted_at", "0")
    assert list(tmp_path.iterdir()) == []
