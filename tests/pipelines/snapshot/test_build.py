"""Windows without the rows that a snapshot needs are refused."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.tiny_log import assert_refused, january, tiny_actions, tiny_impressions, write_tiny_log


@pytest.mark.parametrize(
    "as_of", [datetime(2016, 6, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)]
)
def test_an_as_of_outside_the_log_says_what_it_covers(log: Path, as_of: datetime) -> None:
    assert_refused(log.parent, "covers 2017-01-14 to 2017-01-19; choose an as_of", as_of=as_of)


def test_rows_that_all_became_known_too_late_leave_an_empty_window(log: Path) -> None:
    late = [row | {"known_at": january("25 00:00")} for row in tiny_impressions()]
    write_tiny_log(log, impressions=late)
    assert_refused(
        log.parent, "no impressions known before as_of 2017-01-20 in the training window"
    )


@pytest.mark.parametrize(("request_id", "window"), [("C", "holdout"), ("A", "training")])
def test_a_window_without_positives_is_refused(log: Path, request_id: str, window: str) -> None:
    actions = [a for a in tiny_actions() if a["request_id"] != request_id and a["user_id"] == 1]
    write_tiny_log(log, actions=actions)
    assert_refused(log.parent, f"no impression in the {window} window .* got a 'repin' within 24 h")
