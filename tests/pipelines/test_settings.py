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


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HOME", "TRACKING_URI", "RETRY_DELAY_S", "ALERT_TRANSPORTS", "COMMAND")
    for name in names:
        monkeypatch.delenv(f"HOMEFEED_{name}", raising=False)
    usual = Settings()
    for name in names:
        monkeypatch.setenv(f"HOMEFEED_{name}", "")
    assert Settings() == usual
    assert Settings().workspace_location == ".homefeed/workspace"
