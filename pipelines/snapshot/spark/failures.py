"""What Spark's errors mean: which of ours stands for each, and what a person should change.

Spark tells of most failures inside the text of one Java exception, so its words are looked for.
What is in no row is unforeseen. Not for errors of ours on executors, which come back as they are
(`executor`). Tested in tests/pipelines/snapshot/spark/test_failures.py.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    ProcessKilledError,
    TransientStorageError,
)

_SHOWN = 300
"""How many characters of Spark's own words a message repeats."""


class _Meaning(NamedTuple):
    """The words by which a failure is known, and what is made of it."""

    words: re.Pattern[str]
    error: type[HomefeedError]
    told: str  # after the words of Spark


_MEANINGS = (
    _Meaning(
        re.compile(
            r"ExecutorLostFailure|Python worker exited unexpectedly|worker lost|MemoryError"
        ),
        ProcessKilledError,
        "an executor or its Python was killed each time that Spark tried a task, most often "
        "because memory ran out; expected all to live; raise spark.executor.memory and "
        "spark.executor.memoryOverhead in HOMEFEED_SPARK_OPTIONS, or snapshot.num_shards in the "
        "recipe, then retry",
    ),
    _Meaning(
        re.compile(r"is bigger than spark\.driver\.maxResultSize"),
        ConfigurationError,
        "what was counted of pins and days is more than the driver takes; expected it to fit; "
        "raise spark.driver.maxResultSize and spark.driver.memory in HOMEFEED_SPARK_OPTIONS",
    ),
    _Meaning(
        re.compile("JAVA_GATEWAY_EXITED"),
        ConfigurationError,
        "Java ended at once; expected Java 17 or newer, and options that Spark knows, with a "
        "spark.master such as spark://host:7077; look at what it wrote above, and correct "
        "JAVA_HOME or HOMEFEED_SPARK_OPTIONS",
    ),
    _Meaning(
        re.compile("Could not parse Master URL|Invalid master URL"),
        ConfigurationError,
        "expected spark://host:7077, yarn, k8s://https://host:port or local[*]; correct "
        "spark.master in HOMEFEED_SPARK_OPTIONS",
    ),
    _Meaning(
        re.compile(r"ModuleNotFoundError|PYTHON_VERSION_MISMATCH|Cannot run program .*python"),
        ConfigurationError,
        "an executor's Python is not like the driver's; expected this project, its dependencies "
        "and the recipe's own modules on every machine of the cluster, under the same version of "
        "Python; install them there, and name that Python in PYSPARK_PYTHON",
    ),
    _Meaning(
        re.compile(
            r"All masters are unresponsive|SparkContext was shut down|stopped SparkContext|"
            r"Answer from Java side is empty|Connection refused|Error while sending or receiving"
        ),
        TransientStorageError,
        "the cluster cannot be reached, or the connection to it broke; expected a master that "
        "answers, and a Java process of the driver that lives, for as long as a snapshot is built; "
        "check spark.master in HOMEFEED_SPARK_OPTIONS, the master's own log and this machine's "
        "memory, then retry",
    ),
)


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
        ours = explain(error, doing)
        if ours is None:
            if hasattr(error, "java_exception"):  # a log may ask for its words when Java has ended
                error.add_note(_words_of(error))
            raise
        raise ours from error


def explain(error: Exception, doing: str) -> HomefeedError | None:
    """Return an error of Spark as one of ours, or None where it is unforeseen."""
    lines = [line.strip() for line in _words_of(error).splitlines()]
    for meaning in _MEANINGS:
        if found := next((line for line in lines if meaning.words.search(line)), ""):
            return meaning.error(f"{doing}: {found[:_SHOWN]}: {meaning.told}")
    if isinstance(error, ConnectionError) or not lines:  # to the driver's own Java process
        found = type(error).__name__ if not lines else lines[0]
        return TransientStorageError(f"{doing}: {found}: {_MEANINGS[-1].told}")
    return None


def _words_of(error: Exception) -> str:
    """Return an error's words, which are asked of Java; none where Java does not live any more."""
    try:
        return str(error)
    except Exception:
        return ""
