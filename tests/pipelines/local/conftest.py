"""One planted world, one `homefeed local retrain` over it, and one running Airflow, per session."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.airflow_home import use_temporary_airflow_home

use_temporary_airflow_home()

from pipelines import storage  # noqa: E402
from pipelines.contracts.time import to_ms  # noqa: E402
from pipelines.event_log.record import EventLogRecord, create_entry, list_below  # noqa: E402
from pipelines.local import processes  # noqa: E402 - after AIRFLOW_HOME is set
from pipelines.local.airflow_api import AirflowApi  # noqa: E402
from pipelines.local.home import LocalHome  # noqa: E402
from pipelines.local.services import running  # noqa: E402
from support.lab import (  # noqa: E402
    DAGS,
    FAST,
    FIRST_DAY,
    NUM_DAYS,
    SECOND_DAY,
    THIRD_DAY,
    Lab,
    homefeed_local,
    is_free,
    ports_in,
)
from support.worlds import write_planted_world  # noqa: E402

ODD_NAME = "home #1, 100%"
"""Of the home folder: each of its odd characters means something in an address or a file."""


@dataclass(frozen=True)
class Retrained:
    """A home in which `homefeed local retrain` has run a cycle or two, and what it printed."""

    home: Path
    days: tuple[str, ...]
    event_log: Path
    command: tuple[str, ...]
    returncode: int
    output: str
    left_running: tuple[psutil.Process, ...]
    ports_in_use: tuple[int, ...]

    @property
    def run_ids(self) -> list[str]:
        """Airflow's ids of the cycles' runs."""
        return [f"retrain__smoke__{day}" for day in self.days]

    def again(self) -> "subprocess.CompletedProcess[str]":
        """Give the same command once more."""
        return homefeed_local(*self.command, event_log=self.event_log)


@pytest.fixture(scope="session")
def retrained(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Retrained:
    folder = tmp_path_factory.mktemp("lab")
    days = (FIRST_DAY, SECOND_DAY)[: pytestconfig.getoption("--smoke-cycles")]
    home = folder / ODD_NAME
    event_log = folder / "event_log"
    write_planted_world(event_log, num_users=120, num_days=NUM_DAYS)
    # The writer stopped, and says that nothing was left out, so that later days have thin data.
    uri, complete_to = storage.to_uri(event_log), datetime(2017, 5, 1, tzinfo=UTC)
    files = dict.fromkeys(list_below(uri, ".parquet"), 1)
    create_entry(uri, EventLogRecord(made_by="planted", complete_to=complete_to, files=files))
    as_of = (word for day in days for word in ("--as-of", day))
    command = ("retrain", "--home", str(home), "--recipe", "smoke", *as_of)
    done = homefeed_local(*command, event_log=event_log)
    output = done.stdout + done.stderr
    return Retrained(
        home=home,
        days=days,
        event_log=event_log,
        command=command,
        returncode=done.returncode,
        output=output,
        # looked at here, before another test starts the services again
        left_running=tuple(processes.marked(processes.marks_of(home))),
        ports_in_use=tuple(port for port in ports_in(output) if not is_free(port)),
    )


def shuffle_actions(folder: Path, start: datetime, end: datetime) -> None:
    """Move every action of [start, end) to a random candidate of its own request.

    Label rates, requests and times stay as they were; what users like is lost.
    """
    rng = np.random.default_rng(5)
    candidates: dict[str, np.ndarray] = {}
    for path in sorted((folder / "impressions").rglob("*.parquet")):
        table = pq.read_table(path, columns=["request_id", "pin_id"]).to_pandas()
        for request_id, pins in table.groupby("request_id")["pin_id"]:
            candidates[request_id] = pins.to_numpy()
    for path in sorted((folder / "actions").rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        acted_at = np.asarray(table["acted_at"])
        in_window = (acted_at >= to_ms(start)) & (acted_at < to_ms(end))
        pin_id = np.asarray(table["pin_id"]).copy()
        request_id = table["request_id"].to_pylist()
        for row in np.flatnonzero(in_window):
            if request_id[row] is not None:
                pin_id[row] = rng.choice(candidates[request_id[row]])
        column = table.schema.get_field_index("pin_id")
        spoilt = table.set_column(column, table.schema.field(column), pa.array(pin_id))
        pq.write_table(spoilt, path)


@pytest.fixture(scope="package")
def lab(retrained: Retrained) -> Iterator[Lab]:
    """The services over the same home, and a log whose later weeks teach nothing.

    They end with the last test of this folder: a scheduler takes a quarter of a core, always.
    """
    third = datetime.fromisoformat(THIRD_DAY).replace(tzinfo=UTC)
    shuffle_actions(retrained.event_log, third - timedelta(days=30), third - timedelta(days=9))
    extra = {**FAST, "HOMEFEED_EVENT_LOG": str(retrained.event_log)}
    with running(LocalHome(retrained.home), DAGS, print, extra) as services:
        api = AirflowApi(services.ports.airflow_url, services.home.password())
        api.unpause()
        yield Lab(services, api)
