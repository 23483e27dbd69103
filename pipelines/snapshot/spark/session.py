"""Opens the connection to Spark, ends it, and says what Spark's errors mean and how to mend them.

A standalone master that is not there is told by Spark itself, after a minute. The patience of YARN
and Kubernetes is a matter of their own options. Spark tells of most failures inside the text of one
Java exception, so its words are looked for; what is in no row is unforeseen. Not for what runs
there (`cluster`, `executor`), nor for errors of ours on executors, which come back as they are.
"""

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    ProcessKilledError,
    TransientStorageError,
)
from pipelines.settings import Settings

log = logging.getLogger(__name__)
INSTALL = "pip install --constraint constraints.txt '.[spark]'"
"""Given in a checkout: no package index has this project, and its name there may be anybody's."""
_USUAL = {"spark.app.name": "homefeed snapshot", "spark.ui.showConsoleProgress": "false"}
_ON_THIS_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
}
"""Options where there is no cluster: nothing listens to the network."""
_END_S = 10.0
"""How long Java may take to end, in seconds."""
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
            if hasattr(error, "java_exception"):  # A log may ask for its words when Java has ended.
                error.add_note(str(error))
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


@contextlib.contextmanager
def open_spark(settings: Settings) -> Iterator[Any]:
    """Give a SparkContext: the one that there is, or a new one that ends with the block.

    Raises:
        ConfigurationError: PySpark or Java is missing, or an option is wrong.
        TransientStorageError: the cluster is out of reach.
    """
    try:
        from pyspark import SparkContext
    except ImportError as error:
        raise ConfigurationError(
            f"HOMEFEED_SPARK_OPTIONS are set, and PySpark cannot be imported ({error}); "
            f"expected it beside this project; install it by `{INSTALL}` in a checkout of it, or "
            f"unset HOMEFEED_SPARK_OPTIONS"
        ) from error
    if SparkContext._active_spark_context is not None:
        yield SparkContext._active_spark_context
        return
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    # The driver of `spark-submit` finds the variable, and a Java that runs already.
    if java is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        raise ConfigurationError(
            f"HOMEFEED_SPARK_OPTIONS are set, and there is no Java "
            f"({f'JAVA_HOME is {home}' if home else 'none on the path'}); expected Java 17 or "
            f"newer; install it (Debian: apt-get install openjdk-17-jre-headless, or a newer one), "
            f"or unset HOMEFEED_SPARK_OPTIONS"
        )
    # Spark would start whatever `python3` is on the machines, which seldom has this project.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        with translated_spark_errors("connecting to Spark"):
            context = _connect(settings)
        context.setLogLevel("ERROR")
        log.info("Spark %s at %s", context.version, context.master)
        try:
            yield context
        finally:
            with contextlib.suppress(Exception):  # Of a broken connection nothing is left to stop.
                context.stop()
    finally:
        _end_java()


def _connect(settings: Settings) -> Any:
    """Return a new SparkContext.

    Raises:
        TransientStorageError: no master answers.
    """
    from pyspark import SparkConf, SparkContext

    options = list({**_USUAL, **settings.spark_options}.items())
    # Java comes first: it alone reads what `spark-submit` and spark-defaults.conf say.
    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(options))
    conf = SparkConf().setAll(options)
    master = conf.get("spark.master") or "local[*]"
    missing = _ON_THIS_MACHINE if master.startswith("local") else {}
    for name, value in {"spark.master": master, **missing}.items():
        conf.setIfMissing(name, value)
    context: Any = SparkContext(conf=conf)
    if context._jsc.sc().isStopped():
        context.stop()
        raise TransientStorageError(
            f"no Spark master answers at {master}; expected a standalone master that this machine "
            f"reaches; start it, or correct spark.master in HOMEFEED_SPARK_OPTIONS, then retry; "
            f"without HOMEFEED_SPARK_OPTIONS the same snapshot is built here"
        )
    return context


def _end_java() -> None:
    """End the Java process that PySpark has started for this one, and would keep until its end.

    A stage may go on for hours after its snapshot is built. The Java process of `spark-submit` is
    this one's parent, and stays.
    """
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway
    java = getattr(gateway, "proc", None)
    if java is None:
        return
    with contextlib.suppress(Exception):
        gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    java.stdin.close()  # Java ends when nobody can speak to it any more.
    with contextlib.suppress(subprocess.TimeoutExpired):
        java.wait(timeout=_END_S)
    java.kill()
    java.wait()
