"""What a world's users repin where its model is never retrained, or again and again, by arms.

Every arm begins with the same days in a drawn order, and then lives twelve fortnights of its own:
its models learn from what was shown in its own order, but for those of EXPLORED, which learn from
the same requests in a drawn order. The cycles of 14 days are the pipeline's, with its verdict and
its registry; models of the other arms are trained apart by the same code, and each serves at once.
Volumes are computed from the hidden chances, and not counted. What is done is kept below
.homefeed/bench, and a run that was ended goes on from the last day of each arm.
"""

import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import Row, row
from sample import HOME

from pipelines import storage
from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import STAGES, RunRequest
from pipelines.contracts.config import TOP_K
from pipelines.contracts.time import DAY_MS
from pipelines.decay.lab import Lab
from pipelines.recipes import world as recipe
from pipelines.settings import Settings
from pipelines.sources.world.parameters import WorldParameters
from pipelines.stages.runner import run_stage, start_run
from pipelines.world_run.days import TRUTH_DAYS, DayOfWorld, DrawnWorld, run_days
from pipelines.world_run.policies import Drawn, Model, Policy
from pipelines.world_run.who_ranks import policy_maker
from support.deployments import Deployment
from support.judgements import make_model
from support.mlflow_server import mlflow_server
from training.bundle.files import load_bundle

SEEDS, SHARES, NUM_USERS = (401, 402), (0.05, 0.0), 250
DRAWN_DAYS, LIVED_DAYS, CYCLE_DAYS = 42, 12 * 14, 14
TREND, PIN_LIFETIME_DAYS, MASK_HOURS = 1.5, 14.0, 24.0
PIPELINE, OPTIMUM, DRAWN = "every 14 days", "optimum", "drawn order"
EXPLORED, MASKED = f"every 14 days on {DRAWN}", "every 14 days masked"
FORTNIGHTS = [*range(0, LIVED_DAYS, CYCLE_DAYS)]
ARMS: dict[str, list[int]] = {
    "never": [0],
    PIPELINE: FORTNIGHTS,
    "every 3.5 days": [*range(0, LIVED_DAYS, 7), *range(3, LIVED_DAYS, 7)],
    OPTIMUM: [0],
}
"""On which days, of those lived, an arm has a new model."""
OF_EXPOSURE = {DRAWN: [0], EXPLORED: FORTNIGHTS, MASKED: FORTNIGHTS}
Maker = Callable[[DrawnWorld], Policy]


def measure() -> list[Row]:
    """Return what the pipeline's cycles earn, with exploration and without; and what masks do."""
    place, rows = HOME / "bench" / "world_loop", []
    with mlflow_server(place / "mlflow") as url:
        for share in SHARES:
            arms = ARMS | (OF_EXPOSURE if share else {})
            lived = [
                {arm: live(place / f"{share}-{seed}-{arm}", arm, days, _world(seed, share), url)
                 for arm, days in arms.items()}
                for seed in SEEDS
            ]  # fmt: skip
            rows.append(_row(share, lived))
            if share:
                rows.append(_row_of_exposure(lived))
    return rows


def live(
    place: Path, arm: str, starts: list[int], world: WorldParameters, url: str
) -> tuple[float, float]:
    """Return an arm's expected repins a day in the first three places, and their diversity."""
    log, workspace = (storage.to_uri(place / name) for name in ("event_log", "workspace"))
    of = Deployment(place, log, workspace, url, f"world_loop_{place.name}")
    with mock.patch.dict(os.environ, of.environment):
        settings, known = Settings(), len(list(place.glob(f"event_log/{TRUTH_DAYS}/*.json")))
        list(run_days(log, world, lambda _: Drawn(), max(DRAWN_DAYS - known, 0)))
        for first, end in itertools.pairwise([*sorted(starts), LIVED_DAYS]):
            if (missing := DRAWN_DAYS + end - max(known, DRAWN_DAYS + first)) > 0:
                list(run_days(log, world, new_policy(arm, world, first, settings), missing))
    paths = sorted(place.glob(f"event_log/{TRUTH_DAYS}/*.json"))[DRAWN_DAYS:]
    days = [storage.read_model(path.as_uri(), DayOfWorld) for path in paths]
    return float(np.mean([day.expected_in_top_3 for day in days])), _diversity(place / "event_log")


def new_policy(arm: str, world: WorldParameters, day: int, settings: Settings) -> Maker:
    """Return who ranks from a day on, of those lived: made now, if it was not before."""
    as_of = datetime.combine(world.start, time(), UTC) + timedelta(days=DRAWN_DAYS + day)
    if arm == DRAWN:
        return lambda _: Drawn()
    if arm == OPTIMUM:
        return policy_maker(settings, settings.event_log_uri, "optimum")
    if arm != PIPELINE:
        return _trained_apart(arm, as_of, settings)
    asked = RunRequest(recipe="world", as_of=as_of, now=as_of, may_promote=True, num_devices=1,
                       trigger="world loop")  # fmt: skip
    run = start_run(asked, settings)
    for stage in STAGES[1:]:
        run_stage(stage, run.run_uri)
    return policy_maker(settings, settings.event_log_uri, "champion")


def _trained_apart(arm: str, as_of: datetime, settings: Settings) -> Maker:
    config = recipe()
    if arm == MASKED:
        model = config.model.model_copy(update={"time_window_mask_hours": MASK_HOURS})
        config = config.model_copy(update={"model": model})
    if arm == EXPLORED:
        other = settings.event_log_location.replace(EXPLORED, DRAWN)
        settings = settings.model_copy(update={"event_log": other})
    made = Lab(config, settings, (as_of,), uses_registry=False).make(1)[as_of]
    model = Model(load_bundle(Path(made.bundle_dir)), make_model("1", as_of))
    return lambda _: model


def _diversity(log: Path) -> float:
    """Return one minus the mean cosine of two pins of a request's first three, of lived days."""
    pins = pq.read_table(log / "pins", columns=["pin_id", "embedding"]).sort_by("pin_id")
    vectors = to_numpy(pins["embedding"]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = ["request_id", "pin_id", "position", "impressed_at"]
    rows = pq.read_table(log / "impressions", columns=columns)
    day = np.asarray(rows["impressed_at"]) // DAY_MS
    is_in = (day >= day.min() + DRAWN_DAYS) & (np.asarray(rows["position"]) < TOP_K)
    shown = np.asarray(rows.filter(pa.array(is_in)).sort_by("request_id")["pin_id"])
    top_RKE = vectors[shown].reshape(-1, TOP_K, vectors.shape[1])  # Ids are the rows of pins.
    sums_R = (top_RKE.sum(axis=1) ** 2).sum(axis=1)
    return 1 - float((sums_R - TOP_K).mean()) / (TOP_K * (TOP_K - 1))


def _world(seed: int, share: float) -> WorldParameters:
    return WorldParameters(
        num_users=NUM_USERS,
        num_days=DRAWN_DAYS + LIVED_DAYS,
        seed=seed,
        trend=TREND,
        pin_lifetime_days=PIN_LIFETIME_DAYS,
        exploration_share=share,
    )


def _row(share: float, lived: list[dict[str, tuple[float, float]]]) -> Row:
    """Return the pipeline's volume against the best cadence's; the optimum is no cadence."""
    cadences = [arm for arm in ARMS if arm != OPTIMUM]
    kept = [each[PIPELINE][0] / max(each[arm][0] for arm in cadences) for each in lived]
    told = "; ".join(f"{arm} {', '.join(f'{each[arm][0]:.1f}' for each in lived)}" for arm in ARMS)
    return row("world_loop" if share else "world_loop_no_exploration", 100 * float(np.mean(kept)),
               "% of the best cadence (goal: >= 95)", ratio=float(np.mean(kept)) / 0.95,
               peer="the best cadence in hindsight", rows=LIVED_DAYS,
               spread=f"{100 * min(kept):.1f} to {100 * max(kept):.1f} % over {len(lived)} worlds",
               seed=f"worlds {', '.join(map(str, SEEDS))}",
               note=f"expected repins a day in the first three places: {told}")  # fmt: skip


def _row_of_exposure(lived: list[dict[str, tuple[float, float]]]) -> Row:
    """Return what models that learn from their own exposures bring, against exploration alone."""
    ratios = [each[PIPELINE][0] / each[EXPLORED][0] for each in lived]
    told = "; ".join(
        f"{arm} {', '.join('{:.1f} ({:.3f})'.format(*each[arm]) for each in lived)}"
        for arm in (PIPELINE, *OF_EXPOSURE)
    )
    return row("world_own_exposures", 100 * float(np.mean(ratios)) - 100,
               "% more repins by models trained on their own exposures",
               ratio=float(np.mean(ratios)), peer="models trained on exploration alone",
               rows=LIVED_DAYS, seed=f"worlds {', '.join(map(str, SEEDS))}",
               spread=f"{100 * min(ratios) - 100:+.1f} to {100 * max(ratios) - 100:+.1f} %",
               note=f"expected repins a day (diversity of the first three): {told}")  # fmt: skip
