"""Opens the connection to Spark, and ends it.

Whether a standalone master is there is looked up first: Spark itself asks for a minute, and then
gives a connection that is closed already. The patience of YARN and Kubernetes is a matter of their
own options. Not for what runs there (`cluster`, `executor`), nor for what its errors mean
(`failures`). Tested in tests/pipelines/snapshot/spark/test_session.py and tests/production/spark.
"""

import contextlib
import logging
import os
import re
import shutil
import socket
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
_ADDRESSES = re.compile(r"[\w.-]+:\d+(,[\w.-]+:\d+)*")
_KNOWN = re.compile(r"spark://.+|k8s://.+|yarn|local.*")
_STANDALONE = "spark://"
_WHERE = "spark.master in HOMEFEED_SPARK_OPTIONS"
_PATIENCE_S = 10.0
"""How long one address may take to answer, in seconds."""
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
        TransientStorageError: no master answers there.
    """
    from pyspark import SparkConf, SparkContext

    options = {**_USUAL, **settings.spark_options}
    if named := options.get("spark.master"):
        options["spark.master"] = master_url(named)
    # Java comes first: it alone reads what `spark-submit` and spark-defaults.conf say.
    SparkContext._ensure_initialized(
        conf=SparkConf(loadDefaults=False).setAll(list(options.items()))
    )
    conf = SparkConf().setAll(list(options.items()))
    master = conf.get("spark.master") or "local[*]"
    missing = _ON_THIS_MACHINE if master.startswith("local") else {}
    for name, value in {"spark.master": master, **missing}.items():
        conf.setIfMissing(name, value)
    require_master(master)
    context: Any = SparkContext(conf=conf)
    if context._jsc.sc().isStopped():
        context.stop()
        raise TransientStorageError(unreachable(f"{master} (something else may listen)"))
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


def _require_java() -> None:
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


def master_url(named: str) -> str:
    """Return a master's URL, of which host and port may be named alone.

    Raises:
        ConfigurationError: it names no master. Spark would tell so beside its own way to be used.
    """
    url = f"{_STANDALONE}{named}" if _ADDRESSES.fullmatch(named) else named
    if not _KNOWN.fullmatch(url):
        raise ConfigurationError(
            f"Spark's master is {named!r}; expected spark://host:7077, yarn, "
            f"k8s://https://host:port or local[*]; correct {_WHERE}"
        )
    return url


def require_master(master: str) -> None:
    """Refuse a standalone master of which no address takes a connection.

    Args:
        master: URL, which may name several addresses, of which one leads.

    Raises:
        ConfigurationError: an address has no host or no port.
        TransientStorageError: nothing listens at any address.
    """
    if not master.startswith(_STANDALONE):
        return
    addresses = [each.rpartition(":") for each in master.removeprefix(_STANDALONE).split(",")]
    if not all(host and port.isdigit() for host, _, port in addresses):
        raise ConfigurationError(
            f"Spark's master is {master}, where an address has no host or no port; expected "
            f"spark://host:7077; correct {_WHERE}"
        )
    failures = []
    for host, _, port in addresses:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
            return
        except (OSError, OverflowError) as error:  # A port beyond 65535 overflows.
            failures.append(f"{host}:{port} ({getattr(error, 'strerror', None) or error})")
    raise TransientStorageError(unreachable(" nor ".join(failures)))


def unreachable(found: str) -> str:
    """Return the message about a master that does not answer."""
    return (
        f"no Spark master answers at {found}; expected a standalone master that this machine "
        f"reaches; start it, or correct {_WHERE}, then retry; without HOMEFEED_SPARK_OPTIONS the "
        f"same snapshot is built here"
    )
