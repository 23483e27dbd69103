"""Which as_of an Airflow run gets."""

from datetime import UTC, datetime

import pytest

from pipelines.contracts import errors
from pipelines.orchestration.resolving import choose_as_of

END = datetime(2026, 1, 19, 6, tzinfo=UTC)
NOW = datetime(2026, 2, 3, 17, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    "param, interval_end, expected_day",
    [
        ("2017-06-12", END, "2017-06-12"),
        (None, END, "2026-01-19"),
        ("", END, "2026-01-19"),
        (None, None, "2026-02-03"),
    ],
)
def test_as_of_is_the_param_else_the_interval_end_else_now(param, interval_end, expected_day):
    found = choose_as_of(param, interval_end, NOW)
    assert found.isoformat() == f"{expected_day}T00:00:00+00:00"


def test_as_of_is_floored_in_utc():
    berlin_night = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
    assert choose_as_of(None, None, berlin_night).isoformat() == "2026-02-02T00:00:00+00:00"


def test_an_as_of_that_is_no_day_is_refused():
    with pytest.raises(errors.ConfigurationError, match="'yesterday'"):
        choose_as_of("yesterday", None, NOW)
