"""The local MLflow server, started again when it ends: a training goes on without it meanwhile.

Not for Airflow's parts: without one of them nothing goes on. Tested in
tests/pipelines/local/test_mlflow_server.py and test_real_faults.py.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pipelines.local.layout import LocalHome, sqlite_uri
from pipelines.local.ports import Ports
from pipelines.local.processes import Service, end_rest, how_it_ended

MAX_SHORT_LIVES = 3
"""So many times in a row it may end soon after its start; then it is left alone."""
SHORT_LIFE_S = 60.0

PLUGIN_FOLDER = Path(__file__).parent / "mlflow_plugin"
"""What the server's PYTHONPATH must name, so that it finds the app `own-origins`."""

Say = Callable[[str], None]


def mlflow_arguments(home: LocalHome, ports: Ports) -> list[str]:
    """Return the arguments of Python that run the server, for its own pages only.

    Its environment needs `PLUGIN_FOLDER` as PYTHONPATH.
    """
    hosts = [f"{name}:{ports.mlflow}" for name in ("127.0.0.1", "localhost")]
    return [
        *("-m", "mlflow", "server", "--app-name", "own-origins", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(ports.mlflow)),
        *("--backend-store-uri", sqlite_uri(home.mlflow_database)),
        # A URI, so that "#" and "%" in the path mean themselves.
        *("--serve-artifacts", "--artifacts-destination", (home.mlflow / "artifacts").as_uri()),
        *("--allowed-hosts", ",".join(hosts)),
        *("--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)),
    ]


class MlflowServer:
    """The server's present process, and the way to start the next one.

    Args:
        start: starts a process; it is told whether the log goes on.
        say: is called with each line that a person should read.
    """

    def __init__(self, start: Callable[[bool], Service], say: Say) -> None:
        self._start = start
        self._say = say
        self._num_short_lives = 0
        self._is_left_alone = False
        self._started_at = time.monotonic()
        self.service = start(False)

    def look_after(self) -> None:
        """Start the server again if it has ended; say so, and raise nothing."""
        code = self.service.process.poll()
        if code is None or self._is_left_alone:
            return
        # The process that serves is a child, and holds the port where only its parent was killed.
        end_rest(self.service)
        is_short = time.monotonic() - self._started_at < SHORT_LIFE_S
        self._num_short_lives = self._num_short_lives + 1 if is_short else 0
        ended = f"MLflow {how_it_ended(code)}"
        if self._num_short_lives > MAX_SHORT_LIVES:
            self._is_left_alone = True
            self._say(
                f"{ended}, {self._num_short_lives} times in a row, and is not started again; "
                f"Airflow goes on, but stages that need MLflow will fail; mend what "
                f"{self.service.log_path} says, then end this command and run it again"
            )
            return
        self._say(f"{ended}; starting it again, and Airflow goes on")
        self._started_at = time.monotonic()
        self.service = self._start(True)
