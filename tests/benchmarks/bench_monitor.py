"""The monitor's test on days of the sample: false alarms in 100 years, and how soon a loss is seen.

Two models of the sample's recipe, trained a fortnight apart, are compared on each of 56 later days.
A world is drawn from these days: their changes about their mean, with their errors, and a model's
luck, which stays for its life. A fixed threshold and CUSUM are set to the same rate of alarms.

NannyML estimates the champion's AUC of each day without labels (confidence-based performance
estimation), in an environment of its own, because its needs are not ours. A loss is planted for it
in the rows: of some requests each candidate gets the score of another one.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from record import Row, row
from sample import AS_OF, event_log_uri, make_run, spec_of, variant

from pipelines import storage
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.time import Window
from pipelines.monitor.watching import LOSSES, MOST_BEFORE
from pipelines.snapshot.build import build_of, write_snapshot
from pipelines.snapshot.plan import SnapshotPlan
from training.bundle.score_split import score_split
from training.data.reader import load_rows
from training.launch import launcher
from validation.model_gate.comparison import Holdout, measure_ratios, ratio_metrics
from validation.model_gate.detector import Day, evidence_of_loss, spread_of

LIFE, YEARS, NUM_DAYS, NUM_LOSSES, SEED = 14, 100, 56, 500, 41
NUM_CHAMPIONS = YEARS * 365 // LIFE
CONFIG = variant(17)
NANNYML = ("nannyml==0.13.1", "statsmodels")  # The second one it imports and does not ask for.
LUCK = math.sqrt(2) * CONFIG.model_gate.seed_noise
Days = list[Day]


def measure() -> list[Row]:
    """Return the rows."""
    (known, blind), rng = _days(), np.random.default_rng(SEED)
    steady = [_lived(known, LIFE, rng)[1] for _ in range(NUM_CHAMPIONS)]
    rough = [_lived(known, LIFE, rng, spread=1.2)[1] for _ in range(NUM_CHAMPIONS)]
    ours, of_rough = (_alarms(world) / YEARS for world in (steady, rough))
    share = 1 - max(ours, 1 / YEARS) * YEARS / NUM_CHAMPIONS
    before = [step for days in steady[:MOST_BEFORE] for step in spread_of(days)]
    tests: dict[str, Callable[[Days], list[float]]] = {
        "ours": lambda days: evidence_of_loss(days, LOSSES, before=before)
    }
    for name, peer in (("a threshold", _falls), ("CUSUM", _cusum)):
        limit = float(np.quantile([max(peer(days)) for days in steady], share))
        tests[name] = lambda days, peer=peer, limit=limit: [each / limit for each in peer(days)]
    errors, shared = [day.error for day in known], {"seed": str(SEED)}
    world = f"a day's standard error is {100 * np.median(errors):.2f} % (median of {NUM_DAYS} days)"
    rows = [
        row(
            "monitor_false_alarms_per_year",
            ours,
            "false alarms a year on a stationary world (goal: <= 1)",
            spread=f"{of_rough:.2f} where days vary 1.2 times as much as on the sample",
            rows=NUM_CHAMPIONS,
            note=f"{YEARS} years of champions that live {LIFE} days; {world}",
            **shared,
        )
    ]
    for loss, goal in ((0.02, 5), (0.05, 2)):
        lost = [_lived(known, 60, rng, loss, int(rng.integers(0, LIFE))) for _ in range(NUM_LOSSES)]
        found = {name: _delays(lost, test) for name, test in tests.items()}
        found["NannyML"] = _blind_delays(blind[0], blind[loss], share, rng)
        peers = {name: np.median(each) for name, each in found.items() if name != "ours"}
        rows.append(
            row(
                f"monitor_delay_{100 * loss:.0f}_percent_days",
                float(np.median(found["ours"])),
                f"days until a loss of {loss:.0%} is seen, median (goal: <= {goal})",
                ratio=float(np.median(found["ours"]) / peers["a threshold"]),
                peer=", ".join(f"{name} {days:.0f}" for name, days in peers.items()),
                spread=f"nine in ten within {np.quantile(found['ours'], 0.9):.0f}",
                rows=NUM_LOSSES,
                note="peers at the same rate of false alarms; 61: never. NannyML has no labels, "
                "and what it estimates from stays the same where scores reach other candidates",
                **shared,
            )
        )
    return rows


def _days() -> tuple[Days, dict[float, Days]]:
    """Return the change of the older model against the newer one on each later day.

    And, by the loss that was planted, NannyML's estimate of the newer one for half of these days.
    """
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        bundles, start = list[Path](), AS_OF + timedelta(days=14)
        for as_of in (AS_OF, start):
            snapshot = write_snapshot(make_run(CONFIG, as_of, Path(folder)))
            work = tempfile.mkdtemp(dir=folder)
            bundles.append(Path(launcher.train(spec_of(snapshot, CONFIG, work)).bundle_dir))
        end = start + timedelta(days=NUM_DAYS)
        windows = Window(start=start, end=start), Window(start=start, end=end)
        known = end + timedelta(days=1)
        plan = SnapshotPlan(known, CONFIG.features, CONFIG.snapshot, *windows)
        snapshot = build_of(plan, event_log_uri(), storage.to_uri(f"{folder}/later"))
        place = storage.local_path(snapshot.uri)
        rows = load_rows(snapshot, place, SPLIT_HOLDOUT)
        scores = [score_split(each, snapshot, place, SPLIT_HOLDOUT) for each in bundles]
    holdout = Holdout(rows, CONFIG.features.heads, CONFIG.model_gate)
    target = [
        m for m in ratio_metrics(holdout, *scores) if m.name == CONFIG.model_gate.target_metric
    ]
    days = list[Day]()
    for day in range(NUM_DAYS):
        [found] = measure_ratios(holdout, target, {"all": rows.day == day}).table
        change = found.relative_change
        days.append(Day(change.value, (change.high - change.value) / 1.96))
    mean = np.average([day.change for day in days], weights=[day.error**-2 for day in days])
    found = [Day(day.change - float(mean), day.error) for day in days]
    return found, _estimates(holdout, scores[1].probabilities[holdout.target_head.name])


def _estimates(holdout: Holdout, probability: np.ndarray) -> dict[float, Days]:
    """Return the AUC of each later half's day as NannyML estimates it, by the loss planted."""
    rows, head, rng = holdout.rows, holdout.target_head.name, np.random.default_rng(SEED)
    hits = [float(holdout.hits(each, head).sum())
            for each in (probability, rng.permutation(probability))]  # fmt: skip
    order = np.argsort(rng.random(len(probability)))
    mixed = probability.copy()  # Scores within each request in another order.
    mixed[np.argsort(rows.request_index, kind="stable")] = probability[
        order[np.argsort(rows.request_index[order], kind="stable")]
    ]
    day, is_lost = rows.day[rows.request_index], rng.random(len(rows.day))[rows.request_index]
    at = pd.Timestamp("2017-01-01") + pd.to_timedelta(day, unit="D")
    known = pd.DataFrame({"at": at, "p": probability, "y": rows.labels[head].astype(int)})
    first, found = day < NUM_DAYS // 2, dict[float, Days]()
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *NANNYML], check=True)
        files = [f"{folder}/{name}.parquet" for name in ("reference", "analysis")]
        known[first].to_parquet(files[0])
        for loss in (0, 0.02, 0.05):
            share = loss / (1 - hits[1] / hits[0])
            told = known.assign(p=np.where(is_lost < share, mixed, probability)).drop(columns="y")
            told[~first].to_parquet(files[1])
            command = [python, Path(__file__).with_name("nannyml_days.py"), *files]
            calm = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}
            said = subprocess.run(command, check=True, capture_output=True, env=calm).stdout
            found[loss] = [Day(each, 0.0) for each in json.loads(said)]
    return found


def _blind_delays(calm: Days, lost: Days, share: float, rng: np.random.Generator) -> list[int]:
    """Return after how many days NannyML's estimates fall below what they do without a loss."""
    steady = rng.integers(0, len(calm), (NUM_CHAMPIONS, LIFE))
    limit = np.quantile([min(calm[day].change for day in days) for days in steady], 1 - share)
    worlds = []
    for at in rng.integers(0, LIFE, NUM_LOSSES):
        days = enumerate(rng.integers(0, len(calm), 60))
        worlds.append((int(at), [(lost if num >= at else calm)[day] for num, day in days]))
    return _delays(worlds, lambda days: [float(day.change < limit) for day in days])


def _lived(
    known: Days, num: int, rng: np.random.Generator, loss: float = 0, at: int = 0, spread: float = 1
) -> tuple[int, Days]:
    """Return a champion's days, drawn from those known, and the first one with the loss."""
    luck, drawn = rng.normal(0, LUCK), [known[n] for n in rng.integers(0, len(known), num)]
    shifts = np.where(np.arange(num) >= at, -loss, 0)
    return at, [
        Day(spread * day.change + luck + float(shift), day.error, LUCK)
        for day, shift in zip(drawn, shifts, strict=True)
    ]


def _alarms(world: list[Days]) -> int:
    """Count the champions of a world that raise one; each knows how the days before varied."""
    found, spread = 0, [spread_of(days) for days in world]
    for n, days in enumerate(world):
        before = [step for each in spread[max(n - MOST_BEFORE, 0) : n] for step in each]
        found += max(evidence_of_loss(days, LOSSES, before=before)) >= 1
    return found


def _falls(days: Days) -> list[float]:
    return [-day.change for day in days]


def _cusum(days: Days, drift: float = 0.01) -> list[float]:
    """Return Page's sums for a loss of twice the drift."""
    sums = [0.0]
    for day in days:
        sums.append(max(0.0, sums[-1] - day.change - drift))
    return sums[1:]


def _delays(lost: list[tuple[int, Days]], test: Callable[[Days], list[float]]) -> list[int]:
    """Return after how many days of its loss each champion raises an alarm; 61: never."""
    found = list[int]()
    for at, days in lost:
        seen = [n for n, each in enumerate(test(days)) if each >= 1 and n >= at]
        found.append(seen[0] - at + 1 if seen else 61)
    return found
