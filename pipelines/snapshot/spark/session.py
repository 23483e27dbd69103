"""Opens the connection to Spark, and ends it.

Not for what runs there (`cluster`, `executor`), nor for what its errors mean (`failures`). Tested
in tests/pipelines/snapshot/spark/test_session.py and tests/production/spark.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from pipelines.contracts.errors import ConfigurationError, SparkUnavailableError
from pipelines.settings import Settings
from pipelines.snapshot.spark.failures import translated_spark_errors
from pipelines.snapshot.spark.masters import (
    master_url,
    require_master,
    unreachable,
    where_to_change,
)

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
        SparkUnavailableError: the cluster is out of reach.
    """
    _require_pyspark()
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        yield SparkContext._active_spark_context
        return
    _require_java()
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
        ConfigurationError: the master's URL is none.
        SparkUnavailableError: no master answers there.
    """
    from pyspark import SparkConf, SparkContext

    ours = list(_options_of(settings).items())
    # Java comes first: it alone reads what `spark-submit` and spark-defaults.conf say.
    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(ours))
    conf = SparkConf().setAll(ours)
    master = conf.get("spark.master") or "local[*]"
    missing = _ON_THIS_MACHINE if master.startswith("local") else {}
    for name, value in {"spark.master": master, **missing}.items():
        conf.setIfMissing(name, value)
    require_master(master, settings.spark_conn_id)
    context: Any = SparkContext(conf=conf)
    if context._jsc.sc().isStopped():
        context.stop()
        change = where_to_change(settings.spark_conn_id)
        raise SparkUnavailableError(unreachable(f"{master} (something else may listen)", change))
    return context


def _options_of(settings: Settings) -> dict[str, str]:
    """Return the options that the deployment chose, the master among them if it is named."""
    options = {**_USUAL, **settings.spark_options}
    if settings.spark_master:
        options["spark.master"] = master_url(settings.spark_master, settings.spark_conn_id)
    return options


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


def _require_pyspark() -> None:
    try:
        import pyspark  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise ConfigurationError(
            f"HOMEFEED_SNAPSHOT_ENGINE is spark, and PySpark cannot be imported ({error}); "
            f"expected it beside this project; install it with `{INSTALL}`, or set "
            f"HOMEFEED_SNAPSHOT_ENGINE=local"
        ) from error


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    # The driver of `spark-submit` finds the variable, and a Java that runs already.
    if java is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        raise ConfigurationError(
            f"HOMEFEED_SNAPSHOT_ENGINE is spark, and there is no Java "
            f"({f'JAVA_HOME is {home}' if home else 'none on the path'}); expected Java 17 or "
            f"newer; install it (Debian: apt-get install openjdk-17-jre-headless, or a newer one), "
            f"or set HOMEFEED_SNAPSHOT_ENGINE=local"
        )
