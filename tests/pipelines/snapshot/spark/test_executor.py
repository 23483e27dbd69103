"""Errors on executors: what is final is a result, what may pass is tried again. Needs no Spark."""

import pytest

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spark import executor
from pipelines.snapshot.spark.executor import Job, Refusal, merge_found
from pipelines.snapshot.spill import SpillSummary
from support.runs import PLANTED_AS_OF

BAD, SLOW, DISK = DataContractError("bad"), TransientStorageError("slow"), OSError(5, "input")


@pytest.mark.parametrize(
    ("error", "is_last", "made"),
    [
        (BAD, False, DataContractError),
        (SLOW, False, None),
        (SLOW, True, TransientStorageError),
        (DISK, False, None),
        (DISK, True, TransientStorageError),
        (ZeroDivisionError(), True, None),
    ],
)
def test_bad_data_is_a_result_and_what_may_pass_is_left_to_spark_until_its_last_attempt(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_last: bool, made: type[Exception] | None
) -> None:
    """A defect is always left to Spark."""
    monkeypatch.setattr(executor, "_is_last_attempt", lambda job: is_last)
    job = Job(plan_of(smoke(), PLANTED_AS_OF), {}, max_failures=4)

    def fail() -> None:
        raise error

    if made is None:
        with pytest.raises(type(error)):
            executor._or_refusal(job, 7, fail)
    else:
        found = executor._or_refusal(job, 7, fail)
        assert isinstance(found, Refusal) and found.number == 7 and type(found.error) is made


def test_of_several_refusals_that_of_the_first_part_counts() -> None:
    second, first = (Refusal(n, DataContractError(str(n))) for n in (5, 2))
    nothing = SpillSummary()
    assert merge_found([nothing, second, first, nothing]) == first
    assert isinstance(merge_found([nothing, nothing]), SpillSummary)
