"""Opens the connection to Spark, and ends it.

A standalone master that is not there is told by Spark itself, after a minute. The patience of YARN
and Kubernetes is a matter of their own options. Not for what runs there (`cluster`, `executor`),
nor for what its errors mean (`failures`). Tested in tests/pipelines/snapshot/spark/test_session.py
and tests/production/spark.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.settings import Settings
from pipelines.snapshot.spark.failures import translated_spark_errors

log = logging.getLogger(__name__)
INSTALL = "pip install 'homefeed-retrain[spark]'"
_USUAL = {"spark.app.name": "homefeed snapshot", "spark.ui.showConsoleProgress": "false"}
_ON_THIS_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
}
"""Options where there is no cluster: nothing listens to the network."""
_END_S = 10.0
"""How long Java may take to end, in seconds."""


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
            f"expected it beside this project; install it with `{INSTALL}`, or "
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
