"""A rollback by Airflow moves the champion once and tells the asset, also where it was killed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError
from pipelines.orchestration.rolling_back import roll_back
from pipelines.registry import history, registry, tracking
from support.registered import NOW, promote_bundle
from support.runs import make_run

pytestmark = pytest.mark.services
CHAMPION = Asset("homefeed/champion", uri="homefeed://champion")
FIRST = datetime(2017, 6, 12, tzinfo=UTC)


class Events(list[dict[str, str]]):
    """Stands for Airflow's record of what a task has updated."""

    def add(self, asset: Asset, extra: dict[str, str]) -> None:
        assert asset == CHAMPION
        self.append(extra)


def form(**values: str | None) -> dict[str, Any]:
    return {"to_version": None, "from_version": None, "reason": "hides rose", **values}


def run_of(begun: datetime) -> Any:
    return SimpleNamespace(start_date=begun)


@pytest.fixture
def two(
    tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[ResolvedRun, ModelRef, ModelRef]:
    """The second cycle's run, and the models of two cycles, the second of which serves."""
    client, name = tracking.connect(tracking_uri), f"rolled_{tmp_path.name}"
    places = {"tracking_uri": tracking_uri, "registered_model": name, "experiment": name}
    run = make_run(tmp_path, as_of=FIRST, **places)
    first = promote_bundle(client, run, tmp_path)
    later = make_run(tmp_path, as_of=FIRST + timedelta(days=14), champion=first, **places)
    second = promote_bundle(client, later, tmp_path, NOW + timedelta(days=14))
    monkeypatch.setenv("HOMEFEED_WORKSPACE", run.workspace_uri)
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", name)
    return later, first, second


def test_it_moves_once_and_a_retry_tells_the_asset_again(
    two: tuple[ResolvedRun, ModelRef, ModelRef], tracking_uri: str
) -> None:
    run, first, second = two
    begun, events = run_of(datetime.now(UTC) - timedelta(seconds=5)), Events()
    said = roll_back(form(), begun, events, CHAMPION)
    assert said == f"{first.label} serves, in place of {second.label}"
    found = registry.read_champion(tracking.connect(tracking_uri), run.registered_model)
    assert found == first
    index = storage.read_bytes(f"{run.workspace_uri}/cycles.html").decode()
    assert f">{first.label}</p>" in index, "the index of all cycles says who serves"
    # As after a kill between the move and the end of the task.
    roll_back(form(), begun, events, CHAMPION)
    assert events == [{"version": first.version, "reason": "hides rose"}] * 2
    assert len(history.read(run.workspace_uri, run.registered_model)) == 3


def test_a_form_that_is_sent_twice_is_skipped_the_second_time(
    two: tuple[ResolvedRun, ModelRef, ModelRef],
) -> None:
    roll_back(form(), run_of(datetime.now(UTC) - timedelta(seconds=5)), Events(), CHAMPION)
    events = Events()
    with pytest.raises(AirflowSkipException, match=r"nothing was moved: .*hides rose"):
        roll_back(form(), run_of(datetime.now(UTC) + timedelta(seconds=5)), events, CHAMPION)
    assert events == []


def test_what_cannot_be_gone_back_to_is_an_error(
    two: tuple[ResolvedRun, ModelRef, ModelRef],
) -> None:
    events = Events()
    with pytest.raises(ConfigurationError, match="is the champion already"):
        serving = form(to_version=two[2].version)
        roll_back(serving, run_of(datetime.now(UTC)), events, CHAMPION)
    assert events == []
