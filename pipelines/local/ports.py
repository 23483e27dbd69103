"""The ports of 127.0.0.1 that the local services take, the same for a home at each start.

Not for what listens on them (`services`).
"""

import contextlib
import socket
from collections.abc import Iterator

from pydantic import Field, ValidationError

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.files import hold_lock, own_temporary_folder, write_json
from pipelines.local.layout import LocalHome


class Ports(Frozen):
    """`<home>/ports.json`: the ports of the last start."""

    airflow: int = Field(default=8080, gt=0, lt=2**16, description="Airflow's api-server.")
    mlflow: int = Field(default=5000, gt=0, lt=2**16, description="The MLflow server.")

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's pages."""
        return f"http://127.0.0.1:{self.airflow}"

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow's pages, which is also the tracking URI."""
        return f"http://127.0.0.1:{self.mlflow}"


def last_ports(home: LocalHome) -> Ports:
    """Return the ports of a home's last start; the usual ones where there was none."""
    try:
        return Ports.from_record(home.ports.read_bytes())
    except (FileNotFoundError, ValidationError):
        return Ports()


@contextlib.contextmanager
def claim_ports(home: LocalHome) -> Iterator[Ports]:
    """Choose the ports of a start, claim them while the block runs, and remember them.

    They are those of the last start, so that pages and links stay where they were. Where one of
    them is taken meanwhile, another one is chosen, and it is the one that is remembered.
    """
    wanted = last_ports(home)
    with claim_port(wanted.airflow) as airflow, claim_port(wanted.mlflow) as mlflow:
        ports = Ports(airflow=airflow, mlflow=mlflow)
        write_json(home.ports, ports)
        yield ports


def choose_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if a server could listen on it, else a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def claim_port(wanted: int) -> Iterator[int]:
    """Keep a port of 127.0.0.1 from this user's other local services while the block runs.

    A server binds its port many seconds after it was chosen. Without a claim, two homes that start
    at the same time choose the same port, and one of them shows the other's pages.

    Yields:
        the wanted port if it is free and not claimed, else another one.
    """
    folder = own_temporary_folder("ports")
    with contextlib.ExitStack() as stack:
        port = choose_port(wanted)
        while True:
            with contextlib.suppress(RunInProgressError):
                stack.enter_context(hold_lock(folder / f"{port}.lock", f"port {port}"))
                break
            port = choose_port(0)
        yield port
