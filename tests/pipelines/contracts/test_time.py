"""Times in milliseconds and as people read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import (
    DAY_MS,
    HOUR_MS,
    floor_to_day,
    for_readers,
    parse_instant,
    to_ms,
    with_utc,
)


def test_milliseconds_are_exact_before_and_after_the_epoch_and_named_in_utc() -> None:
    for text, expected in (
        ("1970-01-02T00:00+00:00", DAY_MS),
        ("2017-06-12T01:02:03.999999+00:00", 1_497_229_323_999),
        ("1970-01-01T05:45+05:45", 0),
        ("1969-12-31T00:00+00:00", -24 * HOUR_MS),
    ):
        assert to_ms(datetime.fromisoformat(text)) == expected
    assert with_utc(980_251_200_000) == "980251200000 (2001-01-23 12:00:00 UTC)"
    assert with_utc(-1) == "-1 (1969-12-31 23:59:59 UTC)"
    assert with_utc(1 << 62) == str(1 << 62)  # no calendar has that year


def test_a_day_is_that_of_utc_and_so_is_an_instant_without_a_zone() -> None:
    berlin_night = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
    assert floor_to_day(berlin_night).isoformat() == "2026-02-02T00:00:00+00:00"
    for text in ("2017-06-12", "2017-06-12T02:00:00+02:00"):
        assert parse_instant(text, "--at") == datetime(2017, 6, 12, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match="--at is '12 June'; expected a day such as"):
        parse_instant("12 June", "--at")


@pytest.mark.parametrize(
    ("at", "zone", "there"),
    [
        ("2026-11-28 03:12", "UTC", ""),
        ("2026-11-28 03:12", "Europe/Berlin", "04:12 CET"),
        ("2026-07-28 23:12", "Europe/Berlin", "2026-07-29 01:12 CEST"),
        ("2026-11-28 03:12", "America/Sao_Paulo", "00:12 -03"),
    ],
)
def test_people_read_their_own_time_beside_utc(at: str, zone: str, there: str) -> None:
    in_utc = datetime.fromisoformat(at).replace(tzinfo=UTC)
    told = f"{at} UTC" + (f" ({there}, {zone})" if there else "")
    assert for_readers(in_utc, zone) == told
    assert for_readers(in_utc.astimezone(timezone(timedelta(hours=5))), zone) == told
