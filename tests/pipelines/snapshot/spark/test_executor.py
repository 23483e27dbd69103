"""Shards that travel together, and errors: ours are results. Needs no Spark."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.event_log.log_files import open_event_log
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spark import executor
from pipelines.snapshot.spark.executor import Job, Refusal, build_group, merge_found, read_part
from pipelines.snapshot.spill import HeldRows, SpillSummary, deal_out, make_tasks
from pipelines.storage import to_uri
from support.random_log import AS_OF, config_of, write_random_log
from support.runs import PLANTED_AS_OF


@pytest.mark.parametrize(
    ("error", "made"),
    [
        (DataContractError("bad"), DataContractError),
        (OSError(5, "input"), TransientStorageError),
        (ZeroDivisionError(), None),
    ],
)
def test_an_error_of_ours_is_a_result_and_a_defect_is_left_to_spark(
    error: Exception, made: type[Exception] | None
) -> None:
    job = Job(plan_of(smoke(), PLANTED_AS_OF), {})

    def fail() -> None:
        raise error

    if made is None:
        with pytest.raises(type(error)):
            executor.or_refusal(job, 7, fail)
    else:
        found = executor.or_refusal(job, 7, fail)
        assert isinstance(found, Refusal) and found.number == 7 and type(found.error) is made


def test_of_several_refusals_that_of_the_first_part_counts() -> None:
    second, first = (Refusal(n, DataContractError(str(n))) for n in (5, 2))
    nothing = SpillSummary()
    assert merge_found([nothing, second, first, nothing]) == first
    assert isinstance(merge_found([nothing, nothing]), SpillSummary)


def rows_in(held: HeldRows, shard: int) -> dict[str, list[Any]]:
    tables = vars(held.take(shard))
    return {name: sorted(map(str, t.to_pylist())) for name, t in tables.items() if t}


@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
def test_of_shards_that_travel_together_each_has_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int
) -> None:
    write_random_log(tmp_path / "log")
    config = config_of()
    snapshot = config.snapshot.model_copy(update={"num_shards": 5})
    plan = plan_of(config.model_copy(update={"snapshot": snapshot}), AS_OF)
    tasks = make_tasks(open_event_log(to_uri(tmp_path / "log")), plan)
    alone, job = HeldRows(tmp_path / "alone", 1 << 30), Job(plan, {})
    for task in tasks:
        deal_out(task, alone.keep)
    expected = {shard: rows_in(alone, shard) for shard in range(5)}
    assert sum(map(len, expected.values())) > 10
    monkeypatch.setattr(executor, "MOST_GROUPS", 2)
    monkeypatch.setattr(executor, "HELD_BYTES", held_bytes)
    monkeypatch.setattr(executor, "_build", lambda job, shard, held: (shard, rows_in(held, shard)))
    sent = defaultdict[int, list[Any]](list)
    for number, block in read_part(job, [(9, task) for task in tasks]):
        sent[number].append((number, block))
    assert sent.keys() == {0, 1, 9}
    built: list[Any] = [each for group in (0, 1) for each in build_group(job, group, sent[group])]
    assert dict(built) == expected and [shard for shard, _ in built] == [0, 1, 2, 3, 4]
