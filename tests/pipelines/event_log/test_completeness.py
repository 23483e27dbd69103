"""To when a log is complete: as its writer says, to its last day's end, or to its cut."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import IMPRESSIONS
from pipelines.event_log.completeness import Complete, check_complete, completeness
from pipelines.event_log.log_files import open_event_log
from pipelines.storage import to_uri
from support.own_tables import acted_on, give_log, shown_on
from support.tiny_log import impression, january, write_tiny_log
from support.worlds import write_events

MIDNIGHT = datetime(2017, 1, 19, tzinfo=UTC)


def known(folder: Path) -> Complete:
    return completeness(open_event_log(to_uri(folder)))


def log_of(folder: Path, *ends: str) -> Path:
    """Write a log of days that end at these times, the last one on 18 January."""
    write_tiny_log(folder, [], [])
    days = range(19 - len(ends), 19)
    rows = [impression(f"r{day}", 1, 10, january(f"{day} {end}"), 0)
            for day, end in zip(days, ends, strict=True)]  # fmt: skip
    write_events(folder, "impressions", pa.Table.from_pylist(rows, schema=IMPRESSIONS))
    later = [{"user_id": 1, "pin_id": 10, "action_type": "repin", "request_id": None,
              "acted_at": january("01 06:00"), "known_at": january("01 06:00")}]  # fmt: skip
    write_events(folder, "actions", pa.Table.from_pylist(later))
    return folder


@pytest.mark.parametrize(
    ("ends", "cut_at"),
    [
        (["23:50", "23:40", "23:55", "23:30"], None),
        (["23:50", "23:40", "23:55", "06:00"], "06:00"),
        (["23:50", "23:40", "23:55", "22:39"], "22:39"),  # earlier by more than an hour
        (["23:50", "23:40", "23:55", "22:40"], None),
        (["23:50", "08:40", "23:55", "06:00"], None),  # days differ by more themselves
        (["23:50", "23:40", "06:00"], None),  # of too few days
        (["06:00"], None),
    ],
)
@pytest.mark.parametrize("has_statistics", [True, False])
def test_a_last_day_that_ends_early_is_cut(
    tmp_path: Path, ends: list[str], cut_at: str | None, has_statistics: bool
) -> None:
    folder = log_of(tmp_path / "log", *ends)
    for path in folder.glob("impressions/*/*.parquet") if not has_statistics else ():
        pq.write_table(pq.read_table(path, partitioning=None), path, write_statistics=False)
    found = known(folder)
    clock = cut_at and datetime.fromisoformat(f"2017-01-18T{cut_at}+00:00")
    assert (found.to, found.cut_at) == (clock or MIDNIGHT, clock)
    assert found.as_of == (MIDNIGHT - timedelta(days=1) if clock else MIDNIGHT)
    assert not cut_at or found.usual == "23:40"


def test_an_action_says_too_that_a_day_goes_on(tmp_path: Path) -> None:
    folder = log_of(tmp_path / "log", "23:50", "23:40", "23:55", "06:00")
    late = pa.Table.from_pylist([{"acted_at": january("18 23:45")}])
    write_events(folder, "actions", late)
    assert known(folder).to == MIDNIGHT


def test_a_writer_says_so_and_an_increment_says_it_anew(tmp_path: Path) -> None:
    for day, said in ((2, None), (3, datetime(2024, 1, 3, 12, tzinfo=UTC)), (4, None)):
        events = {"impressions": shown_on(day), "actions": acted_on(day)}
        give_log(tmp_path / "log", complete_to=said, **events)
        found = known(tmp_path / "log")
        assert (found.by_writer, found.to) == (
            said is not None, said or datetime(2024, 1, day + 1, tzinfo=UTC))  # fmt: skip


def test_an_as_of_after_that_is_refused_and_the_newest_one_named(tmp_path: Path) -> None:
    log = open_event_log(to_uri(log_of(tmp_path / "log", "23:50", "23:40", "23:55", "06:00")))
    check_complete(log, MIDNIGHT - timedelta(days=1))
    said = "complete to 2017-01-18 06:00 UTC, where its last day was cut; .*choose as_of 2017-01"
    with pytest.raises(DataContractError, match=f"{said}-18, or write"):
        check_complete(log, MIDNIGHT)
