"""Runs one of our functions for each of some values on the executors; its errors come back as ours.

Not for a snapshot's two passes, whose rows are shuffled between them (`cluster`). Tested in
tests/production/spark/test_judging.py.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipelines.settings import Settings
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.spark.executor import Job, Refusal, code_of, or_refusal
from pipelines.snapshot.spark.session import open_spark, translated_spark_errors

Item = TypeVar("Item")
Value = TypeVar("Value")


@contextlib.contextmanager
def chosen_spark() -> Iterator[Any]:
    """Give a SparkContext if HOMEFEED_SPARK_OPTIONS has any, else None; nested ones are the same.

    Raises:
        ConfigurationError: PySpark or Java is missing, or an option is wrong.
        TransientStorageError: the cluster is out of reach.
    """
    settings = Settings()
    if not settings.spark_options:
        yield None
        return
    with open_spark(settings) as context:
        yield context


def run_on_executors(
    context: Any,
    act: Callable[[Item], Value],
    items: Sequence[Item],
    plan: SnapshotPlan,
    doing: str,
) -> list[Value]:
    """Return what a function gives for each item, in their order.

    Args:
        context: A SparkContext.
        act: The function; with its arguments it crosses to the executors, so it is small.
        items: The values, each a task of its own.
        plan: Of which the executors must have the same code as the driver.
        doing: For the message of an error, such as 'measuring days on Spark'.

    Raises:
        HomefeedError: of several items that are refused, the error of the first one.
        ProcessKilledError: executors died again and again.
        TransientStorageError: the connection to the cluster broke.
    """
    one = functools.partial(_one, Job(plan, code_of(plan)), act)
    with translated_spark_errors(doing):
        given = context.parallelize(list(enumerate(items)), max(1, len(items)))
        made = given.map(one).collect()
    for each in made:
        if isinstance(each, Refusal):
            raise each.error
    return list(made)


def _one(job: Job, act: Callable[[Item], Value], numbered: tuple[int, Item]) -> Value | Refusal:
    number, item = numbered
    return or_refusal(job, number, functools.partial(act, item))
