"""One planted world, one `homefeed local retrain` over it, and one running Airflow, per session."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.airflow_home import use_temporary_airflow_home

use_temporary_airflow_home()

from support.lab import Lab, homefeed_local, open_lab  # noqa: E402 - after AIRFLOW_HOME is set
from support.spoil import shuffle_actions  # noqa: E402
from support.worlds import write_planted_world  # noqa: E402

FIRST_DAY, SECOND_DAY, THIRD_DAY = "2017-03-02", "2017-03-16", "2017-04-20"
NUM_DAYS = 110


@dataclass(frozen=True)
class Retrained:
    """A home in which `homefeed local retrain` has run two cycles, and what it printed."""

    home: Path
    event_log: Path
    returncode: int
    output: str


@pytest.fixture(scope="session")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    folder = tmp_path_factory.mktemp("lab")
    event_log = folder / "event_log"
    write_planted_world(event_log, num_users=120, num_days=NUM_DAYS)
    done = homefeed_local(
        *("retrain", "--home", str(folder / "home"), "--recipe", "smoke"),
        *("--as-of", FIRST_DAY, "--as-of", SECOND_DAY),
        event_log=event_log,
    )
    return Retrained(folder / "home", event_log, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="session")
def lab(retrained: Retrained) -> Iterator[Lab]:
    """The services over the same home, and a log whose later weeks teach nothing."""
    third = datetime.fromisoformat(THIRD_DAY).replace(tzinfo=UTC)
    shuffle_actions(retrained.event_log, third - timedelta(days=30), third - timedelta(days=9))
    with open_lab(retrained.home, retrained.event_log) as lab:
        yield lab
