"""Errors on executors: what is final is a result, what may pass is tried again. Needs no Spark."""

from functools import partial

import pytest

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.event_log.rules import FoundWidth
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spark import executor
from pipelines.snapshot.spark.cluster import in_order_of_files, max_failures
from pipelines.snapshot.spark.executor import Job, Refusal, merge_found
from pipelines.snapshot.spark.travel import PackedSummary, pack, unpack
from pipelines.snapshot.spill import SpillSummary
from support.runs import PLANTED_AS_OF

JOB = Job(plan_of(smoke(), PLANTED_AS_OF), {}, max_failures=4)


def fail(error: Exception) -> None:
    raise error


def test_bad_data_is_a_result() -> None:
    error = DataContractError("bad")
    assert executor._or_refusal(JOB, 7, partial(fail, error)) == Refusal(7, error)


@pytest.mark.parametrize("error", [TransientStorageError("slow"), OSError(5, "input/output")])
def test_what_may_pass_is_left_to_spark_until_its_last_attempt(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_is_last_attempt", lambda job: False)
    with pytest.raises(type(error)):
        executor._or_refusal(JOB, 7, partial(fail, error))
    monkeypatch.setattr(executor, "_is_last_attempt", lambda job: True)
    made = executor._or_refusal(JOB, 7, partial(fail, error))
    assert isinstance(made, Refusal) and isinstance(made.error, TransientStorageError)


def test_a_defect_is_left_to_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_is_last_attempt", lambda job: True)
    with pytest.raises(ZeroDivisionError):
        executor._or_refusal(JOB, 7, partial(fail, ZeroDivisionError()))


def test_of_several_refusals_that_of_the_first_part_counts() -> None:
    second, first = (Refusal(n, DataContractError(str(n))) for n in (5, 2))
    nothing = pack(SpillSummary())
    assert merge_found([nothing, second, first, nothing]) == first
    assert isinstance(merge_found([nothing, nothing]), PackedSummary)


def test_the_width_that_is_named_is_that_of_the_first_file() -> None:
    widths = [FoundWidth(f"users/part-{n}.parquet", "user_id=1", 8) for n in range(4)]
    parts = [pack(SpillSummary(user_widths=(widths[n],))) for n in (2, 0, 3, 1)]
    found = merge_found(parts)
    assert isinstance(found, PackedSummary)
    assert in_order_of_files(unpack(found)).user_widths == tuple(widths)


@pytest.mark.parametrize(
    ("master", "option", "expected"),
    [("local[*]", "4", 1), ("local[2,3]", "4", 3), ("spark://m:7077", "4", 4), ("yarn", "8", 8)],
)
def test_how_often_spark_tries_a_task(master: str, option: str, expected: int) -> None:
    assert max_failures(master, {"spark.task.maxFailures": option}) == expected
