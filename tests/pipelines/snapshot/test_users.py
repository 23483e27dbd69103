"""Which user row a request gets."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.artifacts import Snapshot
from support.tiny_log import assert_refused, january, rows_of, users_of
from support.worlds import write_rows


def test_user_rows_are_the_latest_not_after_the_request(tiny: Snapshot) -> None:
    users, requests = rows_of(tiny, "users"), rows_of(tiny, "requests")
    as_of = {r["request_id"]: users[r["user_row"]]["as_of"] for r in requests}
    same_day = january("15 00:00")
    assert as_of == {"A": same_day, "C": same_day, "D": same_day, "B": 0}
    assert users[requests[3]["user_row"]]["embedding"] == [0.0] * 32  # nobody knows user 2 yet
    assert [user["user_id"] for user in users] == [1, 2]


def test_two_rows_of_a_user_for_one_as_of_are_refused(log: Path) -> None:
    write_rows(log, "users", users_of([(1, january("10 00:00"))] * 2))
    assert_refused(log.parent, "user 1 has more than one row of as_of=")


def test_files_of_two_widths_are_both_named(log: Path) -> None:
    """Both files are of one task, whose rows of a shard go into one file."""
    narrow = users_of([(2, january("10 00:00"))])
    place = narrow.schema.get_field_index("embedding")
    embedding = pa.array([[1.0] * 16], pa.list_(pa.float32(), 16))
    narrow = narrow.set_column(place, "embedding", embedding)
    pq.write_table(narrow, log / "users" / "part-1.parquet")
    assert_refused(
        log.parent,
        r"part-1.parquet: embedding of user_id=2 has 16 numbers; expected 32, as user_id=1 in "
        r".*part-0.parquet has, because .*snapshot.embedding_version",
    )
