"""What the champion's days say, and who is told: once of what is wrong, once when it is mended.

    <workspace>/monitor/<model>/watch.json    a Watch, made anew each time

All follows from days and alerts: a killed monitor, run again, repeats and loses nothing.
"""

import contextlib
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipelines import storage
from pipelines.alerts.commands import Offered, command_at, cycle_command, stage_command, step
from pipelines.alerts.compose import compose_missed, find_failure, make_alert
from pipelines.alerts.incidents import MONITOR, deliver_left, find_open
from pipelines.alerts.transports import deliver, read_outbox
from pipelines.contracts.alert import Alert, AlertKind, Cause
from pipelines.contracts.artifacts import STAGES, ModelRef
from pipelines.contracts.config import RunConfig
from pipelines.contracts.decay import Decay, decay_folder
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.monitor import Watch
from pipelines.contracts.reasons import Interval
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.recipes import make_recipe
from pipelines.registry import history
from pipelines.registry.history import History
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.monitor.measuring import Watched
    from validation.model_gate.detector import Day

DAY = timedelta(days=1)
LOSSES, MISCALIBRATIONS = 365 / 0.9, 365 / 0.05
"""Days in which there is one false alarm at most: 0.9 a year of a loss, 0.05 of each side of
calibration, and so one a year of all."""
MOST_BEFORE = 3
"""Champions before this one whose days say how much days vary."""
STUCK_AFTER, LATE_AFTER = timedelta(days=3), timedelta(days=2)
"""When a cycle should have ended, which is the DAG's own limit, and when days should have come."""
_NOTHING = Interval(value=0, low=0, high=0, confidence=0.95)


def watch(
    settings: Settings, now: datetime, due: datetime | None = None
) -> tuple[Watch, list[HomefeedError]]:
    """Measure what is missing, judge all days of the champion, and tell people.

    `due` is the last date on which a cycle was due. What kept something from being found is
    returned beside what was found, and is not taken for mended.
    """
    from pipelines.event_log.completeness import completeness
    from pipelines.event_log.log_files import open_event_log
    from pipelines.monitor.measuring import Watched, measure  # Pages need none of this.

    errors, alerts, judged = list[HomefeedError](), list[Alert](), set[str]()
    known = history.load(settings.workspace_uri, settings.registered_model)
    seen = Watch(told_at=now)

    @contextlib.contextmanager
    def part(*names: str) -> Iterator[None]:
        try:
            yield
            judged.update(names)
        except HomefeedError as error:
            errors.append(error)

    with part("cycle_missed", "cycle_stuck"):
        alerts += _of_cycles(settings, now, due)
    with part("data_late"):
        event_log = open_event_log(settings.event_log_uri)
        complete_to = completeness(event_log).to
        if now - complete_to > LATE_AFTER:
            late = (now - complete_to) / DAY, LATE_AFTER / DAY
            ends = "The event log ends {:.1f} days ago; expected {:g} at most.".format(*late)
            judge = ("Judge its days:", command_at(settings, "log check", "event_log"))
            told = ("data_late",), "data are late", ends, "Look at what writes the log."
            alerts.append(compose_finding(settings, now, *told, judge))
        with part("champion_regressed", "champion_old"):
            if known.last is not None:
                recipe = known.recipe_of(known.last.model)
                config = recipe.parse() if recipe else make_recipe(settings.recipe)
                folder = place_of(settings, known.last.model.bundle_digest)
                watched = Watched(settings, known, config, event_log, complete_to, folder)
                for day in watched.missing_days():
                    with part():
                        measure(watched, day, now)
                seen = _of_champion(watched, now, alerts)
    with part():
        opened, wrong = find_open(settings), {each.cause for each in alerts}
        new = [each for each in alerts if (each.cause, None) not in opened]
        for one in (each for each in opened.values() if each.cause.stage == MONITOR):
            if one.cause.error_class in judged and one.cause not in wrong:
                about = one.cause.error_class, *one.cause.about, one.first_at.isoformat()
                title = f"no more: {one.title.partition('monitor: ')[2]}"
                said = settings, max(now, one.last_at), about, title, one.sentence
                new.append(compose_finding(*said, "Nothing has to be done.", mended=one.cause))
        for alert in new:
            with part():  # What is not delivered is in the outbox, or is told next time.
                deliver(alert, settings)
        deliver_left(settings)
    storage.write_model(place_of(settings, "watch.json"), seen)
    return seen, errors


def place_of(settings: Settings, name: str) -> str:
    """Return where something of the monitor lies."""
    at = settings.workspace_uri, "monitor", settings.registered_model
    return storage.join(*at, name)


def read_watch(settings: Settings) -> Watch | None:
    """Return what the monitor has found last; None: it never ran."""
    repair = "delete it: `homefeed monitor` writes it anew"
    return storage.find_model(place_of(settings, "watch.json"), Watch, repair)


def early_retrain(settings: Settings) -> str | None:
    """Return the id of the run that a champion's regression triggers, once; None: no run.

    Of those that people were told of in a month, so many trigger one as the settings say.
    """
    causes = [one.cause for one in find_open(settings).values()]
    told = [each for _, each in read_outbox(settings) if each.kind is AlertKind.MONITOR]
    lost = [each for each in told if each.cause and each.cause.error_class == "champion_regressed"]
    num = sum(f"{each.at:%Y-%m}" == f"{lost[-1].at:%Y-%m}" for each in lost)
    if not lost or lost[-1].cause not in causes or num > settings.early_retrains:
        return None
    return f"monitor__{lost[-1].about[1][:16]}"


def decay_of(known: History, recipe: RunConfig | None = None) -> Decay | None:
    """Return what was measured of a recipe's decay, or of the accepted one's; None: nothing."""
    recipe = recipe or (known.recipes.accepted.parse() if known.recipes.accepted else None)
    place = decay_folder(known.workspace_uri, recipe.recipe_digest if recipe else "none")
    repair = "measure it again: `homefeed decay`"
    return storage.find_model(storage.join(place, "decay.json"), Decay, repair)


def _of_champion(watched: "Watched", now: datetime, alerts: list[Alert]) -> Watch:
    """Judge the champion's days; add that it has regressed, and that it is past its price."""
    from validation.decay.cadence import cheapest
    from validation.model_gate.detector import Day, evidence_of_loss, mean_change
    from validation.model_gate.target_metric import target_head

    champion, recipe, settings = watched.history.moves[-1].model, watched.recipe, watched.settings
    gate, ratio = recipe.model_gate, target_head(recipe.model_gate, recipe.features.heads).name
    days = _days_at(watched.folder)
    decay = decay_of(watched.history, recipe)
    curve = next((each for each in decay.curves[:1] if each.points), None) if decay else None
    best = cheapest(decay.cadences) if decay else None
    found: dict[str, Any] = {"days": tuple(day.holdout.start.date() for day in days)}
    found["champion"] = champion
    lost, plain, levels = list[Day](), _changes(days), list[Interval]()
    for day in days:
        change, other = day.target_change, day.baseline_model
        if change and other:
            mine, its = (
                curve.expected(_age(model, day.holdout.end)) if curve else _NOTHING
                for model in (champion, other)
            )
            allowance = math.sqrt(2) * gate.seed_noise + mine.value - mine.low
            beyond = change.value - mine.value + its.value
            lost.append(Day(beyond, plain[len(lost)].error, allowance))
            band = {name: getattr(mine, name) - its.value for name in ("value", "low", "high")}
            found |= {"expected": curve and mine.model_copy(update=band), "reference": other.label}
        level = day.find(f"calibration_ratio.{ratio}")
        levels += [level.challenger_interval] if level and level.challenger_interval else []
        found |= {"age_days": _age(champion, day.holdout.end)}
    loss, low, high = "loses more than its age explains", "predicts too little", "predicts too much"
    tests = {loss: evidence_of_loss(lost, LOSSES, before=_spread_before(watched))}
    bounds = (low, 1, gate.min_head_calibration), (high, -1, gate.max_head_calibration)
    for name, sign, bound in bounds:
        moved = [Day(sign * (each.value - bound), max(each.error, 1e-6)) for each in levels]
        tests[name] = evidence_of_loss(moved, MISCALIBRATIONS, (0.1, 0.3))
    if levels and (first := _mean(days[0])):
        found |= {"score_shift": _mean(days[-1]) / first - 1}
    found["calibration"] = levels[-1] if levels else None
    found |= {"evidence": max([0, *tests[loss]]), "pays_after_days": best and (best.days or 0)}
    found["measured"] = mean_change(plain, gate.confidence) if plain else None
    seen, age = Watch(told_at=now, **found), _age(champion, now)
    asked = settings.scheduled(f"monitor-{now:%Y-%m-%d}", now, watched.complete_to)
    retrain = ("Retrain:", cycle_command(asked, settings))
    if wrong := ", ".join(name for name, shares in tests.items() if max([0, *shares]) >= 1):
        told = f"{champion.label} {wrong}", seen.sentence, "Look at these days' data."
        about = ("champion_regressed", champion.bundle_digest)
        alerts.append(compose_finding(settings, now, about, *told, retrain))
    if curve and best and best.days and age > best.days + LATE_AFTER / DAY:
        c, title = curve.expected(age), f"{champion.label} is older than its price"
        said = f"It is {age:.0f} days old, and a new model every {best.days:g} days costs least: "
        said += f"{c.value:+.2%} ({c.low:+.2%} to {c.high:+.2%}) of {curve.metric} is expected."
        about, told = (
            ("champion_old", champion.bundle_digest),
            (title, said, "Or wait for a cycle."),
        )
        alerts.append(compose_finding(settings, now, about, *told, retrain))
    return seen


def _days_at(folder: str) -> list[Comparison]:
    """Return the measured days of a champion, in time."""
    names = sorted(name for name in storage.list_names(folder) if name.endswith(".json"))
    return [storage.read_model(storage.join(folder, name), Comparison) for name in names]


def _changes(days: list[Comparison]) -> "list[Day]":
    """Return the target's change of each day that has a model to compare with."""
    from validation.model_gate.detector import Day

    found = (day.target_change for day in days if day.baseline_model)
    return [Day(each.value, max(each.error, 1e-6)) for each in found if each]


def _spread_before(watched: "Watched") -> list[float]:
    """Return how the days of champions before this one varied, as far as they can be read."""
    from validation.model_gate.detector import spread_of

    bundles = dict.fromkeys(move.model.bundle_digest for move in reversed(watched.history.moves))
    found = list[float]()
    for bundle in [*bundles][1 : MOST_BEFORE + 1]:  # The first is this one.
        with contextlib.suppress(HomefeedError):
            found += spread_of(_changes(_days_at(place_of(watched.settings, bundle))))
    return found


def _age(model: ModelRef, at: datetime) -> float:
    return max(0.0, (at - model.as_of) / DAY)


def _mean(day: Comparison) -> float:
    """Return the champion's mean prediction; the bins hold equal numbers of candidates."""
    return sum(each.mean_predicted for each in day.reliability if each.side == "challenger")


def _of_cycles(settings: Settings, now: datetime, due: datetime | None) -> Iterator[Alert]:
    """Yield that the cycle which was due last was missed, and that the newest one is stuck."""
    workspace_uri = settings.workspace_uri
    runs_uri, schedule = (storage.join(workspace_uri, name) for name in ("runs", "schedule"))
    newest = max((n for n in storage.list_names(runs_uri) if n[0] != "."), default="0")
    is_scheduled = storage.exists(storage.join(schedule, "record.json"))
    if due and is_scheduled and now - due > DAY and newest < f"{due:%Y-%m-%d}":
        asked = settings.scheduled(f"monitor-{now:%Y-%m-%d}", now, due)
        missed = compose_missed((due,), asked, settings, is_newer=False)
        cause = Cause(stage=MONITOR, error_class="cycle_missed", about=(f"{due:%Y-%m-%d}",))
        yield missed.model_copy(update={"cause": cause, "cycle": None, "at": now})
    run_uri = storage.join(runs_uri, newest)
    left = [stage for stage in STAGES if not storage.exists(manifest_uri(run_uri, stage))]
    ended = [stage for stage in STAGES if stage not in left]
    if ended and left and find_failure(run_uri, left) is None:
        last = storage.read_model(manifest_uri(run_uri, ended[-1]), StageRecord).finished_at
        if now - last > STUCK_AFTER:
            said = f"{ended[-1]} ended {(now - last) / DAY:.1f} days ago, and nothing since."
            told = ("cycle_stuck", newest), f"cycle {newest} is stuck", said, "Look at Airflow."
            go = ("Go on:", stage_command(left[0], run_uri))
            yield compose_finding(settings, now, *told, go)


def compose_finding(
    settings: Settings, at: datetime, about: tuple[str, ...], title: str, happened: str, then: str,
    *offered: Offered, mended: Cause | None = None
) -> Alert:  # fmt: skip
    """Return the alert that opens the incident which `about` names, or that ends one."""
    cause = mended or Cause(stage=MONITOR, error_class=about[0], about=about[1:])
    return make_alert(
        AlertKind.RECOVERED if mended else AlertKind.MONITOR, settings, "command line",
        title=f"monitor: {title}", about=(*about, f"{at:%Y-%m-%d}"), happened=happened,
        next_step=step(then, *offered), cause=cause, at=at,
    )  # fmt: skip
