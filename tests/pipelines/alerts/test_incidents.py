"""The same cause is told once, then counted, then told again; a kill at any point loses nothing."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts import incidents, transports
from pipelines.alerts.incidents import (
    LAPSES_AFTER,
    REMIND_AFTER,
    IncidentRecord,
    cause_of,
    record_uri,
    tell,
)
from pipelines.alerts.transports import deliver_waiting, entry_uri
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.judged.alert import (
    Alert,
    AlertKind,
    AlertReceipt,
    AlertSeverity,
    Cycle,
    NextStep,
)
from pipelines.settings import Settings

AT = datetime(2026, 11, 28, 3, 12, tzinfo=UTC)
SMOKE = Cycle(day=date(2026, 11, 28), recipe="smoke")


def make_alert(run: str = "one", after: timedelta = timedelta(0), cause: str = "c") -> Alert:
    """An alert about a failure; another run or another time has other words."""
    return Alert(
        kind=AlertKind.BROKEN_RUN,
        run_id=run,
        title="Homefeed retrain 2026-11-28: build_snapshot broke",
        happened=f"DataContractError in build_snapshot at {AT + after}:\nno rows",
        certainty="Certain.",
        done="Nothing.",
        next_step=NextStep(sentence="Look.", commands=()),
        severity=AlertSeverity.CRITICAL,
        at=AT + after,
        cycle=SMOKE,
        cause=f"build_snapshot:{cause}",
    )


class Taken:
    """Stands for a transport; keeps the subjects that it took."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.fault: BaseException | None = None

    def send(self, rendered, settings) -> None:  # type: ignore[no-untyped-def]
        if self.fault is not None:
            raise self.fault
        self.subjects.append(rendered.subject)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Taken:
    taken = Taken()
    monkeypatch.setitem(transports._TRANSPORTS, "slack", taken.send)
    return taken


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=str(tmp_path), alert_transports=("outbox", "slack"))


def record_of(settings: Settings) -> IncidentRecord:
    return storage.read_model(record_uri(settings), IncidentRecord)


def test_the_same_cause_is_told_once_then_counted_then_told_again_with_the_count(
    slack: Taken, settings: Settings
) -> None:
    assert not tell(make_alert(), settings).is_counted
    for hours, run in ((1, "one"), (5, "two")):
        counted = tell(make_alert(run, timedelta(hours=hours)), settings)
        assert counted.is_counted and counted.delivered_to == ("outbox",)
    assert len(slack.subjects) == 1
    again = tell(make_alert("three", REMIND_AFTER), settings)
    assert not again.is_counted
    assert slack.subjects[1:] == [
        "[homefeed] critical: (4th time) Homefeed retrain 2026-11-28: build_snapshot broke"
    ]
    text = storage.read_bytes(
        entry_uri(make_alert("three", REMIND_AFTER), settings).replace(".json", ".txt")
    ).decode()
    assert "Again: the 4th time since 2026-11-28 03:12 UTC" in text
    [incident] = record_of(settings).open
    assert (incident.num_times, incident.first_at, incident.run_id) == (4, AT, "three")
    assert incident.cycles == (SMOKE,)


def test_a_cause_that_was_not_met_for_long_has_lapsed_and_begins_anew(
    slack: Taken, settings: Settings
) -> None:
    tell(make_alert(), settings)
    tell(make_alert("two", LAPSES_AFTER / 2), settings)
    anew = tell(make_alert("three", LAPSES_AFTER * 3 / 2), settings)
    assert anew.alert is not None and anew.alert.first_at is None
    [incident] = record_of(settings).open
    assert (incident.num_times, incident.first_at) == (1, AT + LAPSES_AFTER * 3 / 2)
    assert "time)" in slack.subjects[1] and "time)" not in slack.subjects[2]


def test_another_cause_is_told_at_once(slack: Taken, settings: Settings) -> None:
    tell(make_alert(), settings)
    tell(make_alert("one", timedelta(minutes=1), cause="another"), settings)
    assert len(slack.subjects) == 2 and len(record_of(settings).open) == 2


def test_a_task_that_is_retried_tells_and_counts_nothing_more(
    slack: Taken, settings: Settings
) -> None:
    tell(make_alert(), settings)
    counted = make_alert("two", timedelta(hours=1))
    for alert in (make_alert(), counted, make_alert(), counted):
        tell(alert, settings)
    assert len(slack.subjects) == 1 and record_of(settings).open[0].num_times == 2


def test_what_was_only_counted_waits_for_no_transport(slack: Taken, settings: Settings) -> None:
    tell(make_alert(), settings)
    tell(make_alert("two", timedelta(hours=1)), settings)
    assert deliver_waiting(settings) == () and len(slack.subjects) == 1


def test_what_a_run_names_of_itself_makes_no_other_cause() -> None:
    def cause(run: str, day: str = "2026-11-02") -> str:
        said = (
            f"no rows of {day} in file:///w/runs/{run}/build_snapshot/output-0001-{run[-8:]}, "
            f"as of 2026-11-28 {run[-2:]}:10:00 UTC; snapshot {run[-8:]}{run[-8:]}"
        )
        return cause_of("build_snapshot", "DataContractError", said, run)

    assert cause("2026-11-28--00000001") == cause("2026-11-28--00000002")
    assert cause("2026-11-28--00000001") != cause("2026-11-28--00000001", "2026-11-03"), (
        "another missing day"
    )
    assert cause_of("s", "A", "m", "r") != cause_of("s", "B", "m", "r")
    assert cause_of("s", "A", "m", "r") != cause_of("t", "A", "m", "r")


def test_a_kill_while_it_is_sent_leaves_it_waiting_and_the_next_is_only_counted(
    slack: Taken, settings: Settings
) -> None:
    slack.fault = SystemExit(137)
    with pytest.raises(SystemExit):
        tell(make_alert(), settings)
    slack.fault = None
    assert tell(make_alert("two", timedelta(hours=1)), settings).is_counted
    assert slack.subjects == [
        "[homefeed] critical: Homefeed retrain 2026-11-28: build_snapshot broke"
    ]
    assert record_of(settings).open[0].num_times == 2 and record_of(settings).untold == ()


def test_a_kill_before_the_outbox_has_it_leaves_it_untold_and_the_next_one_tells_it(
    slack: Taken, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        dying.setattr(incidents, "deliver", killed)
        tell(make_alert(), settings)
    assert [each.alert.run_id for each in record_of(settings).untold] == ["one"]
    tell(make_alert("two", timedelta(hours=1)), settings)
    assert len(slack.subjects) == 1 and record_of(settings).untold == ()


@pytest.mark.parametrize("is_damaged", [True, False])
def test_without_the_record_it_is_told_all_the_same(
    slack: Taken, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    if is_damaged:
        storage.write_bytes(record_uri(settings), b"{")
    else:
        genuine = storage.write_over

        def full(uri: str, *arguments: object) -> object:
            if uri == record_uri(settings):
                raise TransientStorageError("the disk is full")
            return genuine(uri, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(storage, "write_over", full)
    for run in ("one", "two"):
        assert tell(make_alert(run), settings).delivered_to == ("outbox", "slack")
    assert len(slack.subjects) == 2


def test_a_transport_that_is_away_is_told_late_and_the_cause_counts_as_told(
    slack: Taken, settings: Settings
) -> None:
    slack.fault = OSError("no route")
    with pytest.raises(transports.AlertDeliveryError):
        tell(make_alert(), settings)
    assert record_of(settings).untold == (), "the outbox has it"
    slack.fault = None
    assert deliver_waiting(settings) == ("one",)
    assert tell(make_alert("two", timedelta(hours=1)), settings).is_counted


def test_the_record_is_kept_on_an_object_store(s3_uri: str, slack: Taken) -> None:
    settings = Settings(workspace=s3_uri, alert_transports=("outbox", "slack"))
    tell(make_alert(), settings)
    assert tell(make_alert("two", timedelta(hours=1)), settings).is_counted
    [incident] = record_of(settings).open
    assert incident.num_times == 2 and len(slack.subjects) == 1


def test_an_alert_without_a_cause_in_an_older_outbox_is_still_sent(
    slack: Taken, settings: Settings
) -> None:
    """Its file is named by the digest of the words that alerts had then."""
    old = make_alert().model_dump(mode="json")
    for name in ("severity", "at", "cycle", "mended_cycles", "cause", "num_times", "first_at"):
        del old[name]
    alert = Alert.model_validate(old)
    receipt = AlertReceipt(alert=alert, delivered_to=("outbox",), waiting_for=("slack",))
    uri = entry_uri(alert, settings)
    assert uri.endswith(f".{incidents.digest_of(old)[:8]}.json")
    storage.write_model(uri, receipt)
    assert deliver_waiting(settings) == ("one",)
    assert slack.subjects == [
        "[homefeed] warning: (sent late) Homefeed retrain 2026-11-28: build_snapshot broke"
    ]
