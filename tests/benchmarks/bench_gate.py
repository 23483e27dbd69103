"""The model gate's bootstrap at the size of a real holdout, against scipy's.

1.08 million requests of 590,000 users, of whom few are active and most are not; 16 metrics in 3
segments are 48 statistics, each resampled 2,000 times. SciPy resamples users one by one, and gets
one statistic only: the ratio is per statistic.
"""

import resource
import time

import numpy as np
from record import Row, row
from scipy.stats import bootstrap

from training.data.example_rows import ExampleRows
from validation.model_gate.comparison import bootstrap_metrics
from validation.model_gate.holdout_metrics import RatioMetric, segment_masks

NUM_REQUESTS, NUM_USERS, NUM_METRICS, NUM_RESAMPLES = 1_080_000, 590_000, 16, 2_000
SCIPY_RESAMPLES = 100
SEED = 31


def measure() -> list[Row]:
    """Return the CPU time of all statistics, and per statistic against scipy's."""
    rows, metrics = _holdout()
    before_mib = _peak_mib()
    ours_s = _cpu_s(lambda: _ours(rows, metrics))
    grown_mib = _peak_mib() - before_mib
    # One resample costs as much as another, so a twentieth of them is measured.
    scipy_s = _cpu_s(lambda: _scipy(rows, metrics[0])) * NUM_RESAMPLES / SCIPY_RESAMPLES
    size = f"{NUM_REQUESTS:,} requests, {NUM_USERS:,} users, {NUM_RESAMPLES:,} resamples"
    shared = {"rows": NUM_REQUESTS, "seed": str(SEED), "spread": "one run"}
    statistics = 3 * NUM_METRICS
    return [
        row(
            "bootstrap_1m_cpu_s",
            ours_s,
            f"CPU-seconds for {statistics} statistics (goal: <= 10)",
            note=f"{size}; {grown_mib:,.0f} MiB beyond the rows at peak (goal: <= 1,024)",
            **shared,
        ),
        row(
            "bootstrap_1m_vs_scipy",
            scipy_s * statistics / ours_s,
            "times less CPU per statistic",
            ratio=scipy_s * statistics / ours_s,
            peer=f"scipy.stats.bootstrap, {scipy_s:.0f} CPU-seconds a statistic",
            note=f"{size}; scipy's time is {SCIPY_RESAMPLES} resamples, scaled up",
            **shared,
        ),
    ]


def _holdout() -> tuple[ExampleRows, list[RatioMetric]]:
    rng = np.random.default_rng(SEED)
    activity = rng.lognormal(0, 1, NUM_USERS)
    user_id = rng.choice(NUM_USERS, NUM_REQUESTS, p=activity / activity.sum())
    rows = ExampleRows(
        request_index=np.arange(NUM_REQUESTS),
        user_id=user_id,
        is_core=rng.random(NUM_REQUESTS) < 0.4,
        request_id=np.zeros(NUM_REQUESTS, dtype="U1"),
        first_example=np.arange(NUM_REQUESTS + 1),
        pin_row=np.zeros(NUM_REQUESTS, dtype=np.int64),
        numeric={},
        labels={},
    )
    ones = np.ones(NUM_REQUESTS)
    metrics = []
    for k in range(NUM_METRICS):
        sides = rng.poisson(1.5, (2, NUM_REQUESTS)).astype(np.float64)
        name = "repin_volume_at_3" if k == 0 else f"metric_{k}"
        metrics.append(RatioMetric(name, sides[0], sides[1], ones, is_per_request=True))
    return rows, metrics


def _ours(rows: ExampleRows, metrics: list[RatioMetric]) -> None:
    from pipelines.recipes import completejourney

    config = completejourney().model_gate.model_copy(update={"num_resamples": NUM_RESAMPLES})
    users, request_user = np.unique(rows.user_id, return_inverse=True)
    bootstrap_metrics(rows, metrics, segment_masks(rows), users, request_user, config)


def _scipy(rows: ExampleRows, metric: RatioMetric) -> None:
    _, request_user = np.unique(rows.user_id, return_inverse=True)
    ours, theirs = (np.bincount(request_user, s) for s in (metric.challenger, metric.baseline))

    def change(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
        return ours.sum(axis) / theirs.sum(axis) - 1

    bootstrap(
        (ours, theirs), change, n_resamples=SCIPY_RESAMPLES, batch=10, paired=True,
        vectorized=True, method="percentile", rng=np.random.default_rng(SEED),
    )  # fmt: skip


def _cpu_s(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
