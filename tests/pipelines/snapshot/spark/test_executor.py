"""Errors on executors: ours are results, what nobody foresaw is left to Spark. Needs no Spark."""

import pytest

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.snapshot.spark import executor
from pipelines.snapshot.spark.executor import Job, Refusal, merge_found
from pipelines.snapshot.spill import SpillSummary
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
