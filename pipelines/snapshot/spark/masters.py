"""Looks whether a standalone master is there, before Spark waits for it.

Spark itself asks for a minute, and then gives a connection that is closed already. Not for YARN
and Kubernetes, whose patience is a matter of their own options. Tested in
tests/pipelines/snapshot/spark/test_masters.py and tests/production/spark/test_in_the_dag.py.
"""

import re
import socket

from pipelines.contracts.errors import ConfigurationError, SparkUnavailableError

_ADDRESSES = re.compile(r"[\w.-]+:\d+(,[\w.-]+:\d+)*")
_KNOWN = re.compile(r"spark://.+|k8s://.+|yarn|local.*")
_STANDALONE = "spark://"
_PATIENCE_S = 10.0
"""How long one address may take to answer, in seconds."""


def master_url(named: str, conn_id: str) -> str:
    """Return a master's URL; a connection of Airflow's may name host and port alone.

    Args:
        named: what HOMEFEED_SPARK_MASTER says.
        conn_id: see `where_to_change`.

    Raises:
        ConfigurationError: it names no master. Spark would tell so beside its own way to be used.
    """
    url = f"{_STANDALONE}{named}" if _ADDRESSES.fullmatch(named) else named
    if not _KNOWN.fullmatch(url):
        raise ConfigurationError(
            f"Spark's master is {named!r}; expected spark://host:7077, yarn, "
            f"k8s://https://host:port or local[*]; correct {where_to_change(conn_id)}"
        )
    return url


def where_to_change(conn_id: str) -> str:
    """Return what names the master, for a message.

    Args:
        conn_id: HOMEFEED_SPARK_CONN_ID; empty where it is not set, or in a container, which is not
            told.
    """
    if conn_id:
        return f"the host and port of the Airflow connection {conn_id!r}"
    return (
        "HOMEFEED_SPARK_MASTER, or the host and port of the Airflow connection that "
        "HOMEFEED_SPARK_CONN_ID names"
    )


def require_master(master: str, conn_id: str) -> None:
    """Refuse a standalone master of which no address takes a connection.

    Args:
        master: URL, which may name several addresses, of which one leads.
        conn_id: see `where_to_change`.

    Raises:
        ConfigurationError: an address has no host or no port.
        SparkUnavailableError: nothing listens at any address.
    """
    if not master.startswith(_STANDALONE):
        return
    change = where_to_change(conn_id)
    addresses = [each.rpartition(":") for each in master.removeprefix(_STANDALONE).split(",")]
    if not all(host and port.isdigit() for host, _, port in addresses):
        raise ConfigurationError(
            f"Spark's master is {master}, where an address has no host or no port; expected "
            f"spark://host:7077; correct {change}"
        )
    failures = []
    for host, _, port in addresses:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
            return
        except (OSError, OverflowError) as error:  # A port beyond 65535 overflows.
            failures.append(f"{host}:{port} ({getattr(error, 'strerror', None) or error})")
    raise SparkUnavailableError(unreachable(" nor ".join(failures), change))


def unreachable(found: str, change: str) -> str:
    """Return the message about a master that does not answer."""
    return (
        f"no Spark master answers at {found}; expected a standalone master that this machine "
        f"reaches; start it, or correct {change}, then retry; HOMEFEED_SNAPSHOT_ENGINE=local "
        f"builds the same snapshot without it"
    )
