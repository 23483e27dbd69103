"""A cause is told once, counted, told again, then told as mended; no kill loses anything."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines import deletion, storage
from pipelines.alerts import incidents, transports
from pipelines.alerts.compose import Ended, alert_about_failure
from pipelines.alerts.incidents import REMIND_AFTER, find_open, tell, tell_recovered
from pipelines.alerts.transports import AlertDeliveryError
from pipelines.contracts.alert import (
    Alert,
    AlertKind,
    AlertReceipt,
    AlertSeverity,
    Cause,
    Cycle,
    NextStep,
)
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.run_layout import failure_uri
from pipelines.recipes import smoke
from pipelines.settings import Settings
from support.judgements import make_promotion
from support.kept_cycles import failure_of
from support.runs import PLANTED_AS_OF, make_run, save_artifact, save_run

AT = PLANTED_AS_OF
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = AlertReceipt(alert=None, delivered_to=())
PROMOTION = make_promotion()


def breaks(
    after: timedelta = timedelta(0),
    run: str = "one",
    recipe: str = "smoke",
    day: int = 0,
    **of: Any,
) -> Alert:
    """Return what is told of a cycle that breaks; another run or time is another alert."""
    known = {"stage": "build_snapshot", "error_class": "DataContractError", "raised_by": "f"}
    at, cause = AT + after, Cause(**({"about": ("rows",)} | known | of))
    return Alert(
        kind=AlertKind.BROKEN_RUN,
        run_id=run,
        about=(cause.stage, at.isoformat()),
        title=f"{run}: {cause.stage} broke",
        happened=f"Seen at {at}.",
        certainty="Certain.",
        done="Nothing.",
        next_step=NextStep(sentence="Look.", commands=()),
        severity=AlertSeverity.CRITICAL,
        at=at,
        cycle=Cycle(day=(AT + day * DAY).date(), recipe=recipe),
        cause=cause,
    )


@dataclass
class Ends:
    """A cycle ends well; it ends at its day."""

    day: int = 0
    recipe: str = "smoke"

    def in_folder(self, folder: Path) -> ResolvedRun:
        """Leave what it leaves."""
        config = smoke().model_copy(update={"source": self.recipe.removeprefix("smoke")})
        run = make_run(folder, config, AT + self.day * DAY, run_id=f"{self.recipe}.{self.day}")
        save_run(run)
        for stage in STAGES[1:]:
            save_artifact(run, stage, PROMOTION if stage == "promote_challenger" else NOTHING)
        return run


@pytest.fixture(autouse=True)
def slack(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Stands for a transport; its `side_effect` is its fault."""
    taken = mock.Mock(side_effect=None)
    monkeypatch.setitem(transports._TRANSPORTS, "slack", taken)
    return taken


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=f"{tmp_path}/workspace", alert_transports=("outbox", "slack"))


def play(folder: Path, settings: Settings, *events: Alert | Ends) -> list[str]:
    """Let things happen; return what was told of each: counted, the number of times, the title."""
    said = []
    for event in events:
        if isinstance(event, Alert):
            receipt = tell(event, settings)
            said.append("counted" if receipt.is_counted else str(receipt.alert.num_times))
        else:
            alert = tell_recovered(event.in_folder(folder).run_uri, settings)
            said.append(alert.title.partition(": ")[2] if alert else "nothing")
    return said


def still_open(settings: Settings) -> list[tuple[str, int]]:
    """Return the recipe of each cause that is open and how often it was met."""
    return [(one.cycle.recipe, one.num_times) for one in find_open(settings).values()]


FIRST, SECOND = breaks(), breaks(HOUR, "two")
OTHER = "other.yaml"
MENDED = "recovered, build_snapshot ended well"


@pytest.mark.parametrize(
    ("events", "said", "left"),
    [
        # The same cause is told once, then counted, then told again with the count.
        (
            (FIRST, breaks(HOUR), breaks(5 * HOUR, "two"), breaks(REMIND_AFTER, "three")),
            ("1", "counted", "counted", "4"),
            [("smoke", 4)],
        ),
        # A task that is retried tells and counts nothing more.
        (
            (FIRST, FIRST, SECOND, FIRST, SECOND),
            ("1", "1", "counted", "1", "counted"),
            [("smoke", 2)],
        ),
        # Another cause is told at once, and each is mended by a cycle that ends.
        *(
            ((FIRST, SECOND, other, Ends()), ("1", "counted", "1", mended), [])
            for other, mended in (
                (breaks(2 * HOUR, stage="alert"), "recovered, build_snapshot, alert ended well"),
                (breaks(2 * HOUR, error_class="E"), MENDED),
                (breaks(2 * HOUR, raised_by="g"), MENDED),
                (breaks(2 * HOUR, about=("2026-11-03",)), MENDED),
            )
        ),
        # A recovery is told once, also where a clock was ahead.
        ((breaks(9 * DAY), Ends(), Ends(), Ends(7)), ("1", MENDED, "nothing", "nothing"), []),
        # A cycle of another recipe or of an earlier day shows nothing.
        ((FIRST, Ends(14)), ("1", MENDED), []),
        ((FIRST, Ends(-14)), ("1", "nothing"), [("smoke", 1)]),
        ((FIRST, Ends(14, OTHER)), ("1", "nothing"), [("smoke", 1)]),
        # A cause that two recipes met is told and mended for each, of the latest day that met it.
        (
            (
                *(FIRST, breaks(HOUR, "two", recipe=OTHER), Ends()),
                *(breaks(2 * HOUR, recipe=OTHER, day=3), Ends(0, OTHER), Ends(3, OTHER)),
            ),
            ("1", "1", MENDED, "counted", "nothing", MENDED),
            [],
        ),
    ],
)
def test_what_is_told_of_what_breaks_and_ends(
    tmp_path: Path, settings: Settings, slack: mock.Mock, events, said, left
) -> None:
    assert tuple(play(tmp_path, settings, *events)) == said
    assert still_open(settings) == left
    num_told = len(said) - said.count("counted") - said.count("nothing")
    num_repeated = 2 if FIRST in events[1:2] else 0  # the same alert, which is on its receipt
    assert slack.call_count == num_told - num_repeated
    num_calls = slack.call_count
    incidents.deliver_left(settings)
    assert slack.call_count == num_calls, "what was only counted waits for no transport"


@pytest.mark.parametrize("is_in_the_outbox", [True, False])
@pytest.mark.parametrize("is_recovery", [True, False])
def test_a_kill_while_it_is_told_neither_loses_nor_repeats_it(
    tmp_path, settings, slack, monkeypatch, is_in_the_outbox: bool, is_recovery: bool
) -> None:
    event = Ends() if is_recovery else FIRST
    play(tmp_path, settings, *([FIRST] if is_recovery else []))
    genuine = incidents.deliver

    def killed(*arguments: object) -> None:
        if is_in_the_outbox:
            slack.side_effect = SystemExit(137)
            genuine(*arguments)
        raise SystemExit(137)

    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        dying.setattr(incidents, "deliver", killed)
        play(tmp_path, settings, event)
    slack.side_effect = None
    slack.reset_mock()
    play(tmp_path, settings, event)
    incidents.deliver_left(settings)
    assert play(tmp_path, settings, event) == ["nothing" if is_recovery else "1"]
    assert slack.call_count == 1
    assert still_open(settings) == ([] if is_recovery else [("smoke", 1)])


def test_where_what_is_open_is_not_known_it_is_told_all_the_same(
    tmp_path: Path, settings: Settings, slack: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(FIRST, settings)
    [entry] = (Path(settings.workspace) / "outbox").glob("*.json")
    entry.write_text("{")
    assert not tell(SECOND, settings).is_counted
    away = mock.Mock(side_effect=TransientStorageError("the disk is away"))
    monkeypatch.setattr(incidents, "read_outbox", away)
    assert not tell(breaks(2 * HOUR, "three"), settings).is_counted
    assert slack.call_count == 3
    away.side_effect = PermissionError("no")  # is not raised into Airflow
    assert play(tmp_path, settings, Ends()) == ["nothing"]


def test_a_transport_that_is_away_costs_the_cycle_nothing_and_gets_it_later_in_order(
    tmp_path: Path, settings: Settings, slack: mock.Mock
) -> None:
    slack.side_effect = OSError("no route")
    with pytest.raises(AlertDeliveryError):
        play(tmp_path, settings, FIRST)
    assert play(tmp_path, settings, SECOND, Ends()) == ["counted", "nothing"]
    assert still_open(settings) == [], "a recovery that was not delivered is told later"
    slack.side_effect = None
    slack.reset_mock()
    incidents.deliver_left(settings)
    assert ["recovered" in call.args[0].subject for call in slack.mock_calls] == [False, True]


@pytest.mark.parametrize("stage", ["promote_challenger", "approve_promotion"])
def test_a_cycle_that_has_not_ended_mends_nothing_and_the_same_run_may_go_on(
    tmp_path: Path, settings: Settings, stage: str
) -> None:
    """`alert` may end before; `approve_promotion` is Airflow's own task, and has no manifest."""
    run = Ends().in_folder(tmp_path)
    failure = failure_of(run, stage, "DataContractError")
    storage.write_model(failure_uri(run.run_uri, stage), failure)
    tell(alert_about_failure(run, settings, Ended(stage)), settings)
    deletion.remove(f"{run.run_uri}/promote_challenger/manifest.json")
    assert tell_recovered(run.run_uri, settings) is None
    assert [one.cause.stage for one in find_open(settings).values()] == [stage]
    save_artifact(run, "promote_challenger", PROMOTION)
    alert = tell_recovered(run.run_uri, settings)
    assert alert is not None and alert.kind is AlertKind.RECOVERED
    assert alert.title.endswith(f"recovered, {stage} ended well")
    assert alert.done == f"Run {run.run_id} has ended, with code {run.code_version}."


def test_a_transport_that_is_switched_on_gets_what_is_unmended_and_once(
    tmp_path: Path, settings: Settings, slack: mock.Mock
) -> None:
    silent = settings.model_copy(update={"alert_transports": ()})
    play(tmp_path, silent, FIRST, breaks(HOUR), breaks(HOUR, "two", recipe=OTHER), Ends(0, OTHER))
    assert slack.call_count == 0
    for _ in range(2):
        incidents.deliver_left(settings)
    assert slack.call_count == 1, "neither what was only counted nor what is mended"
