"""Due instants are exact, on both sides of the start; a start that is none is named."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.orchestration.grid import TICK, Grid, grid_of
from pipelines.settings import Settings

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
PERIOD = timedelta(days=14)
GRID = Grid(START, PERIOD)


@pytest.mark.parametrize("number", [-3, 0, 1, 1000])
def test_an_instant_that_is_due_is_the_first_and_the_last_at_itself(number: int) -> None:
    due = START + number * PERIOD
    assert GRID.at_or_after(due) == due
    assert GRID.at_or_after(due + TICK) == due + PERIOD
    assert GRID.after(due) == due + PERIOD
    assert GRID.at_or_before(due) == due
    assert GRID.at_or_before(due - TICK) == due - PERIOD


def test_an_uneven_period_does_not_drift_in_a_century() -> None:
    grid = Grid(START, timedelta(seconds=86400 / 7))
    due = START + 100 * 365 * 7 * grid.period
    assert grid.at_or_after(due) == due
    assert grid.at_or_after(due + TICK) == due + grid.period


def test_the_ends_of_a_span_are_left_out() -> None:
    assert GRID.between(START, START + 3 * PERIOD) == (START + PERIOD, START + 2 * PERIOD)
    assert GRID.between(START - TICK, START) == ()
    assert GRID.between(START - TICK, START + TICK) == (START,)
    assert GRID.between(START + PERIOD, START) == ()


def test_a_deployment_says_start_and_cadence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_SCHEDULE_START", "2026-01-05T08:00:00+02:00")
    monkeypatch.setenv("HOMEFEED_CADENCE_DAYS", "3.5")
    assert grid_of(Settings()) == Grid(START, timedelta(days=3.5))


@pytest.mark.parametrize("written", ["Monday", "2026-01-05T06:00:00"])
def test_a_start_without_a_time_zone_is_named(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEFEED_SCHEDULE_START", written)
    with pytest.raises(ConfigurationError, match=f"HOMEFEED_SCHEDULE_START is '{written}'"):
        grid_of(Settings())
