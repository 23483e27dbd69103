"""`homefeed status` and `alert test`: what is printed, and which code ends them."""

from pathlib import Path
from unittest import mock

import pytest

from pipelines.alerts import transports
from support.commands import as_json, homefeed, refusal
from support.kept_cycles import begin

pytestmark = pytest.mark.usefixtures("home")


def test_status_is_printed_and_the_code_says_that_mlflow_was_silent(tmp_path: Path) -> None:
    run = begin(tmp_path)
    shown = homefeed("status")
    assert "2017-03-02  not ended: build_snapshot has not ended." in shown.output
    assert shown.exception.exit_code == 75  # type: ignore[union-attr]
    read = as_json("status")
    assert [cycle["run_uri"] for cycle in read["cycles"]] == [run.run_uri]
    assert read["champion"]["is_confirmed"] is False
    assert "MLflow at" in read["problems"][0]


def test_an_alert_is_sent_through_every_transport_to_try_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert as_json("alert", "test")["delivered_to"] == ["outbox"]
    monkeypatch.setenv("HOMEFEED_ALERT_TRANSPORTS", '["smtp", "slack"]')
    said = str(refusal("alert", "test"))  # HOMEFEED_ALERT_EMAIL_TO is empty, Slack has no address
    assert "smtp: HOMEFEED_ALERT_EMAIL_TO is empty" in said and "slack: " in said
    sent = mock.Mock()
    for name in ("smtp", "slack"):
        monkeypatch.setitem(transports._TRANSPORTS, name, sent)
    assert as_json("alert", "test")["delivered_to"] == ["outbox", "smtp", "slack"]
    assert sent.call_count == 4  # What had waited since the connections were wrong goes out too.
