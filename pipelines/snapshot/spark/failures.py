"""What Spark's errors mean: which of ours stands for each, and what a person should change.

Spark tells of most failures inside the text of one Java exception, so its words are looked for.
What is in no row is unforeseen. Not for errors of ours on executors, which come back as they are
(`executor`). Tested in tests/pipelines/snapshot/spark/test_failures.py.
"""

import contextlib
import re
from collections.abc import Iterator

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    ProcessKilledError,
    TransientStorageError,
)

_SHOWN = 300
"""How many characters of Spark's own words a message repeats."""


_MEANINGS: tuple[tuple[str, type[HomefeedError], str], ...] = (
    (
        "ExecutorLostFailure|Python worker exited unexpectedly|worker lost|MemoryError",
        ProcessKilledError,
        "an executor or its Python was killed each time that Spark tried a task, most often "
        "because memory ran out; expected all to live; raise spark.executor.memory and "
        "spark.executor.memoryOverhead in HOMEFEED_SPARK_OPTIONS, or snapshot.num_shards in the "
        "recipe, then retry",
    ),
    (
        r"is bigger than spark\.driver\.maxResultSize",
        ConfigurationError,
        "what was counted of pins and days is more than the driver takes; expected it to fit; "
        "raise spark.driver.maxResultSize and spark.driver.memory in HOMEFEED_SPARK_OPTIONS",
    ),
    (
        "JAVA_GATEWAY_EXITED|Could not parse Master URL|Invalid master URL",
        ConfigurationError,
        "expected Java 17 or newer, and options that Spark knows, with a spark.master such as "
        "spark://host:7077, yarn, k8s://https://host:port or local[*]; look at what Java wrote "
        "above, and correct JAVA_HOME or HOMEFEED_SPARK_OPTIONS",
    ),
    (
        "ModuleNotFoundError|PYTHON_VERSION_MISMATCH|Cannot run program .*python",
        ConfigurationError,
        "an executor's Python is not like the driver's; expected this project, its dependencies "
        "and the recipe's own modules on every machine of the cluster, under the same version of "
        "Python; install them there, and name that Python in PYSPARK_PYTHON",
    ),
    (
        "All masters are unresponsive|SparkContext was shut down|stopped SparkContext|"
        "Answer from Java side is empty|Connection refused|Error while sending or receiving",
        TransientStorageError,
        "the cluster cannot be reached, or the connection to it broke; expected a master that "
        "answers, and a Java process of the driver that lives, for as long as a snapshot is built; "
        "check spark.master in HOMEFEED_SPARK_OPTIONS, the master's own log and this machine's "
        "memory, then retry",
    ),
)
"""The words by which a failure is known, its class, and what is said after Spark's own words."""


@contextlib.contextmanager
def translated_spark_errors(doing: str) -> Iterator[None]:
    """Turn Spark's errors into ours where trying again, or a person, can help.

    Args:
        doing: what was done, for the message, such as 'building shards on Spark'.

    Raises:
        HomefeedError: as `explain` says; what is unforeseen stays as it is.
    """
    try:
        yield
    except HomefeedError:
        raise
    except Exception as error:
        if (ours := explain(error, doing)) is None:
            raise
        raise ours from error


def explain(error: Exception, doing: str) -> HomefeedError | None:
    """Return an error of Spark as one of ours, or None where it is unforeseen."""
    try:
        lines = [line.strip() for line in str(error).splitlines()]
    except Exception:  # The words are asked of Java, which does not live any more.
        lines = []
    for words, kind, told in _MEANINGS:
        if found := next((line for line in lines if re.search(words, line)), ""):
            return kind(f"{doing}: {found[:_SHOWN]}: {told}")
    if isinstance(error, ConnectionError) or not lines:  # to the driver's own Java process
        found = type(error).__name__ if not lines else lines[0]
        return TransientStorageError(f"{doing}: {found}: {_MEANINGS[-1][2]}")
    return None
