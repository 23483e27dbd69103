"""A transport that was away gets its alerts later, once, and says that they are late."""

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.sending import AlertDeliveryError
from pipelines.alerts.transports import deliver, deliver_waiting, entry_uri
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt, NextStep
from pipelines.settings import Settings

ALERT = Alert(
    kind=AlertKind.REGRESSION,
    run_id="2017-06-12--abcd1234",
    title="Homefeed retrain: v4 is worse",
    happened="It lost.",
    certainty="Quite.",
    done="Nothing.",
    next_step=NextStep(sentence="Look.", commands=()),
)


class Slack:
    """Stands for a transport that is away for a while."""

    def __init__(self) -> None:
        self.is_away, self.taken = True, list[str]()

    def send(self, rendered, settings) -> None:  # type: ignore[no-untyped-def]
        if self.is_away:
            raise OSError("no route")
        self.taken.append(rendered.subject)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Slack:
    away = Slack()
    monkeypatch.setitem(transports._TRANSPORTS, "slack", away.send)
    return away


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=str(tmp_path), alert_transports=("outbox", "slack"))


def receipt_in(settings: Settings) -> AlertReceipt:
    return storage.read_model(entry_uri(ALERT, settings), AlertReceipt)


def test_it_is_sent_once_when_the_transport_is_back(slack: Slack, settings: Settings) -> None:
    for _ in range(2):
        with pytest.raises(AlertDeliveryError):
            deliver(ALERT, settings)
    assert receipt_in(settings).waiting_for == ("slack",)
    assert deliver_waiting(settings) == () == tuple(slack.taken)  # it is still away
    slack.is_away = False
    assert deliver_waiting(settings) == (ALERT.run_id,)
    assert slack.taken == ["[homefeed] warning: (sent late) Homefeed retrain: v4 is worse"]
    assert receipt_in(settings).waiting_for == ()
    assert receipt_in(settings).delivered_to == ("outbox", "slack")
    assert deliver_waiting(settings) == () and len(slack.taken) == 1


def test_a_kill_while_it_is_sent_leaves_it_waiting(
    slack: Slack, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setitem(transports._TRANSPORTS, "slack", killed)
        deliver(ALERT, settings)
    assert receipt_in(settings).waiting_for == ("slack",)
    slack.is_away = False
    assert deliver_waiting(settings) == (ALERT.run_id,)


def test_what_is_away_is_asked_once_and_not_for_each_alert(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away(*_: object) -> None:
        asked.append(1)
        raise OSError("no route")

    monkeypatch.setitem(transports._TRANSPORTS, "slack", away)
    for number in range(3):
        with pytest.raises(AlertDeliveryError):
            deliver(ALERT.model_copy(update={"run_id": f"run-{number}"}), settings)
    assert deliver_waiting(settings) == () and len(asked) == 3 + 1


def test_a_transport_that_was_added_later_gets_no_old_alerts(
    slack: Slack, settings: Settings
) -> None:
    deliver(ALERT, settings.model_copy(update={"alert_transports": ("outbox",)}))
    slack.is_away = False
    assert deliver_waiting(settings) == () == tuple(slack.taken)


def test_a_damaged_receipt_keeps_no_other_from_being_sent(
    slack: Slack, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(AlertDeliveryError):
        deliver(ALERT, settings)
    (tmp_path / "outbox" / "0.json").write_text("{")
    slack.is_away = False
    assert deliver_waiting(settings) == (ALERT.run_id,)


def test_an_empty_workspace_has_nothing_to_send(settings: Settings) -> None:
    assert deliver_waiting(settings) == ()
