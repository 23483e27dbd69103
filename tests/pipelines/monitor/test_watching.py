"""What is wrong is told once with numbers and a command, and once that it is mended."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from html import unescape
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from pipelines import storage
from pipelines.alerts import transports
from pipelines.alerts.incidents import find_open, tell_recovered
from pipelines.contracts.decay import CadenceCost, Decay, DecayCurve, DecayPoint
from pipelines.contracts.errors import DataContractError
from pipelines.cycles.index import read_index
from pipelines.monitor.watching import early_retrain, read_watch, watch
from pipelines.overview.status import lines_of, read_status
from pipelines.recipes import smoke
from pipelines.storage import write_model
from support.commands import as_json, homefeed
from support.judgements import interval
from support.kept_cycles import begin, end
from support.monitored import AT, TRAINED, Monitored
from support.registered import NOW
from validation.report.cycles_page import render_cycles

DAY = timedelta(days=1)
STEADY = np.random.default_rng(3).normal(0, 0.008, 14).tolist()
LOSING = [*STEADY[:9], *(each - 0.03 for each in STEADY[9:])]
REGRESSED, LATE = "champion_regressed", "data_late"


def decay(
    monitored: Monitored,
    loss: float = 0.02,
    costs: Mapping[float | None, float] = MappingProxyType({}),
) -> None:
    """Write what age costs: so much after 14 days, and what cadences cost."""
    points = [
        DecayPoint(lag_days=lag, num_pairs=5, change=interval(-loss * lag / 14), error=0.001)
        for lag in (7, 14, 28)
    ]
    recipe = smoke()
    curve = DecayCurve(metric="repin_volume_at_3", confidence=0.95, critical=2, points=points)
    known = Decay(
        recipe="smoke",
        recipe_digest=recipe.recipe_digest,
        code_digest="c" * 64,
        target_metric=curve.metric,
        measured_at=AT,
        as_of=(TRAINED,),
        curves=(curve,),
        core_hours=1.0,
        cadences=[
            CadenceCost(
                days=days,
                lost=interval(0.01),
                kept=interval(0.01),
                core_hours=1.0,
                cost=interval(cost),
            )
            for days, cost in costs.items()
        ],
    )
    place = monitored.place("decay", recipe.recipe_digest, "decay.json")
    write_model(storage.to_uri(place), known)


def test_a_steady_champion_is_told_to_nobody_and_shown_with_its_numbers(
    monitored: Monitored,
) -> None:
    monitored.plant(*STEADY)
    found = monitored.look()
    assert monitored.told() == [] and found.evidence < 1
    assert found.measured is not None and found.measured.low < 0 < found.measured.high
    assert found.expected is None and "give `homefeed decay`" in found.sentence
    assert f"19 days old on 2017-02-28: change against {found.reference} " in found.sentence
    assert read_watch(monitored.settings) == found


def test_the_command_status_and_the_home_page_show_it(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitored.plant(*STEADY)
    places = ("event_log", "workspace", "registered_model", "tracking_uri", "recipe")
    for name in places:
        monkeypatch.setenv(f"HOMEFEED_{name.upper()}", str(getattr(monitored.settings, name)))
    status, _ = read_status(monitored.settings, AT, 1)
    assert "  20 days old; monitor: never ran (`homefeed monitor`)" in lines_of(status)
    found = as_json("monitor")
    assert found["days"][-1] == "2017-02-28" and found["champion"]["version"] == "1"
    assert homefeed("monitor").output.startswith(monitored.champion.label)
    status, _ = read_status(monitored.settings, AT, 1)
    assert status.watch is not None and status.next_due is not None
    assert f"  20 days old; monitor: {status.watch.sentence}" in lines_of(status)
    facts = read_index(status.workspace_uri, monitored.settings)
    told = status.watch.sentence
    assert told in unescape(monitored.place("cycles.html").read_text())
    assert f"20 days old. {told}" in unescape(render_cycles(facts, AT))


def test_a_loss_is_told_once_and_its_end_once(monitored: Monitored) -> None:
    monitored.plant(*LOSING)
    for hours in (0, 1, 24):
        found = monitored.look(AT + timedelta(hours=hours))
    [alert] = monitored.told()
    assert alert.title.endswith(f"{monitored.champion.label} loses more than its age explains")
    assert found.evidence >= 1 and alert.happened == found.sentence
    assert (
        "on 14 day(s), 100% of an alarm's evidence; expected by age: unknown (give"
        in alert.happened
    )
    [(_, first), *_] = alert.next_step.commands
    assert "homefeed retrain --as-of 2017-03-02 --recipe smoke" in first
    [(_, incident)] = find_open(monitored.settings).items()
    assert incident.cause.about == (monitored.champion.bundle_digest,)
    cycle = monitored.desk.cycle(2, as_of=TRAINED + 14 * DAY)
    monitored.desk.promote(cycle, monitored.challenger, days=(AT - NOW) / DAY)
    for hours in (30, 31):
        monitored.look(AT + timedelta(hours=hours))
    assert monitored.kinds() == [REGRESSED, f"-{REGRESSED}"]
    assert find_open(monitored.settings) == {}


def test_how_days_varied_under_earlier_champions_counts_and_damage_there_stops_nothing(
    monitored: Monitored,
) -> None:
    monitored.plant(*(0.05 * (-1) ** n for n in range(14)))
    cycle = monitored.desk.cycle(2, as_of=TRAINED + 14 * DAY)
    monitored.desk.promote(cycle, monitored.challenger, days=(AT - NOW) / DAY)
    other = {"champion": monitored.challenger, "challenger": monitored.champion}
    later = replace(monitored, **other)
    later.plant(*LOSING)
    assert later.look().evidence < 1 and later.told() == []
    for path in monitored.folder().glob("*.json"):
        path.write_text("{")
    assert later.look().evidence >= 1


def test_a_cycle_that_has_ended_mends_no_finding_of_the_monitor(monitored: Monitored) -> None:
    monitored.plant(*LOSING)
    monitored.look()
    run = begin(monitored.desk.folder)
    end(run)
    tell_recovered(run.run_uri, monitored.settings)
    assert monitored.kinds() == [REGRESSED] and find_open(monitored.settings)


def test_what_its_age_lets_expect_is_no_loss(monitored: Monitored) -> None:
    monitored.plant(*(each - 0.015 for each in STEADY))
    decay(monitored, loss=0.035)  # 18.5 days against 11.5: 1.75 % are expected.
    found = monitored.look()
    assert monitored.told() == [] and found.expected is not None
    assert found.expected.value == pytest.approx(-0.0175, abs=1e-4)
    assert "price unknown (`--value`)" in found.sentence
    shutil.rmtree(monitored.place("decay"))
    monitored.look()
    assert monitored.kinds() == [REGRESSED]


@pytest.mark.parametrize(("ratio", "word"), [(0.3, "little"), (2.6, "much"), (1.4, "")])
def test_predictions_that_are_off_are_told_without_any_other_model(
    monitored: Monitored, ratio: float, word: str
) -> None:
    monitored.plant(*STEADY, calibration=ratio)
    told = [f"{each} predicts too {word}" for each in [monitored.champion.label] if word]
    assert f"over observed {ratio:.2f}." in monitored.look().sentence
    assert [each.title.partition("monitor: ")[2] for each in monitored.told()] == told


def test_older_than_its_price_needs_the_value_of_volume(monitored: Monitored) -> None:
    monitored.plant(*STEADY)
    decay(monitored)
    assert monitored.look().pays_after_days is None and monitored.told() == []
    decay(monitored, costs={14: 2.0, 28: 3.0, None: 9.0})
    assert monitored.look().pays_after_days == 14
    [alert] = monitored.told()
    assert alert.cause and alert.cause.error_class == "champion_old"
    assert "It is 20 days old, and a new model every 14 days costs least" in alert.happened
    assert "-2.91% (-3.11% to -2.71%) of repin_volume_at_3 is expected" in alert.happened
    decay(monitored, costs={14: 4.0, 28: 3.0})
    monitored.look()
    assert monitored.kinds() == ["champion_old", "-champion_old"]


def test_late_data_and_a_cycle_that_was_missed_or_is_stuck_are_told_once_until_they_are_mended(
    monitored: Monitored,
) -> None:
    monitored.plant(*STEADY)
    run, record = begin(monitored.desk.folder), monitored.place("schedule", "record.json")
    monitored.look(AT, due=AT + 8 * DAY)
    late, due = AT + 9 * DAY, AT + 7 * DAY
    for at in (late, late, late + DAY):
        monitored.look(at, due=due)
    assert sorted(monitored.kinds()) == ["cycle_stuck", LATE], "nothing was ever scheduled"
    record.parent.mkdir()
    record.write_text("{}")
    for at in (late + 2 * DAY, late + 3 * DAY):
        monitored.look(at, due=due)
    told = {alert.cause.error_class: alert for alert in monitored.told() if alert.cause}
    assert set(told) == {"cycle_stuck", LATE, "cycle_missed"}
    assert "stage build_snapshot " in told["cycle_stuck"].next_step.commands[0][1]
    assert "homefeed log check" in told[LATE].next_step.commands[0][1]
    assert "--as-of 2017-03-09" in told["cycle_missed"].next_step.commands[0][1]
    end(run)
    end(begin(monitored.desk.folder, fortnight=1))
    monitored.look(AT, due=due)
    assert sorted(monitored.kinds()) == sorted([*told, *(f"-{name}" for name in told)])


def test_what_cannot_be_looked_at_is_not_taken_for_mended(monitored: Monitored) -> None:
    monitored.plant(*LOSING)
    monitored.look(AT + 9 * DAY)
    shutil.move(monitored.desk.folder / "event_log", monitored.desk.folder / "away")
    found, [error] = watch(monitored.settings, AT + 10 * DAY)
    assert isinstance(error, DataContractError) and found.days == ()
    assert sorted(monitored.kinds()) == [REGRESSED, LATE]


def test_an_early_retrain_is_off_and_then_once_for_a_champion_and_so_many_a_month(
    monitored: Monitored,
) -> None:
    monitored.plant(*LOSING)
    one = monitored.settings.model_copy(update={"early_retrains": 1})
    assert early_retrain(one) is None
    monitored.look()
    assert early_retrain(monitored.settings) is None
    first = early_retrain(one)
    assert first == f"monitor__{monitored.champion.bundle_digest[:16]}"
    assert first == early_retrain(one)
    cycle = monitored.desk.cycle(2, as_of=TRAINED + 14 * DAY)
    monitored.desk.promote(cycle, monitored.challenger, days=(AT - NOW) / DAY)
    monitored.champion, monitored.challenger = monitored.challenger, monitored.champion
    monitored.plant(*LOSING)
    monitored.look(AT + DAY)
    assert sorted(monitored.kinds()) == [f"-{REGRESSED}", REGRESSED, REGRESSED]
    assert early_retrain(one) is None, "the month's one is used up"
    two = one.model_copy(update={"early_retrains": 2})
    assert early_retrain(two) not in (None, first)


@pytest.mark.slow
def test_killed_anywhere_and_run_again_nothing_is_repeated_or_lost(
    monitored: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitored.plant(*LOSING)
    (monitored.folder() / "2017-02-27.json").unlink()
    sent: list[str] = []
    monkeypatch.setitem(
        transports._TRANSPORTS, "slack", lambda rendered, _: sent.append(rendered.subject)
    )
    count, at_write = 0, 0

    def dying(real: Any) -> Any:
        def write(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at_write:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        return write

    for name in ("write_bytes", "write_new", "write_over", "publish_folder"):
        monkeypatch.setattr(storage, name, dying(getattr(storage, name)))
    clean = monitored.place().with_name("clean")
    shutil.copytree(monitored.place(), clean)
    slack = {"alert_transports": ("slack",)}
    expected, total = monitored.look(AT + 9 * DAY, **slack), count
    kinds, subjects, days = monitored.kinds(), sorted(sent), monitored.days()
    assert total >= 8 and len(kinds) == 2 and len(subjects) == 2
    for at_write in range(1, total + 1):
        shutil.rmtree(monitored.place())
        shutil.copytree(clean, monitored.place())
        count, sent[:] = 0, []
        with pytest.raises(KeyboardInterrupt):
            monitored.look(AT + 9 * DAY, **slack)
        count = -1000
        assert monitored.look(AT + 9 * DAY, **slack) == expected, at_write
        assert monitored.kinds() == kinds and sorted(set(sent)) == subjects
        assert len(sent) <= len(subjects) + 1, "a kill between sending and receipt sends once more"
        assert monitored.days().keys() == days.keys()
