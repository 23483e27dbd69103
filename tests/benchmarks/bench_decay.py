"""Decay, cadence and schedules on series whose decay is known, and what lab and backtest cost.

The series vary by luck, window and user as models trained on three worlds do (`decay_spread` has
both), so their rows are about the statistics, and not about what any model loses: docs/decay.md has
that of the retail sample. The costs are processor time on the sample. Models are kept below
.homefeed/bench.
"""

from collections.abc import Callable

import numpy as np
from record import Row, row
from sample import HOME, event_log_uri

from pipelines import deletion, storage
from pipelines.decay.backtest import backtest
from pipelines.decay.lab import Lab, days_to_measure
from pipelines.event_log.log_files import open_event_log
from pipelines.metrics.usage import processor_s
from pipelines.recipes import completejourney, world
from pipelines.settings import Settings
from pipelines.sources.publish import ingest
from pipelines.sources.world.parameters import WorldParameters
from support.decay_series import Fall, Spread, linear, saturating, series, spread_of, year
from support.world_adapter import WorldAdapter
from validation.decay.cadence import (
    CADENCES,
    NEVER_DAYS,
    cheapest,
    cost_of_cadences,
    every,
    mean_loss,
    replay,
    trust_in,
    when_due,
)
from validation.decay.curve import estimate
from validation.decay.windows import pairs_of

WORLDS, YEARS = range(20), range(100)
HOURS, VALUE, PRICE = 0.05, 0.02, 0.04
"""Core-hours of a cycle, of 1 % of volume a day, and of a training as a share times windows."""
DAYS = np.arange(1, int(NEVER_DAYS) + 1)
NUM_CYCLES = 10
WORLD_SEEDS, WORLD_USERS, WORLD_DAYS, NUM_MODELS, STEP_DAYS = (201, 202, 203), 500, 120, 12, 7
CHANGES = [{"margin": m} for m in (0.005, 0.02, 0.05, 0.1)] + [{"recipe_margin": 0.0}]
CHANGES += [{"seed_noise": 0.0}, {"confidence": 0.9}]
"""What seven gates have other than the recipe's own; the last one alone measures otherwise."""


def measure() -> list[Row]:
    """Return what the band covers, what a recommended cadence costs, what watching brings."""
    covered, regrets = [], []
    for seed in WORLDS:
        fall: Fall = (saturating, linear)[seed % 2]
        found = estimate(series(seed, 26, fall=fall))
        truth = np.array([fall(float(lag)) for lag in found.lags])
        covered.append(np.abs(found.value - truth) <= found.critical(0.95) * found.error)
        regrets.append(_regret(found, fall))
    held, whole = np.concatenate(covered), sum(bool(each.all()) for each in covered)
    return [
        row(
            "decay_band_coverage",
            100 * held.mean(),
            "% of the ages",
            ratio=held.mean() / 0.95,
            peer="0.95",
            spread=f"the whole curve in {whole} of {len(WORLDS)}",
            rows=len(held),
            seed=f"{WORLDS[0]} to {WORLDS[-1]}",
            note="simulated: 26 windows, half of the worlds saturating and half linear",
        ),
        row(
            "cadence_regret",
            100 * float(np.mean(regrets)),
            "% of what the best earns",
            ratio=float(np.mean(regrets)) / 0.05,
            peer="5 %",
            spread=f"at most {100 * max(regrets):.2f} %",
            rows=len(WORLDS),
            seed=f"{WORLDS[0]} to {WORLDS[-1]}",
            note="simulated; earnings against never",
        ),
        *(_watching(is_sudden) for is_sudden in (False, True)),
        measure_spread(),
        *measure_costs(),
    ]


def measure_spread() -> Row:
    """Return what trained models of three worlds vary by, beside the series of as many windows."""
    found, target = [], world().features.heads[0].name
    for seed in WORLD_SEEDS:
        place = HOME / "bench" / f"decay_world_{seed}"
        log = storage.to_uri(place / "event_log")
        ingest(
            WorldAdapter(WorldParameters(num_users=WORLD_USERS, num_days=WORLD_DAYS, seed=seed)),
            log,
        )
        settings = Settings(home=str(place), event_log=log)
        days = days_to_measure(open_event_log(log), world(), None, None, every=STEP_DAYS)
        lab = Lab(world(), settings, days[-NUM_MODELS:], uses_registry=False, is_whole=True)
        found.append(spread_of(pairs_of(lab.measure(), target)))
    drawn = [spread_of(series(seed, NUM_MODELS, step=STEP_DAYS)) for seed in WORLDS]
    worlds, simulated = np.array(found), np.array(drawn).mean(axis=0)
    told = "; ".join(
        f"{name} {', '.join(f'{each:.4f}' for each in of)} (series {mean:.4f})"
        for name, of, mean in zip(Spread._fields, worlds.T, simulated, strict=True)
    )
    return row(
        "decay_spread",
        100 * float(worlds[:, 0].mean()),
        "% by which a model differs by its luck",
        ratio=float(worlds[:, 0].mean() / simulated[0]),
        peer="the simulated series, by the same estimate",
        spread=f"{100 * worlds[:, 0].min():.2f} to {100 * worlds[:, 0].max():.2f} %",
        rows=len(WORLD_SEEDS) * NUM_MODELS,
        seed=f"worlds {', '.join(map(str, WORLD_SEEDS))}",
        note=f"trained: {told}",
    )


def measure_costs() -> list[Row]:
    """Return what scoring costs beside training, and what eight gates cost beside one."""
    recipe, place, log = completejourney(), HOME / "bench", event_log_uri()
    settings = Settings(home=str(place), event_log=log)
    days = days_to_measure(open_event_log(log), recipe, None, None, every=14)
    whole, ten = (Lab(recipe, settings, days[-n:], uses_registry=False) for n in (0, NUM_CYCLES))
    whole.scores_dir = ten.scores_dir = place / "scores"
    gates = {"as it is": recipe}
    for each in CHANGES:
        gate = recipe.model_gate.model_copy(update=each)
        gates[f"{each}"] = recipe.model_copy(update={"model_gate": gate})

    def spend(work: Callable[[], object]) -> float:
        deletion.remove(whole.scores_dir.as_uri())
        before = processor_s()
        work()
        return processor_s() - before

    made = whole.make(NUM_CYCLES)
    trained = [each.cpu_s for each in made.values()]
    scored, cycles = spend(lambda: list(whole._score(made))), sum(trained[-NUM_CYCLES:])
    one, eight = (
        spend(lambda: backtest(ten, {"as it is": recipe})),
        spend(lambda: backtest(ten, gates)),
    )
    return [
        row(
            "decay_lab_s",
            sum(trained) + scored,
            "processor s of the whole lab on the sample (goal: <= 1.3 times)",
            ratio=1 + scored / sum(trained),
            peer=f"its {len(made)} trainings alone",
            rows=len(made),
        ),
        row(
            "backtest",
            cycles + eight,
            "processor s of 10 cycles by 8 gates (goal: <= 1.2 times)",
            ratio=(cycles + eight) / (cycles + one),
            peer="the 10 cycles by one gate",
            rows=NUM_CYCLES,
            note=f"trainings {cycles:.0f} s, one gate {one:.0f} s, eight {eight:.0f} s",
        ),
    ]


def _regret(found, fall: Fall) -> float:
    """Return which part of the best cadence's earnings the recommended one loses."""
    curve = np.array([[fall(float(day)) for day in DAYS]])
    never = mean_loss(curve, DAYS, NEVER_DAYS)[0]
    earned = {
        days: 100 * VALUE * (never - mean_loss(curve, DAYS, days)[0]) - HOURS / days
        for days in CADENCES
        if days
    } | {None: 0.0}
    best = cheapest(cost_of_cadences(found, HOURS, VALUE, 0.95))
    return float(1 - earned[best.days] / max(earned.values()))


def _watching(is_sudden: bool) -> Row:
    """Return what the schedule that watches loses, against fixed ones of equal cost."""
    ratios, ours, theirs = [], [], []
    for seed in YEARS:
        rng = np.random.default_rng(seed)
        (before, seen_before), (true, seen) = year(rng, is_sudden), year(rng, is_sudden)
        age = np.maximum(-np.subtract.outer(np.arange(52), np.arange(52)), 0)
        by_age = [float(seen_before[age == a].mean()) for a in range(52)]
        expected = np.array(by_age)[age] * (age > 0)
        trust = trust_in(expected, seen_before, before)
        due = replay(true, when_due(expected, seen, PRICE, trust))
        fixed = [replay(true, every(num)) for num in range(1, 27)]
        nums, lost = [len(f.trained) for f in fixed], [float(f.lost.mean()) for f in fixed]
        equal = float(np.interp(len(due.trained), nums[::-1], lost[::-1]))
        ours.append(float(due.lost.mean()))
        theirs.append(equal)
        ratios.append(ours[-1] / equal)
    mean = float(np.mean(ours) / np.mean(theirs))
    error = 2 * float(np.std(np.array(ours) - mean * np.array(theirs))) / len(ours) ** 0.5
    return row(
        f"schedule_{'sudden' if is_sudden else 'steady'}",
        100 * float(np.mean(ours)),
        "% lost a day",
        ratio=mean,
        peer="fixed cadence of equal cost",
        spread=f"ratio +-{error / float(np.mean(theirs)):.3f}; {100 * np.mean(theirs):.2f} % lost",
        rows=len(YEARS),
        seed=f"{YEARS[0]} to {YEARS[-1]}",
        note="simulated years of 52 weeks; learned from the year before",
    )
