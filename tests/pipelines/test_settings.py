"""Settings come from the environment; a name that is no longer one is refused."""

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings


def test_a_former_name_is_refused_and_the_new_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_SCHEDULE_START", "2026-02-02T06:00:00+00:00")
    assert Settings().schedule_start == "2026-02-02T06:00:00+00:00"
    monkeypatch.setenv("HOMEFEED_ANCHOR", "2026-01-05T06:00:00+00:00")
    with pytest.raises(ConfigurationError, match="is called HOMEFEED_SCHEDULE_START now"):
        Settings()


@pytest.mark.parametrize("text", ["0", "-0.5", "1", "7", "nan", "inf"])
def test_a_lateness_of_a_period_or_more_and_of_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HOMEFEED_LATENESS_PERIODS", text)
    with pytest.raises(
        ConfigurationError, match=f"HOMEFEED_LATENESS_PERIODS is {text}; expected 0.01 to 0.99"
    ):
        Settings()


@pytest.mark.parametrize("text", ["0.01", "0.5", "0.99"])
def test_a_lateness_within_a_period_is_taken(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOMEFEED_LATENESS_PERIODS", text)
    assert Settings().lateness_periods == float(text)
