from datetime import UTC, datetime, timedelta, timezone

from pipelines.contracts.time import DAY_MS, HOUR_MS, to_ms


def test_milliseconds_are_exact_before_and_after_the_epoch() -> None:
    assert to_ms(datetime(1970, 1, 2, tzinfo=UTC)) == DAY_MS == 24 * HOUR_MS
    assert to_ms(datetime(2017, 6, 12, 1, 2, 3, 999_999, tzinfo=UTC)) == 1_497_229_323_999
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    assert to_ms(datetime(1970, 1, 1, 5, 45, tzinfo=kathmandu)) == 0
    assert to_ms(datetime(1969, 12, 31, tzinfo=UTC)) == -DAY_MS
