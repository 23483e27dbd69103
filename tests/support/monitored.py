"""A champion and a newer challenger over MLflow's own store, and a log that both are scored on."""

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.alerts.transports import read_outbox
from pipelines.contracts.alert import Alert
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.monitor import Watch
from pipelines.contracts.time import Window
from pipelines.monitor.watching import watch
from pipelines.settings import Settings
from pipelines.snapshot.build import write_snapshot
from support.bundles import chance_bundle
from support.comparisons import comparison
from support.desk import Desk
from support.judgements import interval
from support.registered import NOW
from support.runs import make_run
from support.worlds import write_planted_world

TRAINED = datetime(2017, 2, 10, tzinfo=UTC)
PROMOTED = datetime(2017, 2, 26, 6, tzinfo=UTC)
AT = datetime(2017, 3, 2, 9, tzinfo=UTC)
"""When the monitor runs: the log ends with 1 March, so 28 February is the newest mature day."""
NEWEST = date(2017, 2, 28)


@dataclass
class Monitored:
    """What is monitored, and what came of it."""

    desk: Desk
    settings: Settings
    champion: ModelRef
    challenger: ModelRef

    def place(self, *parts: str) -> Path:
        """Return a place in the workspace."""
        return storage.local_path(self.settings.workspace_location).joinpath(*parts)

    def folder(self) -> Path:
        """Return where the champion's days lie."""
        return self.place("monitor", self.desk.name, self.champion.bundle_digest)

    def look(self, at: datetime = AT, **more: Any) -> Watch:
        """Let the monitor run; what it cannot find out fails the test."""
        due = more.pop("due", None)
        found, errors = watch(self.settings.model_copy(update=more), at, due)
        assert errors == []
        return found

    def days(self) -> dict[str, Comparison]:
        """Return what was measured, by day."""
        paths = sorted(self.folder().glob("*.json"))
        return {path.stem: Comparison.from_record(path.read_bytes()) for path in paths}

    def told(self) -> list[Alert]:
        """Return all alerts in their order."""
        return [alert for _, alert in read_outbox(self.settings)]

    def kinds(self) -> list[str]:
        """Return what was told, and what was told as mended."""
        causes = [(alert.kind, alert.cause) for alert in self.told()]
        return [f"{'-' * (kind == 'recovered')}{c.error_class}" for kind, c in causes if c]

    def plant(self, *changes: float, error: float = 0.01, calibration: float = 1.0) -> None:
        """Write days of these changes of the target metric, the last of them the newest."""
        for n, change in enumerate(reversed(changes)):
            day, reach = NEWEST - timedelta(days=n), 1.96 * error
            found = comparison(
                interval(change, change - reach, change + reach),
                baseline_model=self.challenger,
            )
            rows = tuple(
                row.model_copy(
                    update={
                        "challenger": calibration,
                        "challenger_interval": interval(calibration, 0.9, calibration + 0.1),
                    }
                )
                if row.metric == "calibration_ratio.repin"
                else row
                for row in found.metrics
            )
            start = datetime.combine(day, time(), UTC)
            holdout = Window(start=start, end=start + timedelta(days=1))
            uri = storage.to_uri(self.folder() / f"{day}.json")
            planted = {"metrics": rows, "holdout": holdout}
            storage.write_model(uri, found.model_copy(update=planted))


@pytest.fixture(scope="session")
def monitored_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted log, and two bundles whose weights are drawn."""
    folder = tmp_path_factory.mktemp("world")
    write_planted_world(folder / "event_log", num_users=200, requests_per_user_day=1.0)
    run = make_run(folder, as_of=TRAINED)
    snapshot = write_snapshot(run)
    for seed in (1, 2, 3):
        chance_bundle(folder / f"bundle-{seed}", snapshot, run.config, seed)
    return folder


@pytest.fixture
def monitored(desk: Desk, monitored_world: Path) -> Monitored:
    """A champion that serves since 26 February, and a challenger that was not promoted."""
    shutil.copytree(monitored_world / "event_log", desk.folder / "event_log")
    log = {"event_log": str(desk.folder / "event_log"), "recipe": "smoke"}
    settings = desk.settings.model_copy(update=log)
    first = desk.cycle(0, as_of=TRAINED)
    champion = desk.register(first, bundle=monitored_world / "bundle-1")
    desk.promote(first, champion, days=(PROMOTED - NOW) / timedelta(days=1))
    second = desk.cycle(1, as_of=TRAINED + timedelta(days=7))
    challenger = desk.register(second, bundle=monitored_world / "bundle-2")
    return Monitored(desk, settings, champion, challenger)
